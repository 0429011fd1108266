import pytest
import torch

from ldm.kernels import dispatch


@pytest.mark.parametrize(
    ("device", "arch", "dtype", "expected"),
    [
        ("cpu", "cpu", torch.bfloat16, "cpu"),
        ("cuda", "sm_90", torch.bfloat16, "fused"),
        ("cuda", "sm_80", torch.float32, "fused"),
        ("cuda", "sm_90", torch.float64, "plain"),
        ("cuda", "sm_86", torch.bfloat16, "fused"),
        ("cuda", "sm_75", torch.bfloat16, "plain"),
    ],
)
def test_which_version_runs_where(device, arch, dtype, expected, monkeypatch):
    monkeypatch.setattr(dispatch, "architecture", lambda _: arch)
    monkeypatch.setattr(dispatch, "ours_run", {"sm_80", "sm_86", "sm_90"}.__contains__)
    assert dispatch.choose(torch.device(device), dtype) == expected
