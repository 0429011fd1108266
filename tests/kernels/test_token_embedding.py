"""The Triton token embedding against fp64: output and every gradient, on awkward batches.

Without a GPU it runs in Triton's interpreter, where bf16 is wrong: fp32 and fp16 there.
"""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

import ldm.kernels.token_embedding as dispatch
from ldm._native.layout import PIECE, TILE
from ldm.bench import embedding_cost as cost
from ldm.kernels.token_embedding import cpu, fused, plain
from ldm.kernels.token_embedding.configurations import default
from ldm.kernels.token_embedding.embedding_plan import build
from ldm.kernels.tuned import columns
from tests.conftest import DEVICE
from tests.kernels.bounds import arithmetic, hold

ROWS, WIDTH, NUMBERS, PATCH_BYTES = 11, 40, 64, 48
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
WEIGHTS = ("table", "features", "patch", "norm")


def batch(kinds, counts=None, hot=False, seed=0, rows=ROWS):
    """kinds_N … patch_tokens_P: bags of 0 to 4 ids, or of `counts`, half of them of weight 1."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.tensor(kinds, dtype=torch.uint8)
    n = len(kinds)
    if counts is None:
        counts = torch.randint(0, 5, (n,), generator=generator)
    else:
        counts = torch.full((n,), counts)
    ids = torch.randint(1, rows - 1, (int(counts.sum()),), generator=generator).int()
    if hot:
        ids[torch.rand(len(ids), generator=generator) < 0.9] = 3
    weights = torch.randn(len(ids), generator=generator)
    weights[::2] = 1
    features = torch.randn(n, NUMBERS, generator=generator) * ((kinds == 1) | (kinds == 2))[:, None]
    features[kinds == 2, 5:] = 0
    tokens = (kinds == 3).nonzero().squeeze(1).int()
    patches = torch.randint(0, 256, (len(tokens), PATCH_BYTES), generator=generator).byte()
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]).int()
    return [x.to(DEVICE) for x in (kinds, ids, weights, offsets, features, patches, tokens)]


def weights(width=WIDTH, dtype=torch.float32, rows=ROWS):
    generator = torch.Generator().manual_seed(1)
    shapes = ((rows, width), (2, NUMBERS, width), (PATCH_BYTES, width), (width,))
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    made[3][0] = 0  # a gain of zero: the output alone would not tell the gradient
    return [x.to(DEVICE, dtype) for x in made]


def planned(data, window, rows=ROWS):
    """The plan of `data` with windows of `window` tokens."""
    kinds, ids, weights, offsets = (x.cpu() for x in data[:4])
    return build(kinds, ids, weights, offsets, ids.argsort(stable=True), rows, 2, window).to(DEVICE)


def unused_rows(data, rows):
    unused = torch.ones(rows, dtype=torch.bool, device=DEVICE)
    unused[data[1].long()] = False
    return unused


def results(function, made, dout):
    """Output and the gradient of every weight."""
    made = [x.detach().requires_grad_() for x in made]
    out = function(*made)
    return [out.detach(), *torch.autograd.grad(out, made, dout.to(out.dtype))]


def compare(data, width, table, output, plan=None, rows=ROWS):
    """The output and every gradient lie within their bounds of fp64."""
    made = weights(width, table, rows)
    dout = torch.randn(len(data[0]), width, generator=torch.Generator().manual_seed(2))
    dout = dout.to(DEVICE, output)
    ours = results(lambda *w: fused.token_embedding(*w, *data, plan, output), made, dout)
    wide = [x.double() for x in made]
    run = lambda: results(lambda *w: plain.token_embedding(*w, *data), wide, dout)
    hold("token_embedding", arithmetic(output, DEVICE), ours, run, dout)
    assert [x.dtype for x in ours] == [output, *[table] * len(WEIGHTS)]
    return ours


CASES = {
    "all kinds in one tile": ([1, 2, 3, 0, 5, 3, 2, 1, 1] * 2, None),
    "no action": ([1, 3, 1, 0, 1], None),
    "no observation and no patch": ([2] * 17 + [0], None),
    "patches alone": ([3] * 18, None),
    "empty bags": ([1, 2, 3], 0),
    "one token": ([1], 3),
    "nothing but padding": ([0, 0, 0], 0),
}
TYPES = [(torch.float32, torch.float32), (HALF, HALF), (torch.float32, HALF)]


@pytest.mark.bounds
@pytest.mark.parametrize(("table", "output"), TYPES, ids=["fp32", "half", "mixed"])
@pytest.mark.parametrize("name", CASES)
def test_errors_lie_within_their_bounds(name, table, output):
    compare(batch(*CASES[name]), WIDTH, table, output)


MIXES = [mix for n in range(1, 5) for mix in combinations((0, 1, 2, 3), n)]


@pytest.mark.bounds
@pytest.mark.parametrize("kinds", MIXES, ids=str)
def test_every_mix_of_kinds(kinds):
    compare(batch(list(kinds) * 5, 2), WIDTH, torch.float32, torch.float32)


@pytest.mark.bounds
@pytest.mark.parametrize("output", [torch.float32, HALF])
def test_rows_too_wide_for_one_pass(output):
    width = 300 if output == torch.float32 else 600
    assert width > default("prenorm", columns(width), "any", torch.finfo(output).bits).BD
    compare(batch([1, 2, 3, 0, 2] * 4), width, output, output)


@pytest.mark.bounds
@pytest.mark.parametrize(("width", "output"), [(WIDTH, HALF), (260, torch.float32)])
def test_sums_over_several_windows(width, output):
    """Three windows: runs of one piece and of several, slots that are added to, kinds in some."""
    data = batch([1, 2, 3] * 21 + [0] * 60 + [3, 0, 2] * 3, 9, hot=True)
    plan = planned(data, TILE)
    assert plan.window == TILE and len(plan.windows_V1) == 4
    assert {int(x) for x in plan.pieces_Q4[:, 2] % 2} == {0, 1}
    if width != WIDTH:
        assert width > default("prenorm", columns(width), "any", 32).BD
    compare(data, width, output, output, plan)


@pytest.mark.bounds
def test_rows_that_hardly_repeat_are_summed_after_all_windows():
    data = batch([1, 2, 3, 0] * 35, 3, rows=300)
    plan = planned(data, TILE, rows=300)
    assert (len(plan.groups_VI), len(plan.windows_V1)) == (3, 2)
    table = compare(data, WIDTH, torch.float32, torch.float32, plan, rows=300)[1]
    unused = unused_rows(data, 300)
    assert unused.sum() > 30 and not table[unused].any()


@pytest.mark.bounds
@pytest.mark.parametrize("entries", [4000, 3 * PIECE, PIECE - 1])
def test_a_row_in_nearly_every_bag_and_rows_in_none(entries):
    data = batch([1, 2] * 16, entries // 32, hot=True)
    table = compare(data, WIDTH, torch.float32, torch.float32)[1]
    unused = unused_rows(data, ROWS)
    assert unused[0] and unused[-1] and not table[unused].any()


def test_a_table_of_one_row():
    tokens, each = 2, PIECE + 44
    ids = torch.zeros(tokens * each, dtype=torch.int32)
    offsets = torch.arange(tokens + 1, dtype=torch.int32) * each
    kinds, ones = torch.zeros(tokens).byte(), torch.ones(len(ids))
    plan = build(kinds, ids, ones, offsets, torch.arange(len(ids)), 1, 2)
    made = [torch.ones(1, 16), torch.zeros(2, 64, 16), torch.zeros(48, 16), torch.ones(16)]
    made[0][0, 8:] = -1
    made = [x.to(DEVICE, HALF).requires_grad_() for x in made]
    data = [kinds, ids, ones, offsets, torch.zeros(tokens, 64)]
    data += [torch.zeros(0, 48).byte(), torch.zeros(0).int()]
    out = fused.token_embedding(*made, *(x.to(DEVICE) for x in data), plan.to(DEVICE))
    dout = torch.zeros_like(out)
    dout[:, 0] = 1
    # de = rstd · (1 − x̂² / 16) at column 0, with x̂ = 1 and rstd = 1 / each
    (table,) = torch.autograd.grad(out, made[:1], dout)
    assert table[0, 0].item() == pytest.approx(tokens * 15 / 16, rel=2e-3)


def test_no_patches_give_the_patch_map_a_gradient_of_zeros():
    made, data = weights(), batch([1, 2, 0])
    dout = torch.ones(3, WIDTH, device=DEVICE)
    gradient = results(lambda *w: fused.token_embedding(*w, *data), made, dout)[3]
    assert gradient.shape == (PATCH_BYTES, WIDTH) and not gradient.any()


def test_nan_and_infinity_reach_their_own_token_and_kind_alone():
    made, data = weights(), batch([1, 2, 2, 0, 3, 1, 2, 1])
    dout = torch.ones(8, WIDTH, device=DEVICE)

    def run():
        return results(lambda *w: fused.token_embedding(*w, *data), made, dout)

    before = run()
    data[4][1, 0], data[4][2, 1] = float("nan"), float("inf")
    data[4][3, 0] = data[4][4, 0] = float("nan")  # kinds without numbers: not read
    out, _, features, patch, _ = run()
    rest = [0, 3, 4, 5, 6, 7]
    assert torch.equal(out[rest], before[0][rest])
    assert out[1].isnan().all() and not out[2].isfinite().all()
    assert torch.equal(features[0], before[2][0]) and features[1].isnan().any()
    assert torch.equal(patch, before[3])


@pytest.mark.parametrize(("window", "rows"), [(8192, ROWS), (TILE, ROWS), (TILE, 400)])
def test_backward_is_bitwise_repeatable(window, rows):
    """In one window, in three, and with pieces that wait for all three."""
    data = batch([1, 2, 3] * 46, 4, hot=rows == ROWS, rows=rows)
    plan = planned(data, window, rows)
    dout = torch.randn(138, WIDTH, generator=torch.Generator().manual_seed(2)).to(DEVICE, HALF)

    def run():
        made = weights(dtype=HALF, rows=rows)
        return results(lambda *w: fused.token_embedding(*w, *data, plan), made, dout)

    first = run()
    for _ in range(1000 if DEVICE == "cuda" else 1):
        assert all(torch.equal(x, y) for x, y in zip(first, run(), strict=True))


def test_without_gradients_only_tiles_are_made():
    made, data = weights(), batch([1, 2, 0, 3])
    with torch.no_grad():
        out = fused.token_embedding(*made, *data)
        assert len(fused.make_plan(*data[:4], made[0], 2).tokens_B) == 0
    assert torch.equal(out, fused.token_embedding(*made, *data))


@pytest.mark.parametrize("version", [fused, cpu, plain], ids=["fused", "cpu", "plain"])
def test_capacities_that_a_batch_does_not_fill_change_nothing(version):
    made, data = weights(), batch([1, 2, 3, 0, 3], 2)
    dout = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    spare = lambda x, value: torch.cat([x, torch.full_like(x[:2], value)])
    wide = [*data]
    for i, value in ((1, 0), (2, 1), (5, 0), (6, 5)):
        wide[i] = spare(data[i], value)
    order = torch.cat([data[1].argsort(), torch.tensor([10, 11], device=DEVICE)])
    more = ()
    if version is fused:
        arrays = (x.cpu() for x in (*wide[:4], order))
        more = (build(*arrays, ROWS, 2).to(DEVICE),)
    elif version is cpu:
        more = (order,)
        made, wide, data, dout = ([x.cpu() for x in y] for y in (made, wide, data, dout))
        dout = torch.stack(dout)
    want = results(lambda *w: plain.token_embedding(*w, *data), made, dout)
    for x, y in zip(
        results(lambda *w: version.token_embedding(*w, *wide, *more), made, dout), want
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_opcheck():
    made = [x.requires_grad_() for x in weights()]
    # Tracing through the kernels needs a compiled one; the interpreter has none.
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if DEVICE == "cuda":
        tests.append("test_aot_dispatch_dynamic")
    data = batch([1, 2, 3, 0])
    p = planned(data, 8192)
    plan = (p.tiles_QM, p.groups_VI, p.tokens_B, p.weights_B, p.pieces_Q4, p.windows_V1, p.rows_R2)
    arguments = (*made, *data[1:6], *plan, p.window, p.slots, torch.float32)
    torch.library.opcheck(torch.ops.ldm.token_embedding.default, arguments, test_utils=tests)


WRONG = {
    "table axes": (0, lambda x: x[0], "expected 2, 3 and 2 axes"),
    "table dtype": (0, lambda x: x.double(), "table: expected bf16, fp16 or fp32"),
    "two dtypes": (1, lambda x: x.half(), "features weight: expected torch.float32"),
    "patch width": (2, lambda x: x[:, 1:], "patch weight: expected"),
    "norm": (3, lambda x: x[1:], r"norm: expected torch.float32 of shape \(40,\)"),
    "kinds": (4, lambda x: x.int(), "kinds: expected torch.uint8"),
    "ids": (5, lambda x: x.long(), "bag_ids: expected torch.int32"),
    "weights": (6, lambda x: x.double(), "bag_weights: expected torch.float32"),
    "offsets": (7, lambda x: x[:-1], r"bag_offsets: .* of shape \(6,\), got .* \(5,\)"),
    "features": (8, lambda x: x[:, :32], r"features: .* of shape \(5, 64\)"),
    "patches": (9, lambda x: x.float(), "patches: expected torch.uint8"),
    "patch tokens": (10, lambda x: x[:0], "patch_tokens: expected"),
    "plan": (11, lambda x: replace(x, tiles_QM=x.tiles_QM[1:]), "plan, tiles: expected"),
    "plan of another table": (11, lambda x: replace(x, rows_R2=x.rows_R2[1:]), "plan, rows: exp"),
    "layout": (0, lambda x: x.t().contiguous().t(), "table: expected contiguous memory"),
    "device": (7, lambda x: x.to("meta"), "bag_offsets: expected .* like the table, got meta"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_named_before_any_launch(name):
    position, change, message = WRONG[name]
    data = batch([1, 2, 3, 0, 1], 2)
    arguments = [*(x.requires_grad_() for x in weights()), *data, planned(data, 8192)]
    arguments[position] = change(arguments[position])
    if name == "table dtype":
        arguments[:4] = [x.double() for x in arguments[:4]]
    with pytest.raises(ValueError, match=message):
        fused.token_embedding(*arguments)


def test_an_output_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match="output: expected bf16, fp16 or fp32"):
        fused.token_embedding(*weights(), *batch([1]), None, torch.float64)


def test_the_dispatched_result_has_the_dtype_asked_for():
    made, data = weights(), batch([1, 2, 3])
    assert dispatch.token_embedding(*made, *data).dtype == torch.float32
    assert dispatch.token_embedding(*made, *data, dtype=HALF).dtype == HALF


@pytest.mark.parametrize(
    "made", [cost.control_batch, cost.image_batch, cost.frame_batch, cost.grid_batch]
)
def test_both_directions_move_little_more_than_they_must(made):
    rows, width = 65_536, 1024
    counted = cost.counts(made(16_384, rows), width)
    for moved in (
        cost.forward_bytes(counted, width),
        cost.backward_bytes(counted, width, rows),
    ):
        assert moved["live"] <= cost.CACHE
        assert moved["floor"] < moved["ours"] <= 1.15 * moved["floor"]


def test_the_floor_of_a_control_batch():
    counted = cost.counts(cost.control_batch(2048, 512), 1024)
    assert (counted.distinct, counted.entries, counted.numbered) == (218, 30_720, 2048)
    # the output, ids, weights and numbers; then 218 rows, both maps and the gain
    read = 30_720 * 8 + 2048 * 256 + (218 + 2 * 64 + 1) * 2048
    assert cost.forward_bytes(counted, 1024)["floor"] == 2048 * 2048 + read
    written = (512 + 2 * 64 + 256 + 1) * 2048
    assert cost.backward_bytes(counted, 1024, 512)["floor"] == 2048 * 2048 + read + written
