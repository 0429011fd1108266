import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from ldm.config import Recipe, RecordConfig
from ldm.data.atomic import folder_lock
from ldm.data.manifest import read_environment, read_manifest
from ldm.data.sealed import write_sealed
from ldm.envs.behaviour import identity
from ldm.envs.catalogue import find
from ldm.envs.worker_backend import Quarantined
from ldm.errors import LdmError
from ldm.record import job
from ldm.record.job import record_shards
from ldm.record.run import parts, record_stage
from ldm.record.shard_plan import plan as plan_shards
from ldm.reference import experts
from ldm.reference.admission import Card, Score, card_folder, digest, read_card, write_card

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
from ldm.record.run import parts, record_stage
record_stage(replace(RECIPE, workers=int(sys.argv[2])), Path(sys.argv[1]))
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
        environment=digest(identity(spec)),
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
    monkeypatch.setattr(
        "ldm.record.run.run_jobs", lambda _, these, *a, **k: jobs.extend(these) or []
    )
    before = (folder / "data/manifest.json").read_bytes()
    record_stage(RECIPE, folder)
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


def test_long_episodes_get_further_shards_until_they_are_enough(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = files(tmp_path)
    few = [e["episodes"] for e in read_manifest(tmp_path / "data")["environments"]]
    assert few[0] < 18 < few[1]  # of up to 500 steps, and of 200
    record = replace(RECIPE.record, episodes=18)
    for most, enough in ((6500, False), (100_000, True)):
        asked = replace(RECIPE, workers=1, record=replace(record, most_transitions=most))
        record_stage(asked, tmp_path)
        cart, pendulum = read_manifest(tmp_path / "data")["environments"]
        assert pendulum["episodes"] == few[1] and len(pendulum["shards"]) == 3
        assert (cart["episodes"] >= 18) == enough and len(cart["shards"]) > 3
        assert cart["transitions"] < most + 500 * RECIPE.record.streams
    after = files(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + len(cart["shards"]) - 3


def test_a_shard_depends_on_its_seed_number_and_recipe_only(whole, tmp_path):
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    shards = plan_shards(RECIPE, spec, read_card(spec, tmp_path), tmp_path)
    record_shards([shards[1]], RECIPE, tmp_path)  # alone, in this process
    name = "envpool__CartPole-v1/shard-00001.tar"
    assert files(tmp_path / "data") == {name: files(whole / "data")[name]}
    other = replace(RECIPE, seed=1)
    record_shards([shards[1]], other, tmp_path)
    assert files(tmp_path / "data")[name] != files(whole / "data")[name]


def test_environments_without_a_card_or_admission(tmp_path):
    with pytest.raises(LdmError, match=r'CartPole-v1 has no admission card .* run "ldm reference"'):
        record_stage(RECIPE, tmp_path)
    for id in IDS:
        admit(tmp_path, id, admitted=False)
    with pytest.raises(LdmError, match="no environment is admitted"):
        record_stage(RECIPE, tmp_path)


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    with folder_lock(tmp_path / "data"), pytest.raises(LdmError, match="in use by another run"):
        record_stage(RECIPE, tmp_path)


def test_a_full_disk_is_a_clear_error_and_the_run_can_go_on(whole, tmp_path):
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    shard = plan_shards(RECIPE, spec, read_card(spec, tmp_path), tmp_path)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(LdmError, match=r"shard-00000.tar: .* run the same command again"):
            record_shards([shard], RECIPE, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "data").rglob("*.*")] == []
    record_shards([shard], RECIPE, tmp_path)
    assert files(tmp_path / "data").items() <= files(whole / "data").items()


def test_an_entry_says_whether_its_policy_has_a_memory(whole, tmp_path):
    """envpool/CartPole-v1 is acted in by a function; memory_len's expert remembers a cue."""
    assert [e["memoryless"] for e in read_manifest(whole / "data", "data")["environments"]] == [
        True,
        True,
    ]
    spec = find("bsuite/memory_len-0")
    admit(tmp_path, spec.id)
    record_stage(replace(RECIPE, environments=[spec.id]), tmp_path)
    (found,) = read_manifest(tmp_path / "data", "data")["environments"]
    assert found["memoryless"] is False


def test_shards_of_different_library_versions_are_not_mixed(whole, tmp_path):
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    recipe = replace(RECIPE, environments=[spec.id])
    shards = plan_shards(recipe, spec, read_card(spec, tmp_path), tmp_path)
    record_shards(shards, recipe, tmp_path)
    facts = json.loads(shards[1].facts_path.read_text())
    facts["versions"]["envpool"] = "0.0.1"
    del facts["checksum"]
    write_sealed(shards[1].facts_path, facts)
    with pytest.raises(LdmError, match=r"shard-00001.tar was recorded with other .* delete"):
        record_stage(recipe, tmp_path)


def test_a_slow_writer_holds_the_recording_back_and_memory_down(tmp_path, monkeypatch):
    """A shard is written while the next is recorded; the one after that waits for it."""
    spec = find(IDS[0])
    admit(tmp_path, spec.id)
    recipe = replace(RECIPE, record=replace(RECIPE.record, transitions=16_000))
    shards = plan_shards(recipe, spec, read_card(spec, tmp_path), tmp_path)
    events, alive, most = [], weakref.WeakSet(), []
    recorded = [threading.Event() for _ in shards]
    real_record, real_write = job.record_shard, job.write

    def counting_record(shard, *arguments):
        events.append(("record", shard.index))
        recording = real_record(shard, *arguments)
        alive.add(recording)
        most.append(len(alive))
        recorded[shard.index].set()
        return recording

    def slow_write(shard, recording):
        following = min(shard.index + 1, len(shards) - 1)
        assert recorded[following].wait(60)  # slower than the next shard's recording
        tally = real_write(shard, recording)
        events.append(("written", shard.index))
        return tally

    monkeypatch.setattr(job, "record_shard", counting_record)
    monkeypatch.setattr(job, "write", slow_write)
    tally = job.record_shards(shards, recipe, tmp_path)
    assert len(most) == len(shards) == 8 and max(most) == 2
    for index in range(2, len(shards)):
        assert events.index(("written", index - 2)) < events.index(("record", index))
    assert tally.transitions == sum(s.facts()["shard"]["transitions"] for s in shards)
    assert set(tally.seconds) == {"start", "policy", "simulator", "serialisation", "writing"}
    assert all(tally.seconds.values()) and sum(tally.shares().values()) == pytest.approx(1)


def test_jobs_hold_one_environment_each_slow_ones_first(tmp_path):
    seconds = {IDS[0]: 1.0, IDS[1]: 5.0}
    for id in IDS:
        admit(tmp_path, id, seconds=seconds[id])
    recipe = replace(RECIPE, record=replace(RECIPE.record, transitions=40_000))
    admitted = [(find(id), read_card(find(id), tmp_path)) for id in IDS]
    plans = [plan_shards(recipe, *pair, tmp_path) for pair in admitted]
    for workers, sizes in ((1, [4] * 5), (2, [4] * 5), (4, [2] * 10), (64, [1] * 20)):
        jobs = parts(admitted, plans, workers)
        assert [len(job) for job in jobs] == sizes * 2
        ids = [{shard.spec.id for shard in job} for job in jobs]
        assert ids == [{IDS[1]}] * len(sizes) + [{IDS[0]}] * len(sizes)


def test_the_end_says_how_fast_and_where_the_time_went(whole, tmp_path, capfd):
    for id in IDS:
        admit(tmp_path, id)
    record_stage(RECIPE, tmp_path)
    line = " ".join(capfd.readouterr().err.split())
    assert re.search(r"1\d,\d{3} transitions recorded, [\d,]+/s; time: .*simulator \d+%", line)
    assert files(tmp_path / "data") == files(whole / "data")


def test_data_that_is_none_leaves_its_environment_out(whole, tmp_path, monkeypatch, capfd):
    for id in IDS:
        admit(tmp_path, id)
    real = job.validate

    def validate(env, policy, trajectory):
        if env.spec.id == IDS[1]:
            raise LdmError("a reward is NaN or infinite")
        real(env, policy, trajectory)

    monkeypatch.setattr(job, "validate", validate)
    monkeypatch.setattr("ldm.record.run.run_jobs", lambda f, jobs, *_, **__: [f(*j) for j in jobs])
    record_stage(RECIPE, tmp_path)
    assert f"left out: {IDS[1]}: a reward is NaN" in " ".join(capfd.readouterr().err.split())
    kept = read_manifest(whole / "data")["environments"][:1]
    assert read_manifest(tmp_path / "data")["environments"] == kept


def test_a_process_that_dies_leaves_its_environment_out(whole, tmp_path, monkeypatch, capfd):
    for id in IDS:
        admit(tmp_path, id)

    def run_jobs(function, jobs, *_, lost, **__):
        return [(lost if j[0][0].spec.id == IDS[1] else function)(*j) for j in jobs]

    monkeypatch.setattr("ldm.record.run.run_jobs", run_jobs)
    record_stage(RECIPE, tmp_path)
    assert f"left out: {IDS[1]}: its process died" in " ".join(capfd.readouterr().err.split())


def test_a_run_survives_an_environment_in_quarantine(whole, tmp_path, monkeypatch, capfd):
    for id in IDS:
        admit(tmp_path, id)
    real = job.record_shard

    def record_shard(shard, *arguments):
        if shard.spec.id == IDS[1] and shard.index == 1:
            raise Quarantined("it hangs", {"hang": 3})
        return real(shard, *arguments)

    monkeypatch.setattr(job, "record_shard", record_shard)
    monkeypatch.setattr("ldm.record.run.run_jobs", lambda f, jobs, *_, **__: [f(*j) for j in jobs])
    record_stage(RECIPE, tmp_path)
    told = " ".join(capfd.readouterr().err.split())
    assert f"left out: {IDS[1]}: it hangs" in told and "lost to faults: 3 hang" in told
    manifest = read_manifest(tmp_path / "data")
    assert manifest["environments"] == read_manifest(whole / "data")["environments"][:1]
    monkeypatch.setattr(job, "record_shard", real)
    record_stage(RECIPE, tmp_path)
    assert read_manifest(tmp_path / "data") == read_manifest(whole / "data")
