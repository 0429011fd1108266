"""Is what is timed right? Each operation once, in the precision and at a size that is timed.

    python -m ldm.bench.right [OPERATION…]

Output and every gradient against the definition in fp64. The bound on the relative error, in the
Frobenius norm, is four units in the last place of bf16 (4 · 2⁻⁸): the output, and each of the up to
three operands that a gradient rounds before it multiplies, err by half a unit at most, so twice
what all of them could add up to. Awkward sizes and fp32 are for the tests.
"""

import sys
from collections.abc import Callable, Iterator

import torch

from ldm.bench import embedding_cost
from ldm.bench.attention import HEADS, inputs
from ldm.bench.device import embedders
from ldm.bench.lengths import TOKENS
from ldm.bench.row_cost import cases
from ldm.bench.row_operations import on_gpu, our_loss
from ldm.bench.scale import DEVICE, DTYPE
from ldm.errors import LdmError
from ldm.kernels.action_loss import reference as loss
from ldm.kernels.packed_attention import dispatch
from ldm.kernels.packed_attention import reference as attention
from ldm.kernels.token_embedding import reference as embedding

BOUND = 4 * 2.0**-8

Pair = tuple[str, torch.Tensor, torch.Tensor]  # what it is, ours, fp64


def packed_attention() -> Iterator[Pair]:
    qkv, do, segments, _ = inputs("exp 128", HEADS, 64, min(TOKENS, 16_384))
    starts = segments.cu_seqlens_S1.tolist()
    ours = differentiated(lambda x: dispatch.load("fused")(x, HEADS, segments), [qkv], do)
    plain = lambda x: attention.packed_attention(*x.chunk(3, dim=1), cu_seqlens=starts)
    yield from zip(("output", "dqkv"), ours, differentiated(plain, [qkv], do, torch.double))


def token_embedding() -> Iterator[Pair]:
    batch = embedding_cost.control_batch(embedding_cost.TOKENS, embedding_cost.ROWS).to(DEVICE)
    weights, grad, forwards = embedders(batch)
    t = batch.tokens
    given = [t.kinds_N, t.bag_ids_B, t.bag_weights_B, t.bag_offsets_N1]
    given += [t.features_NG, t.patches_PX, t.patch_tokens_P]
    exact = differentiated(
        lambda *w: embedding.token_embedding(*w, *given), weights, grad, torch.double
    )
    ours = (forwards["ours"](), *torch.autograd.grad(forwards["ours"](), weights, grad))
    yield from zip(("output", "dtable", "dfeatures", "dpatch", "dnorm"), ours, exact)


def action_loss() -> Iterator[Pair]:
    hidden, gate, slot, out, *labels = on_gpu("action_loss", cases()["action_loss"])
    weights = [hidden, gate, slot, out]
    grad = torch.rand(len(labels[0]), device=DEVICE)
    ours = differentiated(lambda *w: our_loss(*w, *labels), weights, grad)
    exact = differentiated(
        lambda h, *w: loss.action_loss(h, labels[0], *w, *labels[1:]), weights, grad, torch.double
    )
    yield from zip(("loss", "dhidden", "dgate", "dslot", "dout"), ours, exact)


OPERATIONS: dict[str, Callable[[], Iterator[Pair]]] = {
    "packed_attention": packed_attention,
    "token_embedding": token_embedding,
    "action_loss": action_loss,
}


def differentiated(function: Callable, inputs, grad, dtype=None) -> list[torch.Tensor]:
    """Output and the gradient of every input, computed in `dtype`, theirs unless given."""
    leaves = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def errors(operation: str) -> Iterator[tuple[str, float]]:
    """(what, relative error in the Frobenius norm) of the output and every gradient."""
    for what, ours, exact in OPERATIONS[operation]():
        size = exact.double().norm().clamp(min=1e-30)
        yield what, ((ours.double() - exact).norm() / size).item()


def verify(operations: list[str]) -> None:
    """Prints every error. Raises LdmError where one exceeds the bound, or is none."""
    wrong = []
    for operation in operations:
        for what, error in errors(operation):
            good = error <= BOUND
            print(f"{operation:18s} {what:10s} {error:.2e}{'' if good else '  WRONG'}", flush=True)
            wrong += [] if good else [f"{operation} {what} {error:.2e}"]
    if wrong:
        raise LdmError(f"over {BOUND:.1e} from fp64: {', '.join(wrong)} ({DTYPE} on {DEVICE})")


if __name__ == "__main__":
    try:
        verify(sys.argv[1:] or list(OPERATIONS))
    except LdmError as error:
        sys.exit(f"right: {error}")
