"""The step as a GPU runs it, traced on the meta device: it has shapes and no numbers, so that it
can compute nothing, and any operation that would wait for a number fails."""

import sys
from contextlib import closing
from itertools import islice

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, RecompileError
from torch._dynamo.utils import counters

from ldm.config import TrainConfig
from ldm.data.loader import Loader, MicroBatches
from ldm.data.manifest import read_manifest
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.engine import TorchEngine, adamw
from ldm.train.flops import matmul_sizes
from ldm.train.metrics import Log

pytest.importorskip("triton")
SIZES = {"layers": 3, "width": 64, "heads": 2, "kv_heads": 1, "head_dim": 64, "ffn": 96}
STEPS = 200


@pytest.fixture
def as_on_hopper(monkeypatch):
    """Operations choose what they would on an H100."""
    import ldm.kernels.packed_attention.fused
    import ldm.kernels.token_embedding.fused  # noqa: F401

    monkeypatch.delenv("LDM_ATTENTION", raising=False)
    for name, module in list(sys.modules.items()):
        if name.startswith("ldm.kernels") and hasattr(module, "architecture"):
            monkeypatch.setattr(module, "architecture", lambda device: "sm_90")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def decoder(device: str = "meta") -> Decoder:
    return Decoder(architecture("nano", **SIZES, rows=512), torch.bfloat16).to(device)


def blocks_over(loader: Loader, model: Decoder, steps: int) -> None:
    """Forward of the blocks over real batches; any new shape is an error after the first."""
    with closing(loader), torch.no_grad():
        for i, batch in enumerate(islice(loader, steps)):
            batch = batch.to("meta")
            x_ND = torch.empty(len(batch.positions_N), 64, dtype=torch.bfloat16, device="meta")
            with torch._dynamo.config.patch(error_on_recompile=i > 0):
                attend = model._attention(batch)
                for block in model.blocks[:-1]:
                    x_ND = block(x_ND, attend)
                model.blocks[-1](x_ND, attend, batch.labels.reads_U)


def test_a_step_waits_for_nothing_on_the_device(made, as_on_hopper, monkeypatch, tmp_path):
    """Forward, backward, clipping, AdamW and what the log keeps."""
    optimizers = sys.modules["torch.optim.optimizer"]  # which has a list of devices, not this one
    supported = optimizers._get_fused_kernels_supported_devices
    monkeypatch.setattr(optimizers, supported.__name__, lambda: [*supported(), "meta"])
    engine = TorchEngine(decoder("cpu"), TrainConfig(precision="fp32", micro_batches=2))
    engine.threads, engine.device = None, torch.device("meta")
    engine.model.to("meta")
    engine.parameters = list(engine.model.parameters())
    engine.optimizer = adamw(engine.model, TrainConfig())
    names = [
        environment["id"] for environment in read_manifest(made[1] / "mix", "mix")["environments"]
    ]
    log = Log(tmp_path, engine, matmul_sizes(engine.model.architecture), names, float, str)
    loader = MicroBatches(made[1] / "mix", 0, 1, 0, 2, fixed_for=3)
    with closing(loader), closing(log.open(0, 3)):
        for batches in islice(loader, 3):
            loss = engine.backward(batches)
            log.add(batches, loss, engine.update(1e-3))
    with pytest.raises(RuntimeError):
        float(loss.share)  # what waiting would be


def test_blocks_compile_whole_and_once_for_200_real_batches(made, as_on_hopper):
    model = decoder()
    model.compile_blocks(backend="eager")
    counters.clear()
    blocks_over(Loader(made[1] / "mix", fixed_for=STEPS), model, STEPS)
    assert counters["stats"]["unique_graphs"] == 2  # the last block reads fewer tokens
    assert not counters["graph_break"]


def test_batches_as_long_as_they_need_compile_again(made, as_on_hopper):
    model = decoder()
    model.compile_blocks(backend="eager")
    with pytest.raises((RecompileError, FailOnRecompileLimitHit)):
        blocks_over(Loader(made[1] / "mix"), model, 20)


def test_a_block_and_its_gradient_are_one_graph_each(made, as_on_hopper):
    """Through the autograd of every operation, as the compiler takes it apart."""
    model = decoder()
    with closing(Loader(made[1] / "mix", fixed_for=2)) as loader:
        batch = next(loader).to("meta")
    explained = torch._dynamo.explain(model.blocks[0])(
        torch.empty(len(batch.positions_N), 64, dtype=torch.bfloat16, device="meta"),
        model._attention(batch),
    )
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)
