"""The Triton kernels against fp64: output and every gradient, on awkward segments.

Without a GPU they run in Triton's interpreter, where bf16 is wrong: fp32 and fp16 there.
"""

import functools
import itertools

import numpy as np
import pytest
import torch

from ldm._native.layout import LONG, SHORT
from ldm.kernels.packed_attention import fused
from ldm.kernels.packed_attention.reference import packed_attention as attention
from ldm.kernels.packed_attention.work_list import WorkList, build
from ldm.kernels.rotary import rotary, rotary_table
from tests.conftest import DEVICE
from tests.kernels.bounds import arithmetic, hold

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


def check(lengths, heads, key_heads, dim, dtype, window=0, rotate=False, change=lambda *x: x):
    """o, dq, dk and dv lie within their bounds of fp64."""
    q, k, v, do, positions, cu, tiles = case(lengths, heads, key_heads, dim, dtype)
    q, k, v, do = change(q, k, v, do)
    angles = rotary_table(max(lengths), dim, DEVICE) if rotate else None

    def exact(q, k, v):
        if rotate:
            q, k = (rotary(x, *(t[positions.long()].to(x) for t in angles)) for x in (q, k))
        return attention(q, k, v, cu, window)

    ours = gradients(
        lambda *qkv: fused.packed_attention(*qkv, positions, tiles, window, angles), q, k, v, do
    )
    run = lambda: gradients(exact, *(x.double() for x in (q, k, v, do)))
    hold("packed_attention", arithmetic(dtype, DEVICE), ours, run, do)


CASES = [(name, 2, 1, 64, window) for name in SEGMENTS for window in (0, 17)]
CASES += [("around a tile", 2, 2, 64, 0), ("short", 4, 2, 128, 0), ("around a tile", 1, 1, 128, 17)]


@pytest.mark.bounds
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(("name", "heads", "key_heads", "dim", "window"), CASES)
def test_errors_lie_within_their_bounds(name, dtype, heads, key_heads, dim, window):
    check(SEGMENTS[name], heads, key_heads, dim, dtype, window)


@pytest.mark.bounds
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(
    ("name", "heads", "key_heads", "dim", "window"),
    [("mixed", 1, 1, 64, 0), ("mixed", 2, 1, 64, 0), ("mixed", 1, 1, 128, 17)],
)
def test_rotated_by_position(name, dtype, heads, key_heads, dim, window):
    check([1, 63, 70, 0, 2, 40], heads, key_heads, dim, dtype, window, rotate=True)


def heads_first(q, k, v, do):
    """The same values, each head's rows together in memory."""
    return (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v, do))


@pytest.mark.bounds
@pytest.mark.parametrize(
    ("seed", "dtype"),
    [(seed, DTYPES[seed % len(DTYPES)]) for seed in range(5)],
    ids=lambda x: str(x).removeprefix("torch."),
)
def test_random_segments(seed, dtype):
    """Lengths, heads, dtype, window, angles and strides drawn from a seed."""
    random = np.random.default_rng(seed)
    pool = [0, 0, 1, 2, SHORT - 1, SHORT, SHORT + 1, LONG - 1, LONG, LONG + 1, 2 * LONG + 9]
    lengths = [int(n) for n in random.choice(pool, random.integers(1, 5))]
    lengths = lengths if any(lengths) else [*lengths, 3]
    key_heads, group = int(random.integers(1, 3)), int(random.integers(1, 3))
    check(
        lengths, key_heads * group, key_heads, 64, dtype,
        window=int(random.choice([0, 0, 7, 65])), rotate=bool(random.integers(2)),
        change=heads_first if random.integers(2) else lambda *x: x,
    )  # fmt: skip


@pytest.mark.bounds
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(("dim", "rotate"), [(64, True), (128, False)])
def test_one_program_takes_a_segment_up_to_the_span_and_many_a_longer_one(
    monkeypatch, dtype, dim, rotate
):
    monkeypatch.setattr(fused, "SPAN", LONG + 2)
    lengths = [LONG + 2, SHORT + 1, LONG + 3, 3, 0, LONG]
    check(lengths, 1, 1, dim, dtype, rotate=rotate, change=heads_first)


def test_eight_thousand_tiny_segments():
    lengths = [1 + i % 2 for i in range(8192)]
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


LEAKS = [20, 30, 10, 70]  # three segments share a tile


def run_leaks(heads, dtype, change=None):
    """o, dq, dk, dv of segments LEAKS and one key head; change = (which input, rows, value)."""
    *inputs, positions, _, tiles = case(LEAKS, heads, 1, 64, dtype)
    angles = rotary_table(max(LEAKS), 64, DEVICE)
    if change:
        which, rows, value = change
        inputs[which] = inputs[which].clone()
        inputs[which][rows] = value
    return gradients(lambda *x: fused.packed_attention(*x, positions, tiles, 0, angles), *inputs)


