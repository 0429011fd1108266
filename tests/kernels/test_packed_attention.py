"""The Triton kernels against fp64: output and every gradient, on awkward segments.

Without a GPU they run in Triton's interpreter, where bf16 is wrong: fp32 and fp16 there.
"""

import itertools

import pytest
import torch

from ldm.kernels.packed_attention import fused
from ldm.kernels.packed_attention.work_list import LONG, SHORT, WorkList, build
from tests.conftest import DEVICE
from tests.kernels.reference_attention import attention

DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * (DEVICE == "cuda")
SEGMENTS = {
    "short": [1, 63, 64, 2, 30, 31, 1],
    "around a tile": [SHORT, SHORT + 1, LONG - 1, LONG, LONG + 1],
    "empty segments and a giant": [0, 1, 2 * LONG + 37, 0, 0, 5, 0],
    "one token": [1],
}


def case(lengths, heads, key_heads, dim, dtype, seed=0):
    """q, k, v as strided views of one fused projection, do, positions, cu_seqlens, work list."""
    generator = torch.Generator().manual_seed(seed)
    cu_seqlens = [0, *itertools.accumulate(lengths)]
    tokens = cu_seqlens[-1]
    qkv = torch.randn(tokens, heads + 2 * key_heads, dim, generator=generator)
    q, k, v = qkv.to(DEVICE, dtype).split([heads, key_heads, key_heads], dim=1)
    do = torch.randn(tokens, heads, dim, generator=generator).to(DEVICE, dtype)
    positions = torch.cat([torch.arange(n, dtype=torch.int32) for n in lengths]).to(DEVICE)
    return q, k, v, do, positions, cu_seqlens, build(cu_seqlens).to(DEVICE)


def gradients(function, q, k, v, do):
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out = function(q, k, v)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), do)]


CASES = [(name, 2, 1, 64, window) for name in SEGMENTS for window in (0, 17)]
CASES += [("around a tile", 2, 2, 64, 0), ("short", 4, 2, 128, 0), ("around a tile", 1, 1, 128, 17)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(("name", "heads", "key_heads", "dim", "window"), CASES)
def test_error_is_at_most_twice_that_of_plain_pytorch(name, dtype, heads, key_heads, dim, window):
    q, k, v, do, positions, cu, tiles = case(SEGMENTS[name], heads, key_heads, dim, dtype)
    ours = gradients(
        lambda *qkv: fused.packed_attention(*qkv, positions, tiles, window), q, k, v, do
    )
    plain = gradients(lambda *qkv: attention(*qkv, cu, window), q, k, v, do)
    exact = gradients(
        lambda *qkv: attention(*qkv, cu, window), *(x.double() for x in (q, k, v, do))
    )
    for label, x, y, z in zip(("o", "dq", "dk", "dv"), ours, plain, exact, strict=True):
        # The floor is one rounding of the largest element: a lucky plain result may have no error.
        floor = torch.finfo(dtype).eps * max(z.abs().max(), do.abs().max())
        bound = 2 * max((y - z).abs().max(), floor)
        assert (x - z).abs().max() <= bound, label


def test_eight_thousand_tiny_segments():
    lengths = [1 + i % 3 for i in range(8192)]
    q, k, v, _, positions, cu, tiles = case(lengths, 1, 1, 64, torch.float32)
    out = fused.packed_attention(q, k, v, positions, tiles)
    first = torch.tensor(cu[:-1])
    # A first token sees itself alone; on a GPU v is the sum of two tf32 parts, 22 bits.
    torch.testing.assert_close(out[first], v[first], rtol=1e-6, atol=0)
    seconds = first[[n > 1 for n in lengths]] + 1
    pair = torch.stack([v[seconds - 1], v[seconds]])
    assert (out[seconds] >= pair.amin(0) - 1e-6).all() and (
        out[seconds] <= pair.amax(0) + 1e-6
    ).all()


@pytest.mark.parametrize("touched", [1, 4])
def test_a_segment_never_sees_another(touched):
    lengths = [40, 20, 70, 3, 150, 9]
    q, k, v, do, positions, cu, tiles = case(lengths, 2, 1, 64, torch.float32)

    def run(*qkv):
        return gradients(lambda *x: fused.packed_attention(*x, positions, tiles), *qkv, do)

    before = run(q, k, v)
    rows = slice(cu[touched], cu[touched + 1])
    q, k, v = (x.clone() for x in (q, k, v))
    for x in (q, k, v):
        x[rows] = 1e4
    after = run(q, k, v)
    others = torch.ones(cu[-1], dtype=torch.bool)
    others[rows] = False
    for x, y in zip(before, after, strict=True):
        assert torch.equal(x[others], y[others])
        assert not torch.equal(x, y)


def test_tokens_of_no_tile_are_zero_in_output_and_gradients():
    q, k, v, do, positions, cu, _ = case([64, 100, 30], 2, 2, 64, torch.float32)
    tiles = build(cu[:-1])
    tiles = WorkList(tiles.short_C4, tiles.long_C4, cu[-1])
    for x in gradients(lambda *y: fused.packed_attention(*y, positions, tiles), q, k, v, do):
        assert not x[cu[-2] :].any() and x[: cu[-2]].any()


def test_backward_is_bitwise_repeatable():
    repeats = 1000 if DEVICE == "cuda" else 3
    q, k, v, do, positions, _, tiles = case([50, 60, 300, 9], 4, 2, 64, torch.float16)

    def run():
        return gradients(lambda *x: fused.packed_attention(*x, positions, tiles), q, k, v, do)

    first = run()
    for _ in range(repeats):
        assert all(torch.equal(x, y) for x, y in zip(first, run(), strict=True))


def test_opcheck():
    q, k, v, _, positions, _, tiles = case([20, 70], 2, 1, 64, torch.float32)
    q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
    arguments = (q, k, v, positions, tiles.short_C4, tiles.long_C4, 0)
    # Tracing through the kernels needs a compiled one; the interpreter has none.
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if DEVICE == "cuda":
        tests.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.ldm.packed_attention.default, arguments, test_utils=tests)


