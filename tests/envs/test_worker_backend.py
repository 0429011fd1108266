"""Faults are injected by faulty.py; whatever happens, no process may stay behind."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ldm.envs.make import make
from ldm.envs.processes import MARK, marked, variables_of
from ldm.envs.rollout import RandomActor
from ldm.envs.worker_backend import Quarantined, WorkerEnv
from ldm.errors import LdmError


@pytest.fixture
def opened():
    """opened(spec, ...): a WorkerEnv that is closed, and seen to leave nothing, after the test."""
    envs = []

    def open_env(*args, **kwargs):
        env = WorkerEnv(*args, **kwargs)
        envs.append(env)
        return env

    yield open_env
    for env in envs:
        env.close()
    assert [pid for env in envs for mark in env.marks for pid in marked(mark)] == []


def act(env, value: int):
    return [np.full(env.num_envs, value, np.int32)]


def play(env, steps: int):
    """The timesteps of `steps` steps with action 2, the first timestep included."""
    return [env.reset()] + [env.step(act(env, 2)) for _ in range(steps)]


def test_episodes_follow_each_other(faulty, opened):
    env = opened(faulty("fine"), 3, seed=5, processes=2)
    timesteps = play(env, 14)
    assert [bool(t.started.all()) for t in timesteps] == [i % 7 == 0 for i in range(15)]
    assert [bool(t.terminated.all()) for t in timesteps] == [i % 7 == 6 for i in range(15)]
    assert not any(t.truncated.any() for t in timesteps)
    assert [int(t.observation[0][1]) for t in timesteps] == [i % 7 for i in range(15)]
    rewards = np.stack([t.reward for t in timesteps])
    assert rewards.dtype == np.float64
    assert (rewards == [[0.0 if i % 7 == 0 else 2.0] * 3 for i in range(15)]).all()
    assert (timesteps[3].action[0] == 2).all()
    assert env.faults == 0


def test_horizon_truncates(faulty, opened):
    env = opened(replace(faulty("fine"), horizon=4), 2, seed=0)
    timesteps = play(env, 5)
    assert timesteps[4].truncated.all() and not timesteps[4].terminated.any()
    assert timesteps[5].started.all()


def test_termination_at_the_horizon_is_no_truncation(faulty, opened):
    env = opened(replace(faulty("fine"), horizon=6), 2, seed=0)
    timestep = play(env, 6)[6]
    assert timestep.terminated.all() and not timestep.truncated.any()


def test_streams_have_seeds_of_their_own_however_they_are_spread(faulty, opened):
    def noise(streams, seed, processes):
        env = opened(faulty("fine"), streams, seed=seed, processes=processes)
        return np.stack([timestep.observation[1] for timestep in play(env, 10)], axis=1)

    one, two = noise(4, 11, 1), noise(4, 11, 2)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[1:], noise(3, 12, 1))  # stream i takes seed + i
    assert not np.array_equal(one[0], one[1])


def test_timesteps_keep_their_arrays(faulty, opened):
    env = opened(faulty("fine"), 2, seed=0)
    timestep = env.reset()
    before = timestep.observation[1].copy()
    env.step(act(env, 0))
    np.testing.assert_array_equal(timestep.observation[1], before)


@pytest.mark.parametrize(
    "kind, counted",
    [
        ("raise", "exception"),
        ("die", "crash"),
        ("nan", "nan"),
        ("huge", "nan"),
        ("reward", "nan"),
        ("shape", "space"),
        ("range", "space"),
        ("wrap", "space"),
    ],
)
def test_a_fault_costs_an_episode_and_is_counted(kind, counted, faulty, opened, tmp_path):
    env = opened(faulty(kind, done=str(tmp_path / "done")), 2, seed=0, processes=1)
    timesteps = play(env, 12)
    # the planted step is no transition: the streams start anew, the lost episodes never end
    assert (
        timesteps[3].started.all() and not (timesteps[3].terminated | timesteps[3].truncated).any()
    )
    assert (timesteps[3].reward == 0).all() and (timesteps[3].observation[0] == 0).all()
    assert timesteps[9].terminated.all()
    assert env.fault_kinds == {counted: 1} and env.faults == 1


def test_a_hang_is_ended_by_the_deadline(faulty, opened, tmp_path):
    spec = replace(faulty("hang", done=str(tmp_path / "done")), step_seconds=1.0)
    env = opened(spec, 1, seed=0)
    assert play(env, 3)[3].started.all()
    assert env.fault_kinds == {"hang": 1}


def test_a_worker_that_grows_is_restarted(faulty, opened, tmp_path):
    spec = replace(faulty("leak", done=str(tmp_path / "done")), memory_gb=0.25)
    env = opened(spec, 1, seed=0)
    assert play(env, 3)[3].started.all()
    assert env.fault_kinds == {"leak": 1}


def test_the_other_worker_goes_on(faulty, opened, tmp_path):
    env = opened(faulty("raise", done=str(tmp_path / "done")), 2, seed=0, processes=2)
    timestep = play(env, 3)[3]
    assert timestep.started.sum() == 1
    assert sorted(timestep.observation[0].tolist()) == [0, 3]


def test_after_a_restart_the_seeds_are_fresh_and_repeatable(faulty, opened, tmp_path):
    def noise(name):
        env = opened(faulty("raise", done=str(tmp_path / name)), 2, seed=7)
        return np.stack([timestep.observation[1] for timestep in play(env, 5)])

    first, again = noise("a"), noise("b")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[3])  # not the same episode once more


@pytest.mark.parametrize(
    "kind, words",
    [
        ("raise", "the fault we planted"),
        ("die", "exit 7"),
        ("nan", "NaN"),
        ("shape", r"expected shape \(2,\), got \(3,\)"),
        ("range", r"7 is outside 0\.\.6"),
    ],
)
def test_repeated_faults_end_in_quarantine(kind, words, faulty, opened):
    env = opened(faulty(kind), 1, seed=0)
    with pytest.raises(Quarantined, match=words) as caught:
        play(env, 20)
    assert f"faulty/{kind}" in str(caught.value)
    assert env.faults == 3 and caught.value.faults == dict(env.fault_kinds)
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes out of a job
    assert (str(again), again.faults) == (str(caught.value), caught.value.faults)


def test_other_spaces_after_a_restart_end_in_quarantine(faulty, opened, tmp_path):
    env = opened(faulty("changed", done=str(tmp_path / "done")), 1, seed=0)
    with pytest.raises(Quarantined, match=r"other spaces after:(.|\n)*the fault we planted"):
        play(env, 3)


def test_what_a_dead_worker_printed_is_in_the_error(faulty, opened):
    with pytest.raises(LdmError, match="last words"):
        play(opened(faulty("die"), 1, seed=0), 20)


def test_what_cannot_be_built_says_why(faulty):
    with pytest.raises(LdmError, match="no such simulator"):
        make(faulty("unbuildable"), 1, seed=0)


@pytest.mark.parametrize("kind", ["child", "daemon"])
def test_what_the_environment_started_dies_with_it(kind, faulty, opened, tmp_path):
    pids = tmp_path / "pids"
    env = opened(faulty(kind, done=str(tmp_path / "done"), pids=str(pids)), 1, seed=0)
    play(env, 4)
    assert int(pids.read_text()) in marked(env.marks[0])
    env.close()
    assert not marked(env.marks[0])


def test_a_process_is_found_while_it_is_being_executed():
    """Between exec and its variables /proc shows none: 1 start in 50, read at once."""
    environment = os.environ | {MARK: "being executed"}
    for _ in range(300):
        with subprocess.Popen(["sleep", "1000"], env=environment) as child:
            found = variables_of(Path(f"/proc/{child.pid}"))
            child.kill()
        assert f"{MARK}=being executed".encode() in found.split(b"\0")


def test_a_process_without_variables_has_none():
    with subprocess.Popen(["sleep", "1000"], env={}) as child:
        found = variables_of(Path(f"/proc/{child.pid}"))
        child.kill()
    assert found == b""


def test_an_orphan_is_killed_and_counted(faulty, opened, tmp_path):
    pids = tmp_path / "pids"
    env = opened(faulty("orphan", done=str(tmp_path / "done"), pids=str(pids)), 1, seed=0)
    assert play(env, 3)[3].started.all()
    assert env.fault_kinds == {"orphan": 1}
    assert int(pids.read_text()) not in marked(env.marks[0])


def test_a_child_that_holds_the_socket_does_not_hide_a_dead_worker(faulty, opened, tmp_path):
    env = opened(faulty("fork", done=str(tmp_path / "done")), 1, seed=0)
    assert play(env, 3)[3].started.all()
    assert env.fault_kinds == {"orphan": 1}  # and no hang


def test_a_forgotten_environment_is_cleaned_up(faulty):
    env = make(faulty("fine"), 1, seed=0)
    (mark,) = env.marks
    del env
    gc.collect()
    wait_until_gone(mark)


def wait_until_gone(mark: str) -> None:
    while marked(mark):
        time.sleep(0.01)


@pytest.mark.parametrize(
    "kind, sign",
    [("fine", signal.SIGKILL), ("daemon", signal.SIGKILL), ("hang", signal.SIGINT)],
)
def test_a_parent_that_is_stopped_leaves_no_worker(kind, sign, faulty, tmp_path):
    """Killed while it waits for us, interrupted (Ctrl-C) while it waits for a hanging worker."""
    script = (
        "import sys, numpy as np\n"
        "from ldm.envs.spec import EnvSpec\n"
        "from ldm.envs.worker_backend import WorkerEnv\n"
        f"env = WorkerEnv({faulty(kind, pids=str(tmp_path / 'pids'))!r}, 1, 0)\n"
        "env.reset()\n"
        "print(env.marks[0], flush=True)\n"
        "for _ in range(3): env.step([np.zeros(1, np.int32)])\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    mark = parent.stdout.readline().strip()
    time.sleep(0.3)
    assert marked(mark)
    parent.send_signal(sign)
    _, printed = parent.communicate()
    wait_until_gone(mark)
    assert ("KeyboardInterrupt" in printed) == (sign == signal.SIGINT)


def test_a_closed_environment_refuses_to_step(faulty, opened):
    env = opened(faulty("fine"), 1, seed=0)
    env.reset()
    assert len(env.pids) == 1
    env.close()
    env.close()
    assert env.pids == []
    with pytest.raises(RuntimeError, match="closed"):
        env.step(act(env, 0))


def test_a_wrong_action_is_refused_and_harms_nothing(faulty, opened):
    env = opened(faulty("fine"), 2, seed=0)
    env.reset()
    with pytest.raises(ValueError, match=r"3 is outside 0\.\.2"):
        env.step([np.array([0, 3])])
    with pytest.raises(ValueError, match="expected"):
        env.step([np.zeros((2, 1), np.int32)])
    assert (env.step(act(env, 1)).observation[0] == 1).all()


def test_hosted_expert(faulty, opened):
    env = opened(faulty("fine"), 2, seed=0, expert="echo")
    timesteps = play(env, 8)
    for timestep in timesteps:
        if not timestep.terminated.any():
            assert (timestep.expert[0] == timestep.observation[0] % 3).all()
    assert opened(faulty("fine"), 1, seed=0).reset().expert is None


def test_an_expert_that_gives_up_truncates_its_episode(faulty, opened, tmp_path):
    env = opened(faulty("lost", done=str(tmp_path / "done")), 1, seed=0, expert="echo")
    timesteps = play(env, 4)
    assert timesteps[3].truncated.all() and timesteps[4].started.all()
    assert env.faults == 0


def test_an_expert_that_never_works_is_an_error(faulty):
    env = make(faulty("fine"), 1, seed=0, expert="hopeless")
    with pytest.raises(LdmError, match="division by zero"):
        env.reset()
    with pytest.raises(LdmError, match='no expert "nobody", it has'):
        make(faulty("fine"), 1, seed=0, expert="nobody")


def test_random_actions_pass_through(faulty, opened):
    env = opened(faulty("fine"), 4, seed=0)
    actor = RandomActor(env.action, 0)
    timestep = env.reset()
    for _ in range(5):
        action = actor.act(timestep)
        timestep = env.step(action)
        np.testing.assert_array_equal(timestep.reward, action[0])