untouched = functools.cache(run_leaks)


def tokens_of(segment):
    rows = torch.zeros(sum(LEAKS), dtype=torch.bool, device=DEVICE)
    rows[sum(LEAKS[:segment]) : sum(LEAKS[: segment + 1])] = True
    return rows


@pytest.mark.parametrize("which", range(4), ids=("q", "k", "v", "do"))
@pytest.mark.parametrize("segment", [1, 3])
def test_a_segment_never_sees_another(which, segment):
    own, before = tokens_of(segment), untouched(1, torch.float16)
    after = run_leaks(1, torch.float16, (which, own, 1e3))
    assert all(torch.equal(x[~own], y[~own]) for x, y in zip(before, after, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(before, after))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("which", range(4), ids=("q", "k", "v", "do"))
@pytest.mark.parametrize(
    ("value", "heads", "dtype"),
    [
        (NAN, 1, torch.float16),
        (INF, 1, torch.float16),
        (NAN, 2, torch.float16),
        (-INF, 1, torch.float32),
    ],
)
def test_a_nan_stays_in_its_segment(which, value, heads, dtype):
    """Bitwise, though the short class multiplies segments of one tile: 0 · NaN would be NaN."""
    own, before = tokens_of(1), untouched(heads, dtype)
    after = run_leaks(heads, dtype, (which, (LEAKS[0] + 3, 0, 5), value))
    assert all(torch.equal(x[~own], y[~own]) for x, y in zip(before, after, strict=True))
    reached = [not x[own].isfinite().all() for x in after]
    assert reached == [which < 3, True, True, True]  # do has no part in o


@pytest.mark.skipif(DEVICE == "cuda", reason="there it would wait for the GPU; see validate")
def test_a_work_list_that_leaves_tokens_out_is_refused():
    """Nothing else writes them: they would hold whatever the memory held before."""
    q, k, v, _, positions, cu, _ = case([64, 100, 30], 2, 2, 64, torch.float32)
    tiles = build(cu[:-1])
    tiles = WorkList(tiles.short_Q4, tiles.long_Q4, cu[-1])
    with pytest.raises(ValueError, match="tiles cover 164 of 194 tokens"):
        fused.packed_attention(q, k, v, positions, tiles)


def test_backward_is_bitwise_repeatable():
    repeats = 1000 if DEVICE == "cuda" else 3
    lengths = [50, 60, 300, 9] if DEVICE == "cuda" else [50, 9, 80]
    q, k, v, do, positions, _, tiles = case(lengths, 4, 2, 64, torch.float16)

    def run():
        return gradients(lambda *x: fused.packed_attention(*x, positions, tiles), q, k, v, do)

    first = run()
    for _ in range(repeats):
        assert all(torch.equal(x, y) for x, y in zip(first, run(), strict=True))


def test_compiles_as_one_graph():
    q, k, v, _, positions, _, tiles = case([20, 70], 2, 1, 64, torch.float32)
    attend = lambda q, k, v: fused.packed_attention(q, k, v, positions, tiles) * 2
    backend = "inductor" if DEVICE == "cuda" else "eager"  # the interpreter has nothing to compile
    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(q, k, v), attend(q, k, v))
    if DEVICE == "cuda":
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        ours, theirs = (torch.autograd.grad(f(*leaves).sum(), leaves) for f in (compiled, attend))
        assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_a_cuda_graph_replays_with_other_lengths():
    q, k, v, _, positions, _, tiles = case([100, 28, 64, 64], 2, 2, 64, torch.float16)
    attend = lambda: fused.packed_attention(q, k, v, positions, tiles)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        attend()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attend()
    *_, other_positions, _, others = case([1, 200, 55], 2, 2, 64, torch.float16)
    for old, new in zip(
        (positions, tiles.short_Q4, tiles.long_Q4),
        (other_positions, others.short_Q4, others.long_Q4),
        strict=True,
    ):
        old.copy_(new)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, fused.packed_attention(q, k, v, other_positions, others))


def test_opcheck():
    q, k, v, _, positions, _, tiles = case([20, 70], 2, 1, 64, torch.float32)
    qkv = torch.cat([q, k, v], 1).detach().requires_grad_()
    arguments = (qkv, 1, positions, tiles.short_Q4, tiles.long_Q4, None, None, 0)
    # Tracing through the kernels needs a compiled one; the interpreter has none.
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if DEVICE == "cuda":
        tests.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.ldm.packed_attention.default, arguments, test_utils=tests)


