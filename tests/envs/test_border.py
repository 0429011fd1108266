"""Nothing crosses the border to an environment as a view of memory that somebody writes later."""

import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from ldm.envs import legal, spaces, trace, worker_process
from ldm.envs.check import check_environment
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec
from ldm.envs.trace import Trace
from ldm.record.noise import Noise
from ldm.record.recorder import record
from tests.envs import keepers

HERE = Path(__file__).parent


@pytest.fixture
def spec(monkeypatch):
    """spec(name): of an environment of keepers.py, through the adapter for classes."""
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=":")

    def of(name: str, **changes) -> EnvSpec:
        made = EnvSpec(
            id=f"keepers/{name}", library="keepers", make=f"keepers:{name}", backend="worker",
            domain="robotics", modality="vector", base_task=name, horizon=20, licence="Apache-2.0",
            adapter="gym",
        )  # fmt: skip
        return replace(made, **changes)

    return of


@pytest.fixture
def views_at_the_border(monkeypatch, tmp_path):
    """Workers whose `unflatten` hands out views of the shared memory, as it once did."""
    copies = "return np.array(array, leaf.source_dtype)"
    planted(monkeypatch, tmp_path, copies, "return np.asarray(array, leaf.source_dtype)")


def planted(monkeypatch, tmp_path, sound: str, fault: str) -> None:
    """Lets workers run with a fault in spaces.py."""
    source = Path(worker_process.__file__).parent
    folder = shutil.copytree(source, tmp_path / "envs", ignore=shutil.ignore_patterns("*.pyc"))
    text = (file := folder / "spaces.py").read_text()
    assert sound in text
    file.write_text(text.replace(sound, fault))
    monkeypatch.setattr(worker_process, "__file__", str(folder / "worker_process.py"))


def test_an_environment_that_keeps_its_action_plays_as_in_its_library(spec):
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 2, 2)).astype(np.float32)
    vector = gymnasium.vector.SyncVectorEnv([keepers.Keeper] * 2)
    vector.reset(seed=0)
    theirs = [vector.step(action)[1] for action in actions]
    vector.close()
    env = make(spec("Keeper"), 2, 0)
    env.reset()
    ours = [env.step([action]).reward for action in actions]
    env.close()
    np.testing.assert_array_equal(np.stack(ours)[:20], np.stack(theirs)[:20])


@pytest.mark.parametrize("name", ["Keeper", "Scales", "Parts", "Orders", "Shifted"])
def test_sound_environments_pass(name, spec):
    result = check_environment(spec(name, modality="symbols" if name == "Shifted" else "vector"))
    assert result.ok, result.reason
    assert result.like_library is True and result.deterministic is True


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Keeper", "plays otherwise than the library's own environment: step 2, stream 0: reward"),
        ("Forgetful", "action 0: it was given float32 (2,) [0.27392337, -0.46042657], which 50 st"),
        ("Scales", "plays otherwise than the library's own environment: step 2, stream 0: reward"),
    ],
)
def test_the_check_finds_views(name, words, spec, views_at_the_border):
    assert words in check_environment(spec(name)).reason


def test_the_check_finds_actions_of_another_type(spec, monkeypatch, tmp_path):
    planted(monkeypatch, tmp_path, "return int(array)", "return np.int64(array)")
    reason = check_environment(spec("Parts")).reason
    assert "nested: (int64 (2,) [0, 3], int64 np.int64(12))" in reason
    assert "the library's own environment" in reason and "[0, 3], int 12)" in reason


def test_the_check_finds_memory_that_is_written_again(spec, monkeypatch):
    env = make(spec("Keeper"), 2, 0)
    recorded, timestep = Trace(env.action), env.reset()
    for moment in range(trace.RETAINED + 3):
        recorded.add(timestep)
        if moment == 2:
            timestep.observation[0][1] += 1
        timestep = env.step([np.zeros((2, 2), np.float32)])
        if moment == trace.RETAINED + 1:
            break
    env.close()
    with pytest.raises(ValueError, match="the observation of step 2 has changed 50 steps later"):
        recorded.add(timestep)


def test_an_action_may_be_written_over_after_the_step(spec):
    for id in (spec("Keeper"), "envpool/Pendulum-v1"):
        env = make(id, 2, 0)
        env.reset()
        action = [np.full((2, *leaf.shape), 0.5, leaf.dtype) for leaf in spaces.leaves(env.action)]
        timestep = env.step(action)
        action[0][:] = -1
        assert (timestep.action[0] == 0.5).all()
        env.close()


IMAGE = (16, 16, 3)


class Rude:
    """Acts at random from memory of its own, and writes over all that it sees and has returned."""

    id = "rude"

    def __init__(self, action: spaces.Tree, rude: bool):
        self._random, self._rude, self._mine = RandomActor(action, 0), rude, None

    def act(self, timestep):
        action = self._random.act(timestep)
        if not self._rude:
            return action
        self._mine = self._mine or [array.copy() for array in action]
        for mine, array in zip(self._mine, action):
            mine[...] = array
        for array in (*timestep.observation, *timestep.action, *timestep[2:6]):
            array[...] = 1
        return self._mine


