import pytest

from ldm.bench.synthetic import packed_batch
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.flops import matmul_sizes, peak_flops, segment_squares, step_flops


@pytest.mark.parametrize(
    "name, peak",
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", None),
        ("AMD EPYC", None),
    ],
)
def test_peaks_go_by_the_name_of_the_device(name, peak):
    assert peak_flops(name, "bf16") == peak
    assert peak_flops(name, "fp32") is None


def test_matrices_counted_are_those_of_the_blocks():
    sizes = architecture("nano", layers=3, width=32, heads=4, kv_heads=2, head_dim=8, ffn=48)
    counted = matmul_sizes(sizes)
    blocks = Decoder(sizes).blocks.parameters()
    assert counted["matmul_parameters"] == sum(p.numel() for p in blocks if p.ndim == 2)
    assert (counted["layers"], counted["attention_width"]) == (3, 32)


def test_padding_and_empty_segments_add_no_squares():
    assert segment_squares(packed_batch([3, 1, 5], pad=4, empty_segments=3)) == 9 + 1 + 25
    assert segment_squares(packed_batch([3, 1, 5], pad=0, empty_segments=0)) == 35


def test_the_formula_gives_the_figures_of_a_dense_and_a_short_batch():
    sizes = {"matmul_parameters": 100, "layers": 2, "attention_width": 8}
    one_long = step_flops(**sizes, tokens=64, squares=64**2)
    assert one_long == 64 * (6 * 100 + 6 * 2 * 8 * 64)  # L_eff = 64
    many_short = step_flops(**sizes, tokens=64, squares=16 * 4**2)
    assert many_short == 64 * (6 * 100 + 6 * 2 * 8 * 4)  # L_eff = 4
