"""A recording run whose environments misbehave on plan, beside the same run without.

LDM_FAULTS=200 pytest -s tests/record/test_faults.py plans that many faults.
"""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.config import Recipe, RecordConfig
from ldm.data.manifest import read_environment, read_manifest
from ldm.envs import spaces
from ldm.envs.behaviour import identity
from ldm.envs.spec import EnvSpec
from ldm.record import run as record_run
from ldm.reference.admission import Card, Score, card_folder, digest, write_card
from ldm.reference.flat import Flattener
from ldm.reference.network import NetworkActor

FAULTS = int(os.environ.get("LDM_FAULTS", "14"))
# what the environment does → what it counts as
KINDS = {
    "die": "crash",
    "hang": "hang",
    "leak": "leak",
    "nan": "nan",
    "shape": "space",
    "orphan": "orphan",
    "raise": "exception",
}
STREAMS, LENGTH = 4, 6
EVERY = 400  # steps of a process between faults: fewer would end in quarantine
SHARD = 4 * EVERY
NAMES = ["one", "two"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of the run without faults and of the one with them."""
    folders = [tmp_path_factory.mktemp(name) for name in ("calm", "faulty")]
    kinds = list(KINDS)
    for folder, count in zip(folders, (0, FAULTS)):
        plan = folder / "plan"
        plan.mkdir()
        for number in range(count):
            (plan / f"{number:05d}-{kinds[number % len(kinds)]}").touch()
        record(folder, [planned(folder, name) for name in NAMES], FAULTS * EVERY)
    return folders


def planned(folder: Path, name: str) -> EnvSpec:
    options = {"plan": str(folder / "plan"), "every": EVERY, "pids": str(folder / "pids")}
    return EnvSpec(
        id=f"faulty/{name}",
        library="faulty",
        make="planned",
        backend="worker",
        domain="games",
        modality="mixed",
        base_task="faulty",
        horizon=100,
        licence="Apache-2.0",
        adapter=str(Path(__file__).parents[1] / "envs" / "faulty.py"),
        options=options,
        step_seconds=5.0,
        memory_gb=0.25,
    )


def record(folder: Path, specs: list[EnvSpec], transitions: int) -> None:
    for spec in specs:
        admit(folder, spec)
    settings = RecordConfig(
        transitions=transitions, shard_transitions=SHARD, streams=STREAMS, noise_share=0.5
    )
    known = {spec.id: spec for spec in specs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_run.catalogue, "of", lambda recipe: specs)  # they are in no catalogue
        record_run.record_stage(Recipe("faults", list(known), workers=2, record=settings), folder)


def admit(folder: Path, spec: EnvSpec) -> None:
    """A card and, for a policy, a network that nobody trained."""
    observation = {
        "clock": spaces.symbols("clock", (), LENGTH + 1, 0, "Discrete"),
        "noise": spaces.numbers("noise", (2,), -1, 1),
    }
    action = spaces.symbols("", (), 3, 0, "Discrete")
    size = LENGTH + 1 + 2
    flattener = Flattener(observation, action, *np.float32([[0], [1]]).repeat(size, 1))
    weight = torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    layers = [(weight, torch.zeros(3))]
    target = card_folder(spec, folder)
    target.mkdir(parents=True, exist_ok=True)
    actor = NetworkActor("learnt/x@1", flattener, layers, "tanh", "classes", [3])
    weights = actor.save(target / "policy.safetensors")
    card = Card(
        id=spec.id,
        domain=spec.domain,
        base_task=spec.base_task,
        licence=spec.licence,
        admitted=True,
        reason="",
        key="",
        environment=digest(identity(spec)),
        random=Score(0.0, (-1.0, 1.0), 8),
        reference=Score(9.0, (8.0, 10.0), 8),
        policy={"id": actor.id, "kind": "learnt", "hosted": None, "weights": weights},
    )
    write_card(card, target / "card.json")


def read(folder: Path):
    """(shard's name, trajectories) of a recorded folder, with every checksum verified."""
    data = folder / "data"
    for environment in read_manifest(data)["environments"]:
        yield from read_environment(data, environment)


def test_every_fault_is_counted_by_its_kind(runs):
    facts = [record_facts(path) for path in (runs[1] / "data").rglob("shard-*.json")]
    counted = sum((Counter(fact["faults"]) for fact in facts), Counter())
    kinds = list(KINDS.values())
    assert counted == Counter(kinds[number % len(kinds)] for number in range(FAULTS))
    assert not list((runs[1] / "plan").iterdir())
    calm = [record_facts(path)["faults"] for path in (runs[0] / "data").rglob("shard-*.json")]
    assert calm and not any(calm)
    print(f"\n{FAULTS} faults planned, counted: {dict(counted)}")


def record_facts(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_run_is_as_complete_as_without_faults(runs):
    calm, faulty = ([shard for shard, _ in read(folder)] for folder in runs)
    assert [shard["name"] for shard in calm] == [shard["name"] for shard in faulty]
    for one, other in zip(calm, faulty):
        planned = SHARD if one["transitions"] >= SHARD else FAULTS * EVERY % SHARD
        for shard in (one, other):
            assert planned <= shard["transitions"] < planned + STREAMS


def test_every_episode_is_whole_and_none_holds_a_faulted_step(runs):
    episodes = 0
    for _, trajectories in read(runs[1]):
        for trajectory in trajectories:
            episodes += require_whole(trajectory)
    print(f"\n{episodes} episodes, all whole")


def require_whole(trajectory) -> int:
    clock, noise = trajectory.observations
    assert np.isfinite(noise).all() and (np.abs(noise) <= 1).all()
    np.testing.assert_array_equal(trajectory.rewards, trajectory.actions[0])  # never the poison
    first = step = 0
    for number, length in enumerate(trajectory.lengths):
        np.testing.assert_array_equal(clock[first : first + length + 1], np.arange(length + 1))
        ended = trajectory.terminated[step : step + length]
        unfinished = number == len(trajectory.lengths) - 1 and length < LENGTH
        assert not ended[:-1].any() and ended[-1] == (not unfinished)
        assert unfinished or length == LENGTH
        first, step = first + length + 1, step + length
    assert not trajectory.truncated.any()
    return len(trajectory.lengths)


def test_until_the_first_fault_nothing_differs(runs):
    pairs = zip(read(runs[0]), read(runs[1]), strict=True)
    for (_, calm), (_, faulty) in pairs:
        firsts = {}
        for trajectory in faulty:
            firsts.setdefault(trajectory.seed, trajectory)
        for whole in calm:
            part = firsts[whole.seed]
            steps = min(len(whole), len(part))
            for name in ("actions", "labels"):
                for a, b in zip(getattr(whole, name), getattr(part, name)):
                    np.testing.assert_array_equal(a[:steps], b[:steps])
            np.testing.assert_array_equal(whole.rewards[:steps], part.rewards[:steps])


def test_no_orphan_is_left(runs):
    pids = (runs[1] / "pids").read_text().split()
    assert len(pids) == len([n for n in range(FAULTS) if list(KINDS)[n % len(KINDS)] == "orphan"])
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline")
        assert not command.exists() or b"sleep(1000)" not in command.read_bytes()


def test_what_fails_again_and_again_is_left_out(tmp_path):
    good, bad = planned(tmp_path, "good"), planned(tmp_path, "bad")
    (tmp_path / "plan").mkdir()
    record(tmp_path, [good, replace(bad, make="die")], SHARD)
    kept = [environment["id"] for environment in read_manifest(tmp_path / "data")["environments"]]
    assert kept == ["faulty/good"]
