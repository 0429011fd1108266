import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ldm.config import Recipe, RecordConfig
from ldm.data.atomic import folder_lock
from ldm.data.manifest import read_environment, read_manifest
from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.record.run import plan as plan_shards
from ldm.record.run import record_shard, run
from ldm.reference import experts
from ldm.reference.admission import Card, Score, card_folder, read_card, write_card

IDS = ["envpool/CartPole-v1", "envpool/Pendulum-v1"]
RECIPE = Recipe(
    "tiny",
    IDS,
    workers=2,
    record=RecordConfig(transitions=5000, shard_transitions=2000, streams=4),
)
COMMAND = """
import sys
from dataclasses import replace
from pathlib import Path
from tests_run import RECIPE
from ldm.record.run import run
run(replace(RECIPE, workers=int(sys.argv[2])), Path(sys.argv[1]))
"""


def admit(folder: Path, id: str, admitted: bool = True, seconds: float = 1.0) -> None:
    spec, expert = find(id), experts.find(id)
    policy = {"id": expert.factory(spec).id, "kind": "scripted", "hosted": expert.hosted}
    card = Card(
        id=id,
        domain=spec.domain,
        base_task=spec.base_task,
        licence=spec.licence,
        admitted=admitted,
        reason="" if admitted else "reference is not above random",
        key="",
        random=Score(0.0, (-1.0, 1.0), 8),
        reference=Score(9.0, (8.0, 10.0), 8),
        policy=policy,
        seconds=seconds,
    )
    path = card_folder(spec, folder) / "card.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_card(card, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that was recorded without a disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    for id in IDS:
        admit(folder, id)
    process = start_run(folder, workers=2)
    assert process.wait() == 0
    return folder


def start_run(folder: Path, workers: int = 1) -> subprocess.Popen:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += COMMAND.replace("tests_run", Path(__file__).stem)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(workers)],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_shards(folder: Path, count: int, process: subprocess.Popen) -> None:
    while len(list(folder.rglob("shard-*.tar"))) < count and process.poll() is None:
        time.sleep(0.005)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.tar")}


def test_the_data_is_what_the_recipe_asks_for(whole):
    folder = whole / "data"
    manifest = read_manifest(folder)
    assert [e["id"] for e in manifest["environments"]] == IDS
    for environment in manifest["environments"]:
        assert [s["transitions"] // 100 for s in environment["shards"]] == [20, 20, 10]
        assert environment["card"]["id"] == environment["id"]
        assert environment["versions"].keys() >= {"python", "numpy", "zstandard", "envpool", "ldm"}
        read = [t for _, part in read_environment(folder, environment) for t in part]
        assert sum(map(len, read)) == environment["transitions"]
        assert sum(len(t.lengths) for t in read) == environment["episodes"]
        assert len({t.seed for t in read}) == len(read)
    pendulum = manifest["environments"][1]
    assert pendulum["statistics"]["observation"][0]["max"][0] == pytest.approx(1, abs=0.01)
    assert pendulum["statistics"]["reward"]["max"] <= 0
    assert "seconds" not in pendulum["card"]


def test_killed_at_random_moments_it_ends_with_the_same_bytes(whole, tmp_path):
    for id in IDS:
        admit(tmp_path, id, seconds=2.0)
    moments = random.Random(0)
    for shards in (1, 2, 4):
        process = start_run(tmp_path)
        wait_for_shards(tmp_path, shards, process)
        time.sleep(moments.uniform(0, 0.1))  # about as long as a shard takes
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = start_run(tmp_path)
    assert process.wait() == 0, process.stderr.read()
    assert read_manifest(tmp_path / "data") == read_manifest(whole / "data")
    assert files(tmp_path / "data") == files(whole / "data")
    assert not list((tmp_path / "data").rglob("*.tmp"))


def test_ctrl_c_keeps_what_is_done(whole, tmp_path):
    for id in IDS:
        admit(tmp_path, id)
    process = start_run(tmp_path)
    wait_for_shards(tmp_path, 1, process)
    os.kill(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1] or process.returncode == 0
    kept = files(tmp_path / "data")
    assert kept and kept.items() <= files(whole / "data").items()


def test_a_second_run_writes_nothing_and_more_transitions_keep_what_is_there(whole, monkeypatch):
    folder = whole
    jobs = []
    monkeypatch.setattr("ldm.record.run.run_jobs", lambda _, these, *a, **k: jobs.extend(these))
    before = (folder / "data/manifest.json").read_bytes()
    run(RECIPE, folder)
    assert jobs == [] and (folder / "data/manifest.json").read_bytes() == before
    for change, indices in (
        ({"transitions": 6000}, [2]),
        ({"transitions": 4000}, []),
        ({"noise": 0.1}, [0, 1, 2]),
    ):
        changed = replace(RECIPE, record=replace(RECIPE.record, **change))
        spec = find(IDS[0])
        shards = plan_shards(changed, spec, read_card(spec, folder), folder)
        assert [s.index for s in shards if not s.facts()] == indices


def test_a_shard_depends_on_its_seed_number_and_recipe_only(whole, tmp_path):
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    shards = plan_shards(RECIPE, spec, read_card(spec, tmp_path), tmp_path)
    record_shard(shards[1], RECIPE, tmp_path)  # alone, in this process
    name = "envpool__CartPole-v1/shard-00001.tar"
    assert files(tmp_path / "data") == {name: files(whole / "data")[name]}
    other = replace(RECIPE, seed=1)
    record_shard(shards[1], other, tmp_path)
    assert files(tmp_path / "data")[name] != files(whole / "data")[name]


def test_environments_without_a_card_or_admission(tmp_path):
    with pytest.raises(LdmError, match=r'CartPole-v1 has no admission card .* run "ldm reference"'):
        run(RECIPE, tmp_path)
    for id in IDS:
        admit(tmp_path, id, admitted=False)
    with pytest.raises(LdmError, match="no environment is admitted"):
        run(RECIPE, tmp_path)


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    with folder_lock(tmp_path / "data"), pytest.raises(LdmError, match="in use by another run"):
        run(RECIPE, tmp_path)


def test_a_full_disk_is_a_clear_error_and_the_run_can_go_on(whole, tmp_path):
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    shard = plan_shards(RECIPE, spec, read_card(spec, tmp_path), tmp_path)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(LdmError, match=r"shard-00000.tar: .* run the same command again"):
            record_shard(shard, RECIPE, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "data").rglob("*.*")] == []
    record_shard(shard, RECIPE, tmp_path)
    assert files(tmp_path / "data").items() <= files(whole / "data").items()


def test_shards_of_different_library_versions_are_not_mixed(whole, tmp_path):
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    recipe = replace(RECIPE, environments=[spec.id])
    shards = plan_shards(recipe, spec, read_card(spec, tmp_path), tmp_path)
    for shard in shards:
        record_shard(shard, recipe, tmp_path)
    facts = json.loads(shards[1].facts_path.read_text())
    facts["versions"]["envpool"] = "0.0.1"
    shards[1].facts_path.write_text(json.dumps(facts))
    with pytest.raises(LdmError, match=r"shard-00001.tar was recorded with other .* delete"):
        run(recipe, tmp_path)
