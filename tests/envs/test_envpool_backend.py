from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ldm.envs import catalogue, envpool_backend, spaces
from ldm.envs.envpool_backend import MAX_FAULTS
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor
from ldm.errors import LdmError

envpool = pytest.importorskip("envpool")
CARTPOLE = "envpool/CartPole-v1"


def play(env, steps, seed=0):
    actor = RandomActor(env.action, seed)
    timesteps = [env.reset()]
    for _ in range(steps):
        timesteps.append(env.step(actor.act(timesteps[-1])))
    return timesteps


def one_step_on(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether CartPole's position moved by velocity × 0.02 s, per row."""
    return np.abs(after[:, 0] - before[:, 0] - 0.02 * before[:, 1]) < 1e-6


def require_real_transitions(timesteps):
    """Every row is either a first observation or one step of the dynamics from the row before."""
    for before, after in pairwise(timesteps):
        moved = one_step_on(before.observation[0], after.observation[0])
        assert (moved | after.started).all()
        assert not (moved & after.started).any()
        assert (after.started == (before.terminated | before.truncated)).all()
        assert (after.reward == np.where(after.started, 0, 1)).all()


def test_autoreset_rows_are_marked():
    env = make(CARTPOLE, 8, seed=1)
    timesteps = play(env, 150)
    assert sum(t.terminated.sum() for t in timesteps) > 20
    require_real_transitions(timesteps)
    env.close()


def test_horizon_is_enforced_without_envpool_knowing():
    env = make(replace(catalogue.find(CARTPOLE), horizon=12), 8, seed=1)
    timesteps = play(env, 150)
    require_real_transitions(timesteps)
    length, lengths = np.zeros(8, int), []
    for timestep in timesteps:
        length = np.where(timestep.started, 0, length + 1)
        assert (timestep.truncated <= (length == 12)).all()
        assert not (timestep.truncated & timestep.terminated).any()
        lengths += length[timestep.terminated | timestep.truncated].tolist()
    assert max(lengths) == 12 and min(lengths) < 12
    env.close()


def test_reset_starts_every_stream_anew_whatever_it_was_doing():
    env = make(replace(catalogue.find(CARTPOLE), horizon=12), 8, seed=1)
    for steps in (5, 11, 12, 13):
        timesteps = play(env, steps)
        assert timesteps[0].started.all() and (np.abs(timesteps[0].observation[0]) <= 0.05).all()
        require_real_transitions(timesteps)
    env.close()


def test_a_seed_is_a_trajectory_and_streams_count_up_from_it():
    def observations(streams, seed):
        env = make(CARTPOLE, streams, seed=seed)
        actions = np.random.default_rng(0).integers(0, 2, (60, 1)).repeat(streams, 1)
        rows = [env.reset().observation[0]] + [env.step([a]).observation[0] for a in actions]
        env.close()
        return np.stack(rows, axis=1)

    first = observations(4, 5)
    np.testing.assert_array_equal(first, observations(4, 5))
    np.testing.assert_array_equal(first[1:], observations(3, 6))
    assert not np.array_equal(first, observations(4, 9))
    make(CARTPOLE, 2, seed=2**31 - 1).close()


def test_cliffwalking_gets_the_horizon_it_lacks():
    env = make("envpool/CliffWalking-v1", 4, seed=0)
    timesteps = play(env, 205)
    assert timesteps[200].truncated.all() and timesteps[201].started.all()
    env.close()


def test_minigrid_shows_text_and_symbols():
    env = make("envpool/MiniGrid-GoToDoor-5x5-v0", 4, seed=0)
    timestep = play(env, 30)[-1]
    kinds = {leaf.path: leaf.kind for leaf in spaces.leaves(env.observation)}
    assert kinds == {"direction": "discrete", "image": "discrete", "mission": "text"}
    words = bytes(timestep.observation[2][0]).rstrip(b"\0").decode()
    assert words.startswith("go to ")
    assert env.faults == 0
    env.close()


def test_nested_observations_and_images():
    env = make("envpool/Maze-v0", 2, seed=0)
    paths = [leaf.path for leaf in spaces.leaves(env.observation)]
    assert {"agent_position/row", "target_position/col", "walls"} <= set(paths)
    play(env, 5)
    env.close()
    env = make("envpool/Pong-v5", 2, seed=0)
    assert env.reset().observation[0].shape == (2, 84, 84, 4)
    env.close()


def test_doubles_become_floats_and_actions_are_clipped():
    env = make("envpool/Reacher-v5", 2, seed=0)
    env.reset()
    timestep = env.step([np.array([[-9.0, 9.0], [0.5, 0.0]])])
    assert timestep.observation[0].dtype == np.float32 and timestep.reward.dtype == np.float64
    assert timestep.action[0].tolist() == [[-1, 1], [0.5, 0]]
    env.close()


def test_bad_values_cost_their_episode(monkeypatch):
    env = make(CARTPOLE, 3, seed=0)
    play(env, 3)
    seen = env._layout.observation
    monkeypatch.setattr(env._layout, "observation", lambda state: poisoned(seen(state), row=1))
    timestep = env.step([np.zeros(3, np.int32)])
    assert timestep.started.tolist() == [False, True, False] and env.faults == 1
    assert timestep.reward.tolist() == [1, 0, 1]
    monkeypatch.setattr(env._layout, "observation", lambda state: poisoned(seen(state), row=0))
    with pytest.raises(LdmError, match=rf"{CARTPOLE}.*{MAX_FAULTS + 1} episodes"):
        for _ in range(MAX_FAULTS + 1):
            env.step([np.zeros(3, np.int32)])
    env.close()


def poisoned(arrays, row):
    """A full batch with NaN in one row; what is reset afterwards is sound."""
    if len(arrays[0]) == 3:
        arrays = [array.copy() for array in arrays]
        arrays[0][row] = np.nan
    return arrays


@pytest.mark.parametrize("name", ["CartPole-v1", "Reacher-v5", "Maze-v0", "Catch-v0", "parking-v0"])
def test_rows_are_those_of_envpools_own_interface(name):
    spec = replace(catalogue.find(f"envpool/{name}"), horizon=10**6)
    env = make(spec, 3, seed=4)
    pool = envpool.make(spec.make, env_type="gymnasium", num_envs=3, seed=4, num_threads=1)
    timestep, theirs = env.reset(), (pool.reset()[0],)
    actor = RandomActor(env.action, 0)
    for _ in range(120):
        for array, leaf in zip(timestep.observation, spaces.leaves(env.observation), strict=True):
            value = theirs[0]
            for key in filter(None, leaf.path.split("/")):
                value = value[key]
            np.testing.assert_array_equal(array, value.astype(leaf.dtype).reshape(array.shape))
        action = actor.act(timestep)
        timestep = env.step(action)
        theirs = pool.step(action[0])
        np.testing.assert_array_equal(
            timestep.reward[~timestep.started], theirs[1][~timestep.started]
        )
        np.testing.assert_array_equal(timestep.terminated, theirs[2] & ~timestep.started)
        np.testing.assert_array_equal(timestep.truncated, theirs[3] & ~timestep.started)
        np.testing.assert_array_equal(timestep.started, theirs[4]["elapsed_step"] == 0)
    env.close()


@pytest.mark.parametrize("id", ["Snake-v1", "Tetris-v0", "Sokoban-v0", "SearchAndRescue-v0"])
def test_a_count_of_steps_never_leaves_its_space(id):
    """A policy that lives to the horizon is shown it."""
    env = make(f"envpool/{id}", 1, seed=0)
    try:
        counts = [leaf for leaf in spaces.leaves(env.observation) if "step" in leaf.path]
        assert len(counts) == 1 and counts[0].range[1] >= env.spec.horizon
    finally:
        env.close()


def test_what_was_handed_over_is_never_written_again():
    env = make("envpool/Pong-v5", 2, seed=0)
    timesteps = play(env, 40)
    copies = [timestep.observation[0].copy() for timestep in timesteps]
    play(env, 40)
    for timestep, copy in zip(timesteps, copies):
        np.testing.assert_array_equal(timestep.observation[0], copy)
    env.close()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"make": "CartPol-v1"}, 'no "CartPol-v1" .nearest: "CartPole-v1"'),
        ({"make": "TicTacToe-v1"}, "several players"),
        ({"leaves": {"mission": "text"}}, "leaves.*mission"),
    ],
)
def test_wrong_entries_of_the_catalogue(change, words):
    with pytest.raises(LdmError, match=words):
        make(replace(catalogue.find(CARTPOLE), **change), 2, seed=0)


def test_wrong_arguments():
    for arguments in ({"num_envs": 0}, {"split": "validation"}, {"expert": "bot"}):
        with pytest.raises(LdmError, match="CartPole"):
            make(CARTPOLE, **{"num_envs": 1, "seed": 0, **arguments})


def test_a_process_starts_its_first_game_of_vizdoom_alone(monkeypatch):
    made, real = [], envpool.make

    def noted(*arguments, **options):
        made.append(options["num_envs"])
        return real(*arguments, **options)

    monkeypatch.setattr(envpool, "make", noted)
    envpool_backend.first_game.cache_clear()
    for _ in range(2):
        make(catalogue.load(())["envpool/Basic-v1"], 2, 0).close()
    assert made == [1, 2, 2]