WRONG = {
    "rank": (lambda q, k, v, p, t: (q[0], k, v, p, t), "expected tokens × heads"),
    "dtype": (
        lambda q, k, v, p, t: (q.double(), k.double(), v.double(), p, t),
        "bf16, fp16 or fp32",
    ),
    "two dtypes": (
        lambda q, k, v, p, t: (q, k.half(), v, p, t),
        "k: expected torch.float32 like q",
    ),
    "head dimension": (lambda q, k, v, p, t: (q[..., :48], k[..., :48], v[..., :48], p, t), "48"),
    "head count": (lambda q, k, v, p, t: (q[:, :3], k, v, p, t), "3 query heads"),
    "tokens of k": (lambda q, k, v, p, t: (q, k[1:], v[1:], p, t), "expected k and v of 90"),
    "positions": (lambda q, k, v, p, t: (q, k, v, p.long(), t), "positions: expected int32"),
    "work list": (lambda q, k, v, p, t: (q, k, v, p, build([0, 50])), "work list is for 50 tokens"),
    "device": (lambda q, k, v, p, t: (q, k.to("meta"), v, p, t), "k: expected .* like q, got meta"),
    "device of the work list": (
        lambda q, k, v, p, t: (q, k, v, p, t.to("meta")),
        "positions and work list: expected",
    ),
    "window": (lambda q, k, v, p, t: (q, k, v, p, t, -1), "window: expected 0"),
    "dtype of angles": (
        lambda q, k, v, p, t: (q, k, v, p, t, 0, [x.half() for x in rotary_table(70, 64)]),
        "cos: expected contiguous fp32",
    ),
    "angles of other heads": (
        lambda q, k, v, p, t: (q, k, v, p, t, 0, rotary_table(70, 128, DEVICE)),
        r"cos: expected positions × 32, got \(70, 64\)",
    ),
}


def test_memory_may_have_each_heads_rows_together():
    *qkv, _, positions, _, tiles = case([20, 70], 4, 2, 64, torch.float32)
    angles = rotary_table(70, 64, DEVICE)
    together = torch.cat(qkv, 1)
    apart = together.transpose(0, 1).contiguous().transpose(0, 1)
    outs = []
    for x in (together, apart):
        x = x.detach().requires_grad_()
        out = fused.fused_attention(x, 2, positions, tiles, 0, angles)
        outs.append((out, *torch.autograd.grad(out.square().sum(), x)))
    assert all(torch.equal(x, y) for x, y in zip(*outs, strict=True))


def test_heads_whose_elements_are_apart_are_refused():
    q, k, v, _, positions, _, tiles = case([20, 70], 4, 2, 64, torch.float32)
    qkv = torch.cat([q, k, v], 1).transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError, match="contiguous head dimension, got strides"):
        fused.fused_attention(qkv, 2, positions, tiles)


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_named_before_any_launch(name):
    change, message = WRONG[name]
    q, k, v, _, positions, _, tiles = case([20, 70], 4, 2, 64, torch.float32)
    with pytest.raises(ValueError, match=message):
        fused.packed_attention(*change(q, k, v, positions, tiles))


@pytest.mark.skipif(DEVICE == "cuda", reason="there it would wait for the GPU; see check")
@pytest.mark.parametrize("lengths", [[20, 70], [45, 45], [90], [19, 71]])
def test_a_work_list_for_other_lengths_is_refused(lengths):
    q, k, v, _, positions, *_ = case([20, 5, 65], 4, 2, 64, torch.float32)
    with pytest.raises(ValueError, match=r"work list is for other lengths: .* the same cu_seqlens"):
        fused.packed_attention(q, k, v, positions, build([0, *itertools.accumulate(lengths)]))


def test_work_list_covers_every_token_once():
    lengths = [5, 64, 65, 0, 1, 128, 129, 300, 64, 63, 2, 0]
    cu = [0, *itertools.accumulate(lengths)]
    tiles = build(cu)
    covered = torch.zeros(cu[-1], dtype=torch.int32)
    ends = dict(itertools.pairwise(cu))
    for start, end, first, last in tiles.long_Q4.tolist():
        assert end - start <= LONG and (start == end or (first in cu and last in cu))
        covered[start:end] += 1
    for start, end, *_ in tiles.short_Q4.tolist():
        assert end - start <= SHORT and (start == end or (start in ends and end in cu))
        covered[start:end] += 1
    assert (covered == 1).all()


def test_a_work_list_whose_lengths_descend_is_refused():
    with pytest.raises(ValueError, match="descends from 10 to 5"):
        build([0, 10, 5])
