"""`--profile A:B`: the run's own steps on every rank, put together."""

import gzip
import json

import pytest
import torch
from safetensors.torch import load_file
from test_deepspeed import launch_two, write_recipe
from test_train_run import changed, lines

from ldm.errors import LdmError
from ldm.train import profile
from ldm.train.__main__ import without_profile
from ldm.train.profile import PARTS
from ldm.train.profile_run import Window, merged
from ldm.train.run import train_stage


def report_of(folder, name):
    report = json.loads((folder / f"profile/{name}.json").read_text())
    for rank in report["ranks"]:
        assert rank["ms"].keys() == set(PARTS)
        assert sum(rank["ms"].values()) >= 0.98 * rank["ms_per_step"]
        assert rank["roof"]["gflops"] > 0 and rank["tokens_per_s"] > 0
        for part in ("embedding", "attention", "products", "norms", "loss", "optimiser"):
            assert rank["ms"][part] > 0 and rank["floor_ms"][part] > 0, part
        with gzip.open(folder / f"profile/{name}-rank-{rank['rank']}.json.gz") as file:
            names = {event.get("name") for event in json.load(file)["traceEvents"]}
        assert {"ldm.embedding", "ldm.attention", "ldm.loss", "ldm.data"} <= names
    return report


def test_two_ranks_profile_steps_of_the_run_itself(recipe, folder):
    pytest.importorskip("deepspeed")
    path = write_recipe(
        changed(recipe, steps=6, checkpoint_every=6), folder.parent.parent / "tiny.toml"
    )
    launch_two(path, "--train.engine", "deepspeed", "--profile", "3:4")
    report = report_of(folder, "steps-3-4")
    assert report["steps"] == [3, 4] and [r["rank"] for r in report["ranks"]] == [0, 1]
    assert report["communication_ms"] > 0 and min(report["waiting_ms"]) == 0
    assert report["straggler"]["rank"] in (0, 1)
    assert 6 in lines(folder)


def test_the_last_step_can_be_profiled_and_nothing_trains_otherwise(recipe, folder, tmp_path):
    """And `ldm profile` starts where the run is."""
    chosen = changed(recipe, steps=4, checkpoint_every=4)
    train_stage(chosen, folder)
    plain = weights(folder)
    (folder / "train").rename(tmp_path / "plain")
    train_stage(chosen, folder, Window(3, 4))
    report_of(folder, "steps-3-4")
    for name, value in weights(folder).items():
        assert torch.equal(value, plain[name]), name
    profile.profile_stage(chosen, folder)
    assert json.loads((folder / "profile/profile.json").read_text())["from_step"] == 4


def weights(folder) -> dict:
    return {
        f"{path.name}/{name}": value
        for path in sorted((folder / "train").rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize("text", ["", "3", "0:2", "4:3", "3:7", "a:b", "1:2:3"])
def test_a_window_outside_the_run_is_named(text):
    with pytest.raises(LdmError, match=r"expected A:B, steps of the run's 6, as in 100:103, got"):
        Window.parse(text, 6)
    assert Window.parse("3:6", 6) == Window(3, 6)


def test_a_window_before_the_checkpoint_is_refused(recipe, folder):
    chosen = changed(recipe, steps=4, checkpoint_every=2)
    train_stage(chosen, folder)
    with pytest.raises(LdmError, match="--profile 3:4: the run goes on after step 4"):
        train_stage(changed(chosen, steps=6), folder, Window(3, 4))


def test_the_flag_is_taken_from_among_the_others():
    assert without_profile(["--seed", "1", "--profile", "3:4"]) == (["--seed", "1"], "3:4")
    assert without_profile(["--profile=3:4", "--seed", "1"]) == (["--seed", "1"], "3:4")
    assert without_profile(["--profile"]) == ([], "nothing")


def test_who_waits_and_for_whom():
    def rank(i, total, communication):
        ms = dict.fromkeys(PARTS, 1.0) | {"communication": communication}
        return {"rank": i, "ms_per_step": total, "ms": ms, "tokens_per_s": 10.0}

    found = merged([rank(0, 100.0, 30.0), rank(1, 100.0, 10.0), rank(2, 100.0, 30.0)])
    assert found["communication_ms"] == 10 and found["waiting_ms"] == [20, 0, 20]
    assert found["straggler"]["rank"] == 1
    assert found["straggler"]["share"] == pytest.approx(90 / (230 / 3) - 1)
    assert found["tokens_per_s"] == 30
