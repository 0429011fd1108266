"""The step as a GPU runs it, traced on the meta device: it has shapes and no numbers, so that it
can compute nothing, and any operation that would wait for a number fails."""

import sys
from collections import Counter
from contextlib import closing
from itertools import islice
from unittest.mock import Mock

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import FailOnRecompileLimitHit, RecompileError
from torch._dynamo.utils import counters

from ldm.config import TrainConfig
from ldm.data.loader import Loader, MicroBatches, largest
from ldm.data.manifest import read_manifest
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train import graph
from ldm.train.bad_batches import BadBatches
from ldm.train.engine import TorchEngine
from ldm.train.flops import matmul_sizes
from ldm.train.graph import GraphEngine
from ldm.train.loop import train
from ldm.train.metrics import Log
from ldm.train.optimizer import make_optimizer
from ldm.train.stop import Stop

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
    return Decoder(architecture("nano", **SIZES, rows=512, owners=8), torch.bfloat16).to(device)


def fixed(made, steps: int) -> Loader:
    return Loader(made[1] / "mix", capacities=largest(made[1] / "mix", steps))


def blocks_over(loader: Loader, model: Decoder, steps: int) -> None:
    """Forward of the blocks over real batches; any new shape is an error after the first."""
    inputs = None
    with closing(loader), torch.no_grad():
        for i, batch in enumerate(islice(loader, steps)):
            batch = batch.to("meta")
            inputs = inputs or batch
            if loader.capacities:
                graph.copy_into(inputs, batch)  # every array of the shape that was recorded
            x_ND = torch.empty(len(batch.positions_N), 64, dtype=torch.bfloat16, device="meta")
            with torch._dynamo.config.patch(error_on_recompile=i > 0):
                attend = model._attention(batch)
                for block in model.blocks[:-1]:
                    x_ND = block(x_ND, attend)
                model.blocks[-1](x_ND, attend, batch.labels.reads_U)


@pytest.mark.parametrize("kind", [TorchEngine, GraphEngine])
def test_a_step_waits_for_nothing_on_the_device(made, as_on_hopper, monkeypatch, tmp_path, kind):
    """The loop, forward, backward, clipping, AdamW and what the log keeps."""
    optimizers = sys.modules["torch.optim.optimizer"]  # which has a list of devices, not this one
    supported = optimizers._get_fused_kernels_supported_devices
    monkeypatch.setattr(optimizers, supported.__name__, lambda: [*supported(), "meta"])
    monkeypatch.setattr(graph, "Graphed", lambda function: function)  # what it would record
    library = torch.library.Library("aten", "IMPL", "Meta")  # has it for a rate that is a number
    library.impl("_fused_adamw_.tensor_lr", lambda *_, **__: None)
    config = TrainConfig(precision="fp32", micro_batches=2, log_every=9, checkpoint_every=9)
    engine = kind(decoder("cpu"), config)
    engine.threads, engine.device = None, torch.device("meta")
    engine.model.to("meta")
    engine.parameters = list(engine.model.parameters())
    engine.optimizer = make_optimizer(engine.model, config)
    if kind.capturable:  # AdamW reads its rate when it is made, and never again
        for group in engine.optimizer.param_groups:
            group.update(capturable=True, lr=torch.empty((), device="meta"))
    names = [
        environment["id"] for environment in read_manifest(made[1] / "mix", "mix")["environments"]
    ]
    log = Log(
        tmp_path,
        engine,
        matmul_sizes(engine.model.architecture),
        names,
        float,
        BadBatches(0, str, None),
    )
    loader = MicroBatches(made[1] / "mix", 0, 1, 0, 2, fixed_for=3)
    with closing(loader), closing(log.open(0, 3)):
        train(config, 0, engine, islice(loader, 3), log, Mock(), Stop(engine, 9))
    assert len(log.values) == 3
    with pytest.raises(RuntimeError):
        float(log.values[-1])  # what waiting would be


def test_blocks_compile_whole_and_once_for_200_real_batches(made, as_on_hopper):
    model = decoder()
    model.compile_blocks(backend="eager")
    counters.clear()
    blocks_over(fixed(made, STEPS), model, STEPS)
    assert counters["stats"]["unique_graphs"] == 2  # the last block reads fewer tokens
    assert not counters["graph_break"]


def test_batches_as_long_as_they_need_compile_again(made, as_on_hopper):
    model = decoder()
    model.compile_blocks(backend="eager")
    with pytest.raises((RecompileError, FailOnRecompileLimitHit)):
        blocks_over(Loader(made[1] / "mix"), model, 20)


def test_a_block_and_its_gradient_are_one_graph_each(made, as_on_hopper):
    """Through the autograd of every operation, as the compiler takes it apart."""
    compiled = Counter()

    def compiler(pass_):
        def count(module, inputs):
            compiled[pass_] += 1
            return make_boxed_func(module.forward)

        return count

    model = decoder()
    model.compute_dtype = torch.float32
    backend = aot_autograd(fw_compiler=compiler("forward"), bw_compiler=compiler("backward"))
    model.compile_blocks(backend)
    counters.clear()
    with closing(fixed(made, 5)) as loader:
        for batch in islice(loader, 5):
            total, *_ = model.loss(batch.to("meta"))
            torch.autograd.grad(total, list(model.parameters()))
    assert compiled == {"forward": 2, "backward": 2}  # the last block reads fewer tokens
    assert not counters["graph_break"]
