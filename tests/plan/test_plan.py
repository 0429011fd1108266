"""What `ldm plan` computes beside memory: exchange, time, the choice, and what it refuses."""

import re
from dataclasses import replace

import pytest

from ldm.cli import dispatch
from ldm.config import load_recipe
from ldm.errors import LdmError
from ldm.model.decoder import whole_parameters
from ldm.plan.activations import Activations
from ldm.plan.batch import BatchSize
from ldm.plan.choose import Problem, choose, ways
from ldm.plan.cluster import HOP, cluster
from ldm.plan.memory import Setting
from ldm.plan.step import exchange, model_flops, seconds


@pytest.fixture(scope="module")
def seven() -> Problem:
    return Problem(load_recipe("7b"), cluster("H100", 64, 400.0), 256.0, 3000)


def test_a_collective_takes_the_slower_of_node_and_network():
    one = cluster("H100", 8, 400.0)
    assert one.seconds(8e9) == pytest.approx(7e9 / 360e9 + 8 * HOP)
    many = cluster("H100", 64, 100.0)  # 10.6 GB/s a GPU, eight of them leave a node
    assert many.seconds(8e9, 3) == pytest.approx(7e9 / (8 * 10.625e9) + 3 * 64 * HOP)
    assert cluster("H100", 1, 400.0).seconds(8e9) == 0


def test_a_step_computes_its_flops_at_the_rates_told(seven):
    batch = BatchSize.usual(8192, 256.0, seven.sizes.classes)
    parameters = whole_parameters(seven.sizes)
    setting = Setting(2, 64, "bf16", "none", 8, cuda=True)
    took = seconds(seven.sizes, batch, setting, parameters, seven.cluster)
    matrices = 32 * 4096 * (128 * 2 * (32 + 8) + 3 * 14_336)
    assert took.products == pytest.approx(8 * 6 * matrices * 8192 / 640e12)
    again = seconds(
        seven.sizes, batch, replace(setting, recompute="full"), parameters, seven.cluster
    )
    assert again.products == pytest.approx(took.products * 4 / 3)
    assert model_flops(seven.sizes, batch) * 8 / 640e12 == pytest.approx(
        took.products * (1 + 32 * 4096 * 256 / matrices)
    )


@pytest.mark.parametrize(
    "stage, micro_batches, hidden, bare",
    [(1, 1, 1, 1), (1, 4, 0, 5), (2, 4, 4, 1), (3, 4, 12, 0)],  # times all weights in bf16
)
def test_stages_exchange_what_their_scheme_needs(seven, stage, micro_batches, hidden, bare):
    setting = Setting(stage, 64, "bf16", "none", micro_batches, cuda=True)
    parameters = 8_000_000_000
    unit = seven.cluster.seconds(2 * parameters, 40)
    found = exchange(setting, parameters, seven.cluster)
    assert found == pytest.approx((hidden * unit, bare * unit), rel=0.1)  # fp32 has fewer hops


def test_it_chooses_the_lowest_stage_among_the_fastest_that_fit(seven):
    best, why = choose(ways(seven))
    assert (best.setting.stage, best.setting.recompute, best.bins) == (2, "none", 1)
    assert "ZeRO-1, recompute none would be faster" not in why  # it exchanges fp32 sums
    small = Problem(load_recipe("ldm-v0"), cluster("H100", 8, 400.0), 256.0, 3000)
    best, _ = choose(ways(small))
    assert (best.setting.stage, best.setting.recompute, best.setting.micro_batches) == (
        1,
        "none",
        1,
    )
    assert best.memory.total < best.largest / (8 * 8192) * best.memory.total
    assert 0.3 < best.mfu < 0.6


def test_where_nothing_fits_it_says_so_and_what_helps(seven):
    found = ways(replace(seven, cluster=cluster("H100", 1, 400.0)))
    best, why = choose(found)
    assert best is None and not any(way.fits for way in found)
    assert re.match(r"nothing fits: ZeRO-\d, .* takes least, 1\d\d GB.* --train.offload", why)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["ldm-v0", "--gpus", "24"], "24 GPUs cannot share mix.streams = 64"),
        (["ldm-v0", "--gpus", "2000"], "expected 1 to 1,024, got 2000"),
        (["ldm-v0", "--tokens", "2e12"], "--tokens: expected"),
        (["ldm-v0", "--network", "0"], "expected at least one GPU and a network"),
        (["lmd-v0"], 'no recipe "lmd-v0"'),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, told):
    with pytest.raises(LdmError, match=told):
        dispatch(["plan", *arguments])


@pytest.mark.parametrize("arguments", [["ldm-v0"], ["7b", "--gpus", "1024", "--tokens", "1e12"]])
def test_it_prints_every_choice_and_the_one_to_take(arguments, capsys):
    dispatch(["plan", *arguments, *(["--streams", "1024"] if "7b" in arguments else [])])
    told = capsys.readouterr().out
    for stage in (1, 2, 3):
        for recompute in ("none", "selective", "full"):
            assert told.count(f" ZeRO-{stage}, recompute {recompute}") >= 2
    assert "choose ZeRO-" in told and "--train.zero-stage" in told
    for fact in ("storage", "cores a GPU", "core hours", "GPU hours"):
        assert fact in told


def test_every_parameter_has_its_gradient(seven):
    batch = BatchSize.usual(8192, 256.0, seven.sizes.classes)
    (*_, made) = Activations(seven.sizes, batch, 2, 2, cuda=True).timeline()[-1]
    assert made == whole_parameters(seven.sizes) and seven.sizes.owners == 3001
