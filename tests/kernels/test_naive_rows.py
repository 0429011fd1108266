"""Operations on rows: norms, rotary, SwiGLU and what is fused from them."""

import pytest
import torch

from ldm.kernels.gated_mlp import cpu as mlp_cpu
from ldm.kernels.gated_mlp import naive as mlp_naive
from ldm.kernels.norm_linear import cpu as norm_linear_cpu
from ldm.kernels.norm_linear import naive as norm_linear_naive
from ldm.kernels.rms_norm import cpu as rms_cpu
from ldm.kernels.rms_norm import naive as rms_naive
from ldm.kernels.rotary import rotary, rotary_table
from ldm.kernels.swiglu import swiglu

ROWS, WIDTH, INNER = 13, 10, 6


def normal(*sizes):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes)))


def root_mean_square(x, weight):
    return torch.stack([row / (row.pow(2).sum() / len(row) + 1e-6).sqrt() for row in x]) * weight


def mlp(x, norm, gate_up, down):
    inner = root_mean_square(x, norm) @ gate_up.t()
    gate, up = inner[:, :INNER], inner[:, INNER:]
    return x + (gate / (1 + torch.exp(-gate)) * up) @ down.t()


@pytest.mark.parametrize("version", [rms_naive, rms_cpu])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_rms_norm(agree, version, rows):
    inputs = [normal(rows, WIDTH), normal(WIDTH)]
    agree(version.rms_norm, root_mean_square, inputs, rms_naive.rms_norm)


@pytest.mark.parametrize("version", [norm_linear_naive, norm_linear_cpu])
def test_norm_linear(agree, version):
    inputs = [normal(ROWS, WIDTH), 1 + normal(WIDTH), normal(7, WIDTH)]
    reference = lambda x, norm, weight: root_mean_square(x, norm) @ weight.t()
    agree(version.norm_linear, reference, inputs, norm_linear_naive.norm_linear)


@pytest.mark.parametrize("version", [mlp_naive, mlp_cpu])
@pytest.mark.parametrize("chunk", [1, 5, 13, 64])
def test_gated_mlp(agree, monkeypatch, version, chunk):
    monkeypatch.setattr(mlp_cpu, "CHUNK", chunk)
    inputs = [
        normal(ROWS, WIDTH),
        1 + normal(WIDTH),
        normal(2 * INNER, WIDTH),
        normal(WIDTH, INNER),
    ]
    agree(version.gated_mlp, mlp, inputs, mlp_naive.gated_mlp)


def test_swiglu(agree):
    reference = lambda x: x[:, :3] * torch.sigmoid(x[:, :3]) * x[:, 3:]
    agree(swiglu, reference, [normal(ROWS, 6)])


def test_rotary_turns_pairs_as_complex_numbers(agree):
    positions = torch.tensor([0, 1, 2, 0, 511])
    angles = positions.double()[:, None] * 10_000.0 ** (-torch.arange(3).double() / 3)
    cos, sin = (t[positions] for t in rotary_table(512, 6))

    def reference(x):
        turned = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1)) * torch.polar(
            torch.ones(()).double(), angles.float().double()[:, None]
        )
        return torch.cat((turned.real, turned.imag), -1)

    op = lambda x: rotary(x, angles.float().double().cos(), angles.float().double().sin())
    agree(op, reference, [normal(5, 2, 6)])
    torch.testing.assert_close(cos, angles.cos().float())
    torch.testing.assert_close(sin, angles.sin().float())
