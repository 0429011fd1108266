"""Many processes, each with a device: ZeRO, started by the `deepspeed` launcher."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.profiler import record_function

from ldm.config import TrainConfig
from ldm.data.atomic import replacing
from ldm.data.batch import PackedBatch
from ldm.errors import LdmError, MachineError, install
from ldm.model.decoder import Decoder
from ldm.train.engine import DTYPES, Loss, adamw, choose_precision, join

TAG = "deepspeed"  # folder of DeepSpeed's own state inside a checkpoint
UNIVERSAL = "universal"  # the same, split by parameter: loads at any world size


class DeepSpeedEngine:
    """ZeRO stage 1 to 3: fp32 master weights and optimiser state in parts, one part a rank.

    saved: state.json of the checkpoint that will be loaded; where its world size is another, it is
    converted once to a universal checkpoint. Raises LdmError outside the launcher, and where the
    checkpoint is of another precision or ZeRO stage.
    """

    name = "deepspeed"

    def __init__(self, model: Decoder, config: TrainConfig, saved: dict | None):
        deepspeed = start_ranks()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        self.precision = choose_precision(config.precision, self.device)
        self.zero_stage = config.zero_stage
        if self.zero_stage not in (1, 2, 3):
            raise LdmError(f"train.zero_stage: expected 1, 2 or 3, got {self.zero_stage}")
        refuse_other(saved, precision=self.precision, zero_stage=self.zero_stage)
        model.compute_dtype = DTYPES[self.precision]
        if self.device.type == "cuda" and config.compile:
            model.compile_blocks()
        self.universal = saved is not None and saved["world"] != self.world
        self.deepspeed = deepspeed
        self.optimizer = adamw(model, config)
        with redirect_stdout(None):  # one of its optimisers prints
            self.engine, *_ = deepspeed.initialize(
                model=LossOf(model), optimizer=self.optimizer, config=self._settings(model, config)
            )

    def _settings(self, model: nn.Module, config: TrainConfig) -> dict:
        size = sum(p.numel() for p in model.parameters())
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # a batch of ours is one already
            "gradient_accumulation_steps": config.micro_batches,
            "gradient_clipping": config.clip,
            "bf16": {"enabled": self.precision == "bf16"},
            "zero_optimization": {
                "stage": config.zero_stage,
                "overlap_comm": self.device.type == "cuda",
                "reduce_bucket_size": size,  # one bucket: small ones cost more than they hide
                "allgather_bucket_size": size,
            },
            "checkpoint": {"load_universal": self.universal},
            "steps_per_print": 10**9,
        }
        if config.micro_batches > 1:  # docs/decisions/0007-micro-batches-under-deepspeed.md
            settings["data_types"] = {"grad_accum_dtype": "fp32"}
            if config.zero_stage == 1:  # whose ranks add up once a step
                settings["communication_data_type"] = "fp32"
        return settings

    def backward(self, batches: Sequence[PackedBatch]) -> Loss:
        labels = sum(batch.label_count for batch in batches)
        count = torch.full((), float(labels), device=self.device)
        dist.all_reduce(count)
        # DeepSpeed averages over ranks and micro-batches, where a sum is wanted.
        scale = self.world * len(batches) / count
        losses = []
        for i, batch in enumerate(batches):
            if i:
                self.engine.step()  # adds up; only the step in `update` is the optimiser's
            batch = batch.to(self.device)
            total, _, per_label = self.engine(batch)
            self.engine.backward(total * scale)
            losses.append(Loss.of(total / count, per_label, batch))
        return join(losses)

    def update(self, rate: float) -> torch.Tensor:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        with record_function("ldm.optimiser"):
            self.engine.step()
        norm = self.engine.get_global_grad_norm()  # a float where it is not finite
        return torch.as_tensor(norm, dtype=torch.float32, device=self.device)

    def weights(self) -> dict[str, torch.Tensor]:
        """All ranks take part; only rank 0 keeps them."""
        from deepspeed.utils import safe_get_full_fp32_param

        kept = {}
        for name, parameter in self.engine.module.model.named_parameters():
            whole = safe_get_full_fp32_param(parameter)
            if self.rank == 0:
                kept[name] = whole.detach().float().cpu().clone()
        return kept

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        tag = TAG
        if self.universal:
            tag = UNIVERSAL
            if self.rank == 0:
                convert(folder)
            dist.barrier()
        with redirect_stdout(None):
            self.engine.load_checkpoint(str(folder), tag=tag)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(values)
        return values

    def broadcast(self, value):
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


class LossOf(nn.Module):
    """DeepSpeed calls a module, never a method of it."""

    def __init__(self, model: Decoder):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.loss(batch)


def start_ranks():
    """Joins the process group that the launcher describes in the environment; the deepspeed module.

    Raises LdmError where there is no launcher, or no deepspeed.
    """
    if "RANK" not in os.environ:
        raise LdmError(
            "train.engine=deepspeed needs the launcher: "
            '"deepspeed --num_gpus 8 --module ldm.train RECIPE" (or train.engine=torch)'
        )
    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise MachineError(f"train.engine=deepspeed: {install('deepspeed')}") from error
    from deepspeed.utils.logging import set_log_level_from_string

    set_log_level_from_string("warning")
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:  # an all-reduce that only inference uses; it would compile for a minute
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False)
    return deepspeed


def refuse_other(saved: dict | None, **settings) -> None:
    """Raises LdmError where a checkpoint was written with other settings than these."""
    for key, value in settings.items():
        if saved is not None and saved[key] != value:
            raise LdmError(
                f"the checkpoint of step {saved['step']} has train.{key}={saved[key]}, this run "
                f"{value}: DeepSpeed's state depends on it; resume with --train.{key} {saved[key]}"
            )


def convert(folder: Path) -> None:
    """Splits the checkpoint's ZeRO parts by parameter, once, so that any world size can load it."""
    if (folder / UNIVERSAL).exists():
        return
    with replacing(folder / UNIVERSAL) as temporary:
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
        command += ["--inject_missing_state", "--input_folder", str(folder / TAG)]
        done = subprocess.run(
            [*command, "--output_folder", temporary], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LdmError(
                f"{folder / TAG} could not be converted for another world size: "
                f"{done.stderr.strip().splitlines()[-1:]}; resume with as many ranks as wrote it"
            )