WRONG = {
    "rank": (lambda q, k, v, p, t: (q[0], k, v, p, t), "expected tokens × heads"),
    "dtype": (lambda q, k, v, p, t: (q.double(), k, v, p, t), "bf16, fp16 or fp32"),
    "two dtypes": (lambda q, k, v, p, t: (q, k.half(), v, p, t), "k: expected torch.float32"),
    "head dimension": (lambda q, k, v, p, t: (q[..., :48], k[..., :48], v[..., :48], p, t), "48"),
    "head count": (lambda q, k, v, p, t: (q[:, :3], k, v, p, t), "3 query heads"),
    "tokens of k": (lambda q, k, v, p, t: (q, k[1:], v[1:], p, t), "expected k and v of 90"),
    "layout": (
        lambda q, k, v, p, t: (q.transpose(1, 2).contiguous().transpose(1, 2), k, v, p, t),
        "contiguous head dimension",
    ),
    "positions": (lambda q, k, v, p, t: (q, k, v, p.long(), t), "positions: expected int32"),
    "work list": (lambda q, k, v, p, t: (q, k, v, p, build([0, 50])), "work list is for 50 tokens"),
    "window": (lambda q, k, v, p, t: (q, k, v, p, t, -1), "window: expected 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_named_before_any_launch(name):
    change, message = WRONG[name]
    q, k, v, _, positions, _, tiles = case([20, 70], 4, 2, 64, torch.float32)
    with pytest.raises(ValueError, match=message):
        fused.packed_attention(*change(q, k, v, positions, tiles))


def test_work_list_covers_every_token_once():
    lengths = [5, 64, 65, 0, 1, 128, 129, 300, 64, 63, 2, 0]
    cu = [0, *itertools.accumulate(lengths)]
    tiles = build(cu)
    covered = torch.zeros(cu[-1], dtype=torch.int32)
    ends = dict(itertools.pairwise(cu))
    for start, end, first, last in tiles.long_C4.tolist():
        assert end - start <= LONG and (start == end or (first in cu and last in cu))
        covered[start:end] += 1
    for start, end, *_ in tiles.short_C4.tolist():
        assert end - start <= SHORT and (start == end or (start in ends and end in cu))
        covered[start:end] += 1
    assert (covered == 1).all()


def test_a_work_list_whose_lengths_descend_is_refused():
    with pytest.raises(ValueError, match="descends from 10 to 5"):
        build([0, 10, 5])
