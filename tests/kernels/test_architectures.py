"""Which cards and Tritons the kernels run on, and that nothing else runs in silence."""

import logging
import os
from pathlib import Path

import pytest
import torch

from ldm.kernels import ahead_of_time, architectures
from ldm.kernels.architectures import nearest, ours_run, require_supported_triton


@pytest.mark.parametrize(
    ("arch", "like"),
    [
        *((arch, arch) for arch in architectures.ARCHITECTURES),
        ("sm_86", "sm_89"),  # 99 KB of shared memory, like 8.9
        ("sm_87", "sm_80"),
        ("sm_103", "sm_100"),
        ("sm_110", "sm_100"),
        ("sm_121", "sm_120"),
        ("sm_75", None),
        ("hip", None),
        ("cpu", None),
    ],
)
def test_a_card_outside_the_table_runs_as_its_nearest(arch, like):
    assert nearest(arch) == like


@pytest.fixture
def check(monkeypatch, caplog):
    """(whether ours run on an architecture whose check finds `found`, what was told)"""

    def run(arch, found):
        asked = []
        monkeypatch.setattr(architectures, "shared_memory", lambda: 101_376)
        monkeypatch.setattr(
            ahead_of_time, "faults", lambda *like: asked.append(like) or list(found)
        )
        architectures._checked.cache_clear()
        with caplog.at_level(logging.INFO, "ldm.kernels"):
            answers = {ours_run(arch) for _ in range(3)}
        assert len(answers) == 1 and len(asked) <= 1, "one check"
        return answers.pop(), [(r.levelno, r.message) for r in caplog.records]

    return run


def test_one_check_and_ours_run(check):
    runs, told = check("sm_86", [])
    assert runs
    assert told == [(logging.INFO, "sm_86: our kernels as on sm_89, without stack")]


def test_stack_is_told_and_ours_run_all_the_same(check):
    runs, ((level, text),) = check("sm_121", ["packed_attention key 64 bf16: 8 bytes of stack"])
    assert runs and level == logging.WARNING
    assert (
        text.startswith("sm_121: our kernels as on sm_120, which spill there") and "8 bytes" in text
    )


@pytest.mark.parametrize(
    ("arch", "found", "why"),
    [
        ("sm_103", ["x: 200000 bytes of shared memory, 101376 there"], "200000 bytes"),
        ("sm_110", ["x: does not compile: why"], "does not compile"),
        ("sm_75", [], "need sm_80 or newer"),
        ("hip", [], "need sm_80 or newer"),
    ],
)
def test_plain_pytorch_is_never_silent(check, arch, found, why):
    runs, ((level, text),) = check(arch, found)
    assert not runs and level == logging.WARNING
    assert text.startswith(f"{arch}: plain PyTorch") and why in text


def test_the_choice_is_a_constant_of_a_trace(monkeypatch):
    # What it does could not be traced: a graph break, which fullgraph refuses.
    monkeypatch.setattr(architectures, "_checked", lambda arch: Path(__file__).stat().st_size < 0)

    def function(x):
        return x + 1 if ours_run("sm_71") else x - 1

    out = torch.compile(function, fullgraph=True, backend="eager")(torch.zeros(2))
    assert out.tolist() == [-1, -1]


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "3.9.0"])
def test_supported_tritons_pass(version):
    require_supported_triton(version)


@pytest.mark.parametrize("version", ["3.5.1", "3.10.0", "4.0.0"])
def test_another_triton_is_refused_by_name(version):
    with pytest.raises(ImportError, match=rf"Triton {version}: .* 3\.6, 3\.7, 3\.8, 3\.9"):
        require_supported_triton(version)


def test_fp_fusion_is_set_explicitly():
    from ldm.kernels import launch  # noqa: F401

    assert os.environ["TRITON_DEFAULT_FP_FUSION"] == "1"
