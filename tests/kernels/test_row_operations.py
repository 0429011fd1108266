"""Operations on rows: norms, rotary, SwiGLU and what is fused from them."""

import pytest
import torch

from ldm.kernels.gated_mlp import cpu as mlp_cpu
from ldm.kernels.gated_mlp import plain as mlp_plain
from ldm.kernels.gated_mlp import reference as mlp_reference
from ldm.kernels.norm_linear import cpu as norm_linear_cpu
from ldm.kernels.norm_linear import plain as norm_linear_plain
from ldm.kernels.norm_linear import reference as norm_linear_reference
from ldm.kernels.rms_norm import cpu as rms_cpu
from ldm.kernels.rms_norm import plain as rms_plain
from ldm.kernels.rms_norm import reference as rms_reference
from ldm.kernels.rotary import reference as rotary_reference
from ldm.kernels.rotary import rotary, rotary_table
from ldm.kernels.swiglu import reference as swiglu_reference
from ldm.kernels.swiglu import swiglu

ROWS, WIDTH, INNER = 13, 10, 6


def normal(*sizes):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes)))


@pytest.mark.bounds
@pytest.mark.parametrize("version", [rms_plain, rms_cpu])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_rms_norm(agree, version, rows):
    inputs = [normal(rows, WIDTH), normal(WIDTH)]
    agree("rms_norm", version.rms_norm, rms_reference.rms_norm, inputs)


@pytest.mark.bounds
@pytest.mark.parametrize("version", [norm_linear_plain, norm_linear_cpu])
def test_norm_linear(agree, version):
    inputs = [normal(ROWS, WIDTH), 1 + normal(WIDTH), normal(7, WIDTH)]
    agree("norm_linear", version.norm_linear, norm_linear_reference.norm_linear, inputs)


@pytest.mark.bounds
@pytest.mark.parametrize("version", [mlp_plain, mlp_cpu])
@pytest.mark.parametrize("chunk", [1, 5, 13, 64])
def test_gated_mlp(agree, monkeypatch, version, chunk):
    monkeypatch.setattr(mlp_cpu, "CHUNK", chunk)
    inputs = [
        normal(ROWS, WIDTH),
        1 + normal(WIDTH),
        normal(2 * INNER, WIDTH),
        normal(WIDTH, INNER),
    ]
    agree("gated_mlp", version.gated_mlp, mlp_reference.gated_mlp, inputs)


@pytest.mark.bounds
def test_swiglu(agree):
    agree("swiglu", swiglu, swiglu_reference.swiglu, [normal(ROWS, 6)])


@pytest.mark.bounds
def test_rotary_rotates_pairs_as_complex_numbers(agree):
    positions = torch.tensor([0, 1, 2, 0, 511])
    angles = positions.double()[:, None] * 10_000.0 ** (-torch.arange(3).double() / 3)
    cos, sin = (t[positions] for t in rotary_table(512, 6))

    agree(
        "rotary",
        lambda x: rotary(x, angles.cos(), angles.sin()),
        lambda x: rotary_reference.rotary(x, angles),
        [normal(5, 2, 6)],
    )
    torch.testing.assert_close(cos, angles.cos().float())
    torch.testing.assert_close(sin, angles.sin().float())
