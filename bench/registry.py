"""Every operation that is measured: what it answers, what must pass first, who measures it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Measure = Callable[[float, Callable[[str], None]], Iterator[dict]]


@dataclass(frozen=True)
class Operation:
    """`measure(seconds, notes)` yields rows {op, provider, mode, metric, shape, p20, p50, p80}.

    seconds: about how long each interleaved comparison may take; notes(text) is told what could
    not run. tests: pytest paths that must pass in the same run before a speed is printed; on a GPU
    `right` stands for them, which looks at the precision that is timed.
    """

    about: str
    answers: str  # rows of the scoreboard
    tests: tuple[str, ...]
    gpu: bool
    module: str
    function: str = "measure"
    right: str = ""  # in `ldm.bench.right`: what a GPU is asked instead of the tests

    def measure(self, seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
        from importlib import import_module

        return getattr(import_module(self.module), self.function)(seconds, notes)


OPERATIONS = {
    "packed_attention": Operation(
        "packed attention beside flash-attn, varlen, flex and SDPA", "1 to 6",
        ("tests/kernels/test_packed_attention.py", "tests/kernels/test_dispatch.py"),
        True, "ldm.bench.attention", right="packed_attention",
    ),
    "rotated_attention": Operation(
        "rotary positions and packed attention, fused and apart", "1 to 6",
        ("tests/kernels/test_packed_attention.py", "tests/kernels/test_dispatch.py"),
        True, "ldm.bench.attention", "rotated", "packed_attention",
    ),
    "flex_attention": Operation(
        "packed attention beside flex, which compiles for long", "1 to 6",
        ("tests/kernels/test_packed_attention.py",), True, "ldm.bench.attention", "beside_flex",
        "packed_attention",
    ),
    "token_embedding": Operation(
        "bags and numbers to vectors, beside eager and torch.compile", "8, 9",
        ("tests/kernels/test_embedding_cpu.py", "tests/kernels/test_token_embedding.py"),
        True, "ldm.bench.device", "token_embedding", "token_embedding",
    ),
    "embedding_cost": Operation(
        "bytes that the token embedding moves, beside the floor", "8, 9",
        ("tests/kernels/test_embedding_plan.py",), False, "ldm.bench.embedding_cost",
    ),
    "row_operations": Operation(
        "norm, SwiGLU and action loss, beside eager, torch.compile and Liger", "10",
        ("tests/kernels/test_row_operations.py", "tests/kernels/test_action_loss.py"), True,
        "ldm.bench.row_operations", right="action_loss",
    ),
    "row_cost": Operation(
        "bytes that norm, SwiGLU and action loss move, by who computes them", "10",
        ("tests/bench/test_row_cost.py",), False, "ldm.bench.row_cost",
    ),
    "optimiser": Operation(
        "one AdamW step", "17", ("tests/train/test_engine.py",), True, "ldm.bench.device",
        "optimiser",
    ),
    "gate": Operation(
        "registers, stack and shared memory of shipped kernels, ahead of time", "18", (), False,
        "ldm.bench.static", "gate",
    ),
    "cost": Operation(
        "packed attention's work, tile shares and roofs", "1 to 6", (), False, "ldm.bench.static",
        "cost_model",
    ),
    "work_list": Operation(
        "building the attention work list", "7", ("tests/kernels/test_work_list.py",), False,
        "ldm.bench.host", "work_list",
    ),
    "packer": Operation(
        "bins and packed batches", "13, 14", ("tests/data/test_packer.py",), False,
        "ldm.bench.host", "packer",
    ),
    "train_step": Operation(
        "training the small model on the CPU", "20",
        ("tests/model/test_decoder.py", "tests/model/test_attention_path.py"), False,
        "ldm.bench.host", "train_step",
    ),
    "loader_wait": Operation(
        "the share of a training step that waits for data", "12", ("tests/data/test_loader.py",),
        False, "ldm.bench.host", "loader_wait",
    ),
    "data_parallel": Operation(
        "ZeRO-1 and DDP beside ranks that train alone", "11", ("tests/train/test_deepspeed.py",),
        False, "ldm.bench.host", "data_parallel",
    ),
    "acting": Operation(
        "a model that acts in many streams, simulator included", "16",
        ("tests/policy/test_actor.py",), False, "ldm.bench.host", "acting",
    ),
    "generation": Operation(
        "environment steps and recording beside gymnasium's AsyncVectorEnv and raw envpool", "15",
        ("tests/envs/test_envpool_backend.py", "tests/record/test_recorder.py"), False,
        "ldm.bench.generation",
    ),
}  # fmt: skip