@pytest.mark.parametrize("id", ["Keeper", "Parts", "envpool/Pendulum-v1", "envpool/CartPole-v1"])
def test_a_policy_may_write_over_what_it_gets_and_gave(id, spec):
    """Both ways, in every backend: the recorder holds the same."""
    recordings = []
    for rude in (False, True):
        env = make(id if "/" in id else spec(id), 2, 0)
        noise = Noise(env.action, 2, share=0.5, most=0.5, seed=0)
        recordings.append(record(env, Rude(env.action, rude), noise, 120, 0))
        env.close()
    polite, rude = recordings
    for name in ("observations", "actions", "labels"):
        for a, b in zip(getattr(polite, name), getattr(rude, name)):
            np.testing.assert_array_equal(a[: polite.rows - 1], b[: polite.rows - 1])
    for name in ("rewards", "started", "terminated", "truncated"):
        a, b = getattr(polite, name), getattr(rude, name)
        np.testing.assert_array_equal(a[: polite.rows - 1], b[: polite.rows - 1])


@pytest.mark.parametrize(
    ("leaf", "sample"),
    [
        (spaces.numbers("", (2,), -1, 1), np.zeros(2, np.float32)),
        (spaces.symbols("", (2,), 3), np.zeros(2, np.int32)),
        (spaces.Leaf("", spaces.IMAGE, IMAGE, "Box", "uint8"), np.zeros(IMAGE, np.uint8)),
        (
            spaces.Leaf("", spaces.IMAGE, IMAGE, "Box", "uint8", channels_first=True),
            np.zeros(IMAGE, np.uint8),
        ),
        (spaces.Leaf("", spaces.TEXT, (8,), "Text", "str"), np.zeros(8, np.uint8)),
    ],
)
def test_samples_share_no_memory(leaf, sample):
    given = spaces.unflatten(leaf, [sample])
    if isinstance(given, np.ndarray):
        assert not np.shares_memory(given, sample)
        assert not np.shares_memory(spaces.flatten(leaf, given)[0], given)
    assert not np.shares_memory(legal.executable(leaf, sample[None]), sample)


def test_whole_numbers_stay_whole(spec):
    env = make(spec("Orders"), 4, 0)
    timestep = env.reset()
    timestep = env.step([np.full((4, 3), 2.9999, np.float32)])
    assert (timestep.action[0] == 3).all() and (timestep.observation[0] == 3).all()
    assert (timestep.reward == 9).all()
    noise = Noise(env.action, 4, share=1.0, most=1.0, seed=0)
    for _ in range(20):
        label = [np.full((4, 3), 500.0, np.float32)]
        timestep = env.step(noise.apply(timestep.started, label))
        assert (timestep.action[0] == timestep.action[0].round()).all()
        assert timestep.started.any() or (timestep.observation[0] == timestep.action[0]).all()
    assert env.faults == 0
    env.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Wide", "whole numbers up to 1099511627776, of which float32 holds those up to 16777216"),
        ("Frames", r"looks like stacked images: join the frames along the channels in an adapter"),
        ("Blind", "it shows no observation"),
        ("Unpaid", "reward: expected one number, got None"),
        ("Spelt", "reward: expected one number, got '1'"),
        ("Raises", "KeyError: 'inventory of warehouse 7'"),
    ],
)
def test_what_cannot_be_right_is_refused_in_words(name, words, spec):
    reason = check_environment(spec(name)).reason
    assert words in reason
    assert name == "Raises" or "\n" not in reason


def test_what_an_environment_raises_is_shown_when_it_is_played(spec, caplog):
    env = make(spec("Raises"), 1, 0)
    env.reset()
    for _ in range(10):
        env.step([np.zeros((1, 2), np.float32)])
    assert env.faults == 1 and "inventory of warehouse 7" in env.last_fault
    assert "keepers.py" in caplog.text and "inventory of warehouse 7" in caplog.text
    assert "worker.py" not in env.last_fault
    env.close()


def test_a_digest_follows_what_an_environment_does_not_its_name(spec):
    assert trace.trace_digest(spec("Keeper")) == check_environment(spec("Keeper")).digest
    assert trace.trace_digest(spec("Keeper")) != trace.trace_digest(spec("Orders"))


def test_a_float64_bound_is_kept(spec):
    """0.1 as float32 is above 0.1 as float64."""
    assert check_environment(spec("Narrow")).ok


@pytest.mark.parametrize("reseed", [False, True])
def test_a_seed_fixes_the_episodes_after_the_first(reseed, spec):
    options = {"module": "keepers", "reseed": reseed}
    made = spec("Entropic", make="Entropic-v0", adapter="gymnasium", options=options)
    result = check_environment(made)
    assert result.ok and result.deterministic is reseed
    assert result.like_library is (True if reseed else None)
