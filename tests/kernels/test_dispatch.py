"""Which provider attends, and that all of them that run here agree."""

import itertools
import logging
from dataclasses import replace

import pytest
import torch

from ldm.kernels.packed_attention import Segments, dispatch, packed_attention
from ldm.kernels.packed_attention.reference import packed_attention as attention
from ldm.kernels.packed_attention.work_list import build
from ldm.kernels.rotary import rotary, rotary_table
from tests.conftest import DEVICE

CPU = torch.device("cpu")


def example(lengths=(3, 70, 1, 130), heads=2, key_heads=1, dim=64):
    cu = [0, *itertools.accumulate(lengths)]
    qkv = torch.randn(
        cu[-1], heads + 2 * key_heads, dim, generator=torch.Generator().manual_seed(0)
    )
    positions = torch.cat([torch.arange(n, dtype=torch.int32) for n in lengths]).to(DEVICE)
    starts = torch.tensor(cu, dtype=torch.int32, device=DEVICE)
    segments = Segments(starts, positions, max(lengths), build(cu).to(DEVICE))
    return qkv.to(DEVICE).split([heads, key_heads, key_heads], 1), segments, cu


@pytest.mark.parametrize("provider", ["fused", "plain"])
def test_providers_give_the_same_values(provider):
    qkv, segments, cu = example()
    out = packed_attention(*qkv, segments, provider=provider)
    torch.testing.assert_close(out, attention(*qkv, cu), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("provider", ["fused", "plain"])
def test_providers_rotate_alike(provider):
    (q, k, v), segments, cu = example()
    rotated = replace(segments, angles=rotary_table(segments.max_seqlen, 64, DEVICE))
    angles_N = [t[segments.positions_N.long()] for t in rotated.angles]
    expected = attention(rotary(q, *angles_N), rotary(k, *angles_N), v, cu)
    out = packed_attention(q, k, v, rotated, provider=provider)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("provider", [p for p in dispatch.PROVIDERS if p not in ("fused", "plain")])
def test_peers_agree_where_they_run(provider):
    if DEVICE == "cpu" or not dispatch.installed(provider):
        pytest.skip("needs a GPU and the peer")
    qkv, segments, cu = example()
    qkv = [x.bfloat16() for x in qkv]
    out = packed_attention(*qkv, segments, provider=provider)
    torch.testing.assert_close(out, attention(*qkv, cu), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("provider", ["fused", "plain"])
@pytest.mark.parametrize("touched", [0, 1, 2])
def test_nothing_leaks_into_another_segment(provider, touched):
    qkv, segments, cu = example()
    before = packed_attention(*qkv, segments, provider=provider)
    rows = slice(cu[touched], cu[touched + 1])
    changed = [x.clone() for x in qkv]
    for x in changed:
        x[rows] = 1e4
    after = packed_attention(*changed, segments, provider=provider)
    others = torch.ones(cu[-1], dtype=torch.bool)
    others[rows] = False
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[rows], after[rows])


def row(provider, longer_than=0, **changes):
    key = {"arch": "sm_90", "head_dim": 64, "bits": 16}
    return key | {"longer_than": longer_than, "provider": provider} | changes


@pytest.mark.parametrize(
    ("arch", "dtype", "head_dim", "longest", "rows", "expected"),
    [
        ("cpu", torch.bfloat16, 64, 100, [row("fused", arch="cpu")], "plain"),
        ("sm_90", torch.bfloat16, 64, 100, [], "fused"),
        ("sm_80", torch.float32, 128, 100, [], "fused"),
        ("sm_90", torch.bfloat16, 96, 100, [], "varlen"),  # no kernel of ours
        ("sm_86", torch.float32, 64, 100, [], "fused"),  # by its nearest architecture
        ("sm_75", torch.float32, 64, 100, [], "plain"),  # too old; varlen has no fp32
        ("sm_90", torch.bfloat16, 64, 100, [row("varlen")], "varlen"),
        ("sm_90", torch.bfloat16, 64, 100, [row("varlen", 100)], "fused"),
        ("sm_90", torch.bfloat16, 64, 101, [row("fused"), row("varlen", 100)], "varlen"),
        ("sm_90", torch.float32, 64, 101, [row("varlen")], "fused"),
        ("sm_90", torch.bfloat16, 64, 101, [row("varlen"), row("absent", 9)], "varlen"),
    ],
)
def test_the_measured_row_wins_else_the_default(
    arch, dtype, head_dim, longest, rows, expected, monkeypatch
):
    monkeypatch.setattr(dispatch, "installed", {"fused", "varlen", "plain"}.__contains__)
    monkeypatch.setattr(dispatch, "ours_run", {"sm_80", "sm_86", "sm_90"}.__contains__)
    assert dispatch.best(arch, dtype, head_dim, longest, rows)[0] == expected


def test_rows_in_the_repository_are_whole():
    for measured in dispatch.measured():
        assert measured.keys() == row("fused").keys()
        assert measured["provider"] in dispatch.PROVIDERS


def test_the_environment_and_then_the_argument_override(monkeypatch):
    assert dispatch.choose(CPU, torch.float32, 64, 9) is dispatch.load("plain")
    monkeypatch.setenv(dispatch.VARIABLE, "fused")
    assert dispatch.choose(CPU, torch.float32, 64, 9) is dispatch.load("fused")
    assert dispatch.choose(CPU, torch.float32, 64, 9, "plain") is dispatch.load("plain")


def test_a_choice_is_told_once(caplog):
    dispatch._log_once.cache_clear()
    with caplog.at_level(logging.INFO, "ldm.kernels"):
        for _ in range(3):
            dispatch.choose(CPU, torch.float32, 64, 9)
    assert [r.message for r in caplog.records] == [
        "packed attention: plain (CPU; cpu, torch.float32, head dimension 64)"
    ]


def test_a_provider_that_is_unknown_or_absent_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r'expected one of .* got "flash"'):
        dispatch.choose(CPU, torch.float32, 64, 9, "flash")
    monkeypatch.setitem(dispatch.peers.FLASH_MODULES, "flash-attn-3", "no_such_module")
    dispatch.load.cache_clear()
    with pytest.raises(ValueError, match='"flash-attn-3" is not installed'):
        dispatch.choose(CPU, torch.float32, 64, 9, "flash-attn-3")
