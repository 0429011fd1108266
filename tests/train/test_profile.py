import gzip
import json

import pytest
import torch
from torch.profiler import record_function

from ldm.bench.synthetic import packed_batch
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train import profile as module
from ldm.train.cost import Roof, step_work
from ldm.train.flops import matmul_sizes, segment_squares, step_flops
from ldm.train.profile import PARTS, charge, kept_bytes, kernel_part, profiler


def test_a_profile_has_every_part_and_adds_up(folder, recipe, capsys):
    module.profile_stage(recipe, folder)
    report = json.loads((folder / "profile/profile.json").read_text())
    parts = {row["part"]: row for row in report["parts"]}
    assert tuple(parts) == PARTS
    busy = ("embedding", "attention", "products", "norms", "loss", "optimiser")
    assert all(parts[name]["seconds"] > 0 for name in busy)
    assert all(parts[name]["floor"] > 0 for name in busy)
    assert sum(row["share"] for row in report["parts"]) == pytest.approx(1, abs=0.02)
    whole = sum(row["seconds"] for row in report["parts"])
    assert whole * 1e3 == pytest.approx(report["ms_per_step_profiled"], rel=0.02)
    memory = report["memory_bytes"]
    assert memory["optimiser state"] > 2 * memory["parameters"]
    assert 0 < memory["activations kept"] < memory["peak"]
    with gzip.open(folder / "profile/trace.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"ldm.embedding", "ldm.attention", "ldm.loss", "ldm.optimiser", "ldm.data"} <= names
    told = capsys.readouterr().out
    assert "matrix products" in told and "times floor" in told


def test_the_backward_is_charged_to_the_part_of_its_forward():
    weight = torch.randn(64, 64, requires_grad=True)
    with profiler(False) as recorded:
        with record_function("ldm.loss"):
            loss = (torch.randn(64, 64) @ weight).square().sum()
        torch.autograd.grad(loss, [weight])
    spent = charge(recorded.events(), False, 1)
    assert spent["loss"] > 0 and spent["products"] == 0
    with profiler(False) as recorded:
        loss = (torch.randn(64, 64) @ weight).square().sum()
        torch.autograd.grad(loss, [weight])
    spent = charge(recorded.events(), False, 1)
    assert spent["loss"] == 0 and spent["products"] > 0 and spent["norms"] > 0


def attention_kernels() -> set[str]:
    """Names of all kernels of ours that attend."""
    from ldm.kernels.packed_attention.shipped import FUNCTIONS

    return {kernel.__name__ for kernel in FUNCTIONS.values()}


@pytest.mark.parametrize(
    "name, part",
    [
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "communication"),
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNN", "products"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16>", "products"),
        ("flash_fwd_splitkv_kernel", "attention"),
        *((name, "attention") for name in sorted(attention_kernels())),
        ("multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimiser"),
        ("triton_red_fused_mean_mul_rsqrt_3", "norms"),
    ],
)
def test_kernels_that_no_range_is_known_of_go_by_their_names(name, part):
    assert kernel_part(name) == part


def test_the_floor_counts_useful_work_alone():
    sizes = architecture("nano", rows=512, owners=8)
    batch, padded = packed_batch([64, 40], rows=512), packed_batch([64, 40], rows=512, pad=24)
    one, two = (step_work(sizes, [b], 1000, 2) for b in (batch, padded))
    for name, work in one.items():
        assert (work.flops, work.bytes) == pytest.approx((two[name].flops, two[name].bytes))
    reads = len(batch.labels.reads_U)
    after = sizes.width * (sizes.heads * sizes.head_dim + 3 * sizes.ffn)
    flops = step_flops(**matmul_sizes(sizes), tokens=104, squares=0) - 6 * after * (104 - reads)
    assert one["products"].flops == flops
    squares = segment_squares(batch)
    assert one["attention"].flops == step_flops(**matmul_sizes(sizes), tokens=0, squares=squares)
    assert one["optimiser"].bytes == 28_000
    assert one["optimiser"].seconds(Roof(1e9, 1e6)) == pytest.approx(0.028)


def test_activations_are_counted_once():
    model = Decoder(architecture("nano", rows=512, owners=8))
    one = packed_batch([64, 40], rows=512)
    kept = kept_bytes(model, [one], torch.device("cpu"))
    twice = kept_bytes(model, [one, one], torch.device("cpu"))
    assert 104 * 160 * 4 * 4 < kept < twice <= 2 * kept
