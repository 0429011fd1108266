"""Many processes, each with a device: ZeRO, started by the `deepspeed` launcher or torchrun."""

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.profiler import record_function

from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.train.engine import DTYPES, Loss, choose_precision, join, refuse_compiled, shapes_of
from ldm.train.optimizer import KINDS, make_optimizer, restored, set_rate, updates
from ldm.train.pieces import WEIGHT, Piece, Pieces
from ldm.train.rank_times import Work, mark
from ldm.train.ranks import Ranks, limit_time

BUCKET = 200_000_000  # numbers that one collective carries at most; DeepSpeed's own is 5e8
MOMENTS = KINDS["adamw"]


@dataclass(frozen=True)
class Fragment:
    """`count` numbers of a parameter from `offset` on.

    start: their place in `flat`, this rank's part of a group of fp32 master weights, by which the
    optimiser knows its moments.
    """

    name: str
    offset: int
    count: int
    flat: torch.Tensor
    start: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The fragment's numbers in a tensor laid out as `self.flat`."""
        return flat.detach()[self.start : self.start + self.count]


class DeepSpeedEngine(Ranks):
    """ZeRO stage 1 to 3: fp32 master weights and optimiser state in parts, one part a rank.

    Raises LdmError outside the launcher, and for an optimiser that it does not have.
    """

    name = "deepspeed"

    def __init__(self, model: Decoder, config: TrainConfig):
        refuse(config)
        super().__init__()
        self.config, self.shapes = config, shapes_of(model)
        self.precision = choose_precision(config.precision, self.device)
        refuse_compiled(config, self.device)
        self.zero_stage = config.zero_stage
        model.compute_dtype, model.recompute = DTYPES[self.precision], config.recompute
        if self.device.type == "cuda" and config.compile:
            model.compile_blocks()
        self.work = Work(model, partial(mark, self.device))
        self.optimizer = make_optimizer(model, config)
        with redirect_stdout(None):  # one of its optimisers prints
            self.engine, *_ = self.deepspeed.initialize(
                model=LossOf(model), optimizer=self.optimizer, config=self._settings(model, config)
            )
        limit_time()

    def _settings(self, model: nn.Module, config: TrainConfig) -> dict:
        bucket = min(sum(p.numel() for p in model.parameters()), BUCKET)
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,  # a batch of ours is one already
            "gradient_accumulation_steps": config.micro_batches,
            "gradient_clipping": config.clip,
            # one wait for the device a step; without it a gradient that is not finite is applied
            "bf16": {"enabled": self.precision == "bf16", "check_grad_overflow": True},
            "zero_optimization": {
                "stage": config.zero_stage,
                # needs the bucket twice, so that one is sent while the other fills
                "overlap_comm": self.device.type == "cuda",
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
            "steps_per_print": 10**9,
        }
        if config.offload:  # with our AdamW, whose fused step CPUs have too
            settings["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
            settings["zero_force_ds_cpu_optimizer"] = False
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
        set_rate(self.engine.optimizer, rate)
        with record_function("ldm.optimiser"):
            self.engine.step()
        norm = self.engine.get_global_grad_norm()  # a float where it is not finite
        return torch.as_tensor(norm, dtype=torch.float32, device=self.device)

    @property
    def updates(self) -> int:
        return updates(self.optimizer)

    def pieces(self) -> Iterator[Piece]:
        for part in self.fragments():
            yield Piece(part.name, WEIGHT, part.offset, part.of(part.flat))
            for kind in MOMENTS:
                values = part.of(self.optimizer.state[part.flat][kind])
                yield Piece(part.name, kind, part.offset, values)

    def load(self, held: Pieces, updates: int) -> None:
        states = {}
        for part in self.fragments():
            where = part.name, part.offset, part.count
            flat = part.flat
            part.of(flat).copy_(held.read(where[0], WEIGHT, *where[1:]))
            if flat not in states:
                zeros = {kind: torch.zeros_like(flat.detach()) for kind in MOMENTS}
                states[flat] = restored(zeros, updates, flat.device)
            for kind in MOMENTS:
                part.of(states[flat][kind]).copy_(held.read(where[0], kind, *where[1:]))
        self.optimizer.state.update(states)

    def _groups(self) -> list[torch.Tensor]:
        """This rank's part of each group at stage 1 or 2; the class depends on the precisions."""
        zero = self.engine.optimizer
        if hasattr(zero, "fp32_groups_flat_partition"):
            return zero.fp32_groups_flat_partition
        return zero.single_partition_of_fp32_groups

    def fragments(self) -> Iterator[Fragment]:
        """What this rank holds, by DeepSpeed's own maps from parameters to its flat groups."""
        zero = self.engine.optimizer
        for name, parameter in self.engine.module.model.named_parameters():
            if self.zero_stage == 3:
                group, start, count = zero.grad_position[zero.get_param_id(parameter)]
                offset = self.rank * count
                count = min(count, parameter.ds_numel - offset)  # the last is filled up
                flat = zero.fp32_partitioned_groups_flat[group]
                if count > 0:
                    yield Fragment(name, offset, count, flat, start)
            elif (held := parameter._hp_mapping) is not None:
                flat = self._groups()[held.param_group_index]
                place = held.hp_fragment_address
                offset = held.lp_fragment_address.start
                yield Fragment(name, offset, place.numel, flat, place.start)


def refuse(config: TrainConfig) -> None:
    """Raises LdmError for settings that this engine does not have."""
    if config.zero_stage not in (1, 2, 3):
        raise LdmError(f"train.zero_stage: expected 1, 2 or 3, got {config.zero_stage}")
    if config.optimizer != "adamw":
        raise LdmError(
            f"train.optimizer={config.optimizer} trains in one process only (ZeRO splits the "
            "matrices that it needs whole): use train.optimizer=adamw under a launcher"
        )
    if config.average:
        raise LdmError("train.average: only one process keeps one; set it to 0 under a launcher")


class LossOf(nn.Module):
    """DeepSpeed calls a module, never a method of it."""

    def __init__(self, model: Decoder):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.loss(batch)
