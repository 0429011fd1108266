"""What can be tuned: operations, the block sizes to try, and the calls that judge them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

from ldm._native.layout import LONG, SHORT
from ldm.bench.scale import DEVICE, sized
from ldm.kernels.action_loss import configurations as loss
from ldm.kernels.packed_attention import configurations as attention
from ldm.kernels.token_embedding import configurations as embedding
from ldm.kernels.tuned import Tuned

TUNING_TOKENS = sized(131_072, 128)  # of attention: enough that no launch waits for Python
WIDTH = sized(1024, 64)  # of ldm-v0


@dataclass(frozen=True)
class Operation:
    """tuned: its configurations. sizes: what rows are keyed by. modes: every kernel that is tuned,
    with the direction that runs it.

    candidates(kernel, size): block sizes to try. calls(kernel, size): functions of nothing that
    launch the kernel on a GPU, on inputs that spend their time in it.
    """

    tuned: Tuned
    sizes: tuple[int, ...]
    modes: dict[str, str]
    candidates: Callable[[str, int], Iterator]
    calls: Callable[[str, int], list[Callable]]


def attention_candidates(kernel: str, dim: int) -> Iterator[attention.Configuration]:
    """Block sizes that divide the tile; warps and stages that make sense for them."""
    tile = SHORT if kernel.endswith("_short") else LONG
    if tile == SHORT:  # holds a whole tile, no loop to pipeline
        yield from (attention.Configuration(SHORT, SHORT, warps, 1) for warps in (4, 8))
        return
    for m, n, warps, stages in product((32, 64, 128), (32, 64, 128), (4, 8), (2, 3)):
        owned = n if kernel == "key" else m  # the rows that programs share out
        if owned <= tile and max(m, n) >= 64 and (m * n > 32 * 64 or warps == 4):
            yield attention.Configuration(m, n, warps, stages)


def attention_calls(kernel: str, dim: int) -> list[Callable]:
    from ldm.bench.attention import PROVIDERS, call_of, inputs

    short = kernel.endswith("_short")
    calls = []
    for name in ("const 64", "tiny") if short else ("exp 128", "exp 512", "dense 8k"):
        qkv, do, segments, _ = inputs(name, sized(1024 // dim, 1), dim, TUNING_TOKENS)
        mode = ATTENTION.modes[kernel]
        calls.append(call_of(PROVIDERS["ours"](), "ours", mode, qkv, do, segments))
    return calls


def embedding_candidates(kernel: str, columns: int) -> Iterator[embedding.Configuration]:
    """Tokens that divide a group, columns in one, two or four passes."""
    make, parts = embedding.Configuration, [columns, columns // 2, columns // 4]
    if kernel == "forward":
        choices = product((16, 32), parts[:2], (16, 32), (4, 8, 16), (1, 2))
    elif kernel == "prenorm":
        choices = product((16, 32), parts, (16, 32), (4, 8, 16), (1, 2))
    elif kernel == "window":
        choices = product((16,), (32, 64, 128), (32, 64, 128), (4, 8), (2, 3, 4))
    else:  # "finish", sums over parts and slots
        choices = product((8, 16), parts, (4, 8, 16), (2, 4, 8), (1,))
    yield from (make(*choice) for choice in choices)


def embedding_calls(kernel: str, columns: int) -> list[Callable]:
    from ldm.bench import embedding_cost as cost
    from ldm.bench.device import call_of, embedders

    calls = []
    for make in (cost.control_batch, cost.frame_batch, cost.grid_batch):
        weights, grad, forwards = embedders(make(cost.TOKENS, cost.ROWS).to(DEVICE))
        calls.append(call_of(forwards["ours"], EMBEDDING.modes[kernel], weights, [grad]))
    return calls


def loss_candidates(kernel: str, columns: int) -> Iterator[loss.Configuration]:
    choices = product((32, 64, 128), (32, 64, 128), (32, 64, 128), (4, 8), (2, 3))
    yield from (loss.Configuration(*c) for c in choices if c[0] * c[1] >= 64 * 64)


def loss_calls(kernel: str, columns: int) -> list[Callable]:
    from ldm.bench.device import call_of
    from ldm.bench.row_cost import cases
    from ldm.bench.row_operations import on_gpu, our_loss

    inputs = on_gpu("action_loss", cases()["action_loss"])
    return [call_of(partial(our_loss, *inputs), LOSS.modes[kernel], inputs)]


def _backward(*kernels: str) -> dict[str, str]:
    return dict.fromkeys(kernels, "backward")


ATTENTION = Operation(
    attention.configuration, attention.HEAD_DIMS,
    dict.fromkeys(("forward_short", "forward_long"), "forward")
    | _backward("backward_short", "segment", "key", "query"),
    attention_candidates, attention_calls,
)  # fmt: skip
EMBEDDING = Operation(
    embedding.configuration, (WIDTH,),
    {"forward": "forward"} | _backward("prenorm", "window", "finish"),
    embedding_candidates, embedding_calls,
)  # fmt: skip
LOSS = Operation(
    loss.configuration, (WIDTH,),
    {"forward": "forward"} | _backward("logit", "row", "slot", "class"),
    loss_candidates, loss_calls,
)  # fmt: skip
OPERATIONS = {o.tuned.operation: o for o in (ATTENTION, EMBEDDING, LOSS)}
