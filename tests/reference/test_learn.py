import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stable_baselines3.common.logger import Logger

from ldm.config import ReferenceConfig
from ldm.envs import spaces
from ldm.envs.catalogue import find
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.errors import LdmError
from ldm.reference.algorithms import candidates, export, normalised
from ldm.reference.flat import Flattener, class_counts, raw_vector
from ldm.reference.learn import fit_flattener, learn
from ldm.reference.network import NetworkActor, load_network
from ldm.reference.sb3_env import Numbers, SB3Env
from ldm.reference.stopwatch import IDLE, stopwatch
from ldm.reference.zoo import LARGEST

BUDGET = ReferenceConfig(budget_steps=10_000, budget_seconds=600.0)


def timestep(observation):
    n = len(observation[0])
    return TimeStep(observation, [], np.zeros(n), *(np.zeros(n, bool) for _ in range(3)))


def test_a_learnt_policy_beats_random_and_loads_back_to_the_same_actions(tmp_path):
    spec = find("envpool/CartPole-v1")
    actor, _ = learn(spec, BUDGET, 0, tmp_path)
    actor.save(tmp_path / "policy.safetensors")
    again = load_network(tmp_path / "policy.safetensors")
    env = make(spec, 16, 1)
    assert returns(env, again, 16).mean() > 2 * returns(env, RandomActor(env.action, 0), 16).mean()
    env.close()
    states = [np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)]
    assert again.id == actor.id
    np.testing.assert_array_equal(again.act(timestep(states))[0], actor.act(timestep(states))[0])


def test_the_same_seed_and_steps_give_the_same_weights(tmp_path):
    config = ReferenceConfig(budget_steps=1000, budget_seconds=600.0)
    for name in "ab":
        actor, _ = learn(find("envpool/Catch-v0"), config, 7, tmp_path / f"search-{name}")
        actor.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_learners_leave_no_logs_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = ReferenceConfig(budget_steps=1000, budget_seconds=600.0)
    learn(find("envpool/Catch-v0"), config, 0, tmp_path / "search")
    assert not list(tmp_path.glob("SB3*"))


@pytest.mark.parametrize(
    "id", ["envpool/CartPole-v1", "envpool/Pendulum-v1", "envpool/BigfishEasy-v0"]
)
def test_every_candidate_exports_the_policy_it_has(id):
    env = make(find(id), 4, 0)
    flattener = fit_flattener(env, 0)
    observation = env.reset().observation
    for name, build in candidates(flattener).items():
        model = build(normalised(SB3Env(env, flattener), 100), 100, 0)
        model.env.reset()
        model.env.step(model.action_space.sample()[None].repeat(4, 0))  # which moves its statistics
        exported = export(name, model).act(timestep(observation))
        seen = model.env.normalize_obs(raw_vector(env.observation, observation))
        chosen, _ = model.predict(seen, deterministic=True)
        expected = flattener.arrays(chosen.reshape(4, -1))
        np.testing.assert_allclose(exported[0], expected[0], atol=1e-5, err_msg=name)
    env.close()


BUSY = """
import time
input()
begin = time.process_time()
while time.process_time() < begin + 0.5: pass
print(flush=True)
input()
"""


def test_a_budget_counts_what_workers_compute_while_they_run_and_after():
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        spent = stopwatch(SimpleNamespace(pids=[worker.pid]))
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        worker.stdout.readline()
        running = spent()
        assert running > 0.45  # of half a second, counted in ticks of 10 ms
        worker.stdin.write(b"\n")
    assert spent() >= running


def test_a_budget_counts_the_clock_only_where_an_environment_waits(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    spent = stopwatch()
    before = spent()
    now += 100
    assert spent() - before == pytest.approx(100 / IDLE, abs=0.5)


def small_actor(**changes) -> NetworkActor:
    """Two numbers in, one of three classes out."""
    observation, action = spaces.numbers("", (2,)), spaces.symbols("", (), 3)
    flattener = Flattener(observation, action, np.zeros(2, np.float32), np.ones(2, np.float32))
    layers = [(torch.ones(4, 2), torch.zeros(4)), (torch.ones(3, 4), torch.zeros(3))]
    parts = {"flattener": flattener, "layers": layers, "activation": "tanh", "head": "classes"}
    return NetworkActor(**{"id": "learnt/x@1", "counts": [3], **parts, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"activation": "exec"}, "activation exec"),
        ({"head": "numbers"}, "head numbers"),
        ({"counts": [2]}, "class counts"),
        ({"layers": [(torch.ones(3, 5), torch.zeros(3))]}, "do not lead from 2 numbers to 3"),
        ({"layers": [(torch.full((3, 2), torch.nan), torch.zeros(3))]}, "not finite"),
        ({"layers": []}, "0 layers"),
    ],
)
def test_a_policy_file_that_could_not_act_is_refused(tmp_path, changes, problem):
    path = tmp_path / "policy.safetensors"
    digest = small_actor(**changes).save(path)
    if not problem:
        assert load_network(path).id == "learnt/x@1" and len(digest) == 64
        return
    with pytest.raises(LdmError, match=problem):
        load_network(path)


def test_a_damaged_policy_file_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    with pytest.raises(LdmError, match="no reference policy"):
        load_network(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(LdmError, match="no reference policy"):
        load_network(path)


def test_the_step_into_a_new_episode_earns_nothing_and_is_not_done():
    env = make(find("envpool/Catch-v0"), 2, 0)
    wrapped = SB3Env(env, fit_flattener(env, 0))
    wrapped.reset()
    for _ in range(9):
        _, reward, done, infos = wrapped.step(np.ones(2))
    assert done.all() and (reward != 0).all()
    assert infos[0]["terminal_observation"].shape == (50,)
    _, reward, done, infos = wrapped.step(np.ones(2))
    assert not done.any() and not reward.any() and infos == [{}, {}]
    wrapped.close()


def test_vectors_of_mixed_observations():
    observation = {
        "number": spaces.numbers("number", (2,)),
        "symbol": spaces.symbols("symbol", (), 3, start=5),
        "many": spaces.symbols("many", (), 101),
        "image": spaces.Leaf("image", spaces.IMAGE, (32, 32, 1), "Box"),
    }
    numbers = np.array([[1, 10], [3, 30]], np.float32)
    image = np.zeros((2, 32, 32, 1), np.uint8)
    image[0, :2, :2] = 255
    sample = [numbers, np.array([5, 7]), np.array([0, 100]), image]
    flattener = Flattener.fit(observation, spaces.symbols("", (), 2), [sample])
    vector = flattener.vector(sample)
    assert vector.shape == (2, 2 + 3 + 1 + 1024) and vector.dtype == np.float32
    np.testing.assert_allclose(vector[:, :2], [[-1, -1], [1, 1]])
    np.testing.assert_allclose(vector[:, 2:5], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(vector[:, 5], [-1, 1])
    np.testing.assert_allclose(vector[0, 6:9], [1, 1, -1])
    assert flattener.image == (6, (32, 32, 1))
    small = replace(flattener, side=16, mean=flattener.mean[:262], std=flattener.std[:262])
    np.testing.assert_allclose(small.vector(sample)[0, 6:8], [1, -1])
    assert small.image == (6, (16, 16, 1))


def test_choices_become_actions_of_the_space():
    tree = [spaces.symbols("a", (2,), [3, 4], start=[1, 0]), spaces.symbols("b", (), 2)]
    flattener = Flattener(spaces.numbers("", (1,)), tree, np.zeros(1), np.ones(1))
    pair, single = flattener.arrays(np.array([[2, 3, 1]]))
    assert pair.tolist() == [[3, 3]] and single.tolist() == [1] and pair.dtype == np.int32
    box = spaces.numbers("", (2,), [-2, 0], [2, 10])
    flattener = Flattener(spaces.numbers("", (1,)), box, np.zeros(1), np.ones(1))
    assert flattener.arrays(np.array([[-1.0, 0.0], [5.0, 1.0]]))[0].tolist() == [[-2, 5], [2, 10]]
    with pytest.raises(LdmError, match="kinds"):
        class_counts([box, tree[1]])


def test_what_standardises_follows_what_is_seen_but_leaves_symbols_alone():
    tree = {"n": spaces.numbers("n", (1,)), "s": spaces.symbols("s", (), 2)}
    sample = [np.array([[0.0], [2.0]], np.float32), np.array([0, 1])]
    flattener = Flattener.fit(tree, spaces.symbols("", (), 2), [sample])
    statistics = Numbers(flattener)
    far = np.tile(np.array([[50.0, 1.0, 0.0]], np.float32), (9000, 1))
    statistics.update(far)
    np.testing.assert_allclose(statistics.mean, [45.1, 0, 0], atol=0.01)
    np.testing.assert_array_equal(statistics.var[1:], [1, 1])


def built(name, env, horizon):
    flattener = fit_flattener(env, 0)
    model = candidates(flattener)[name](normalised(SB3Env(env, flattener), horizon), horizon, 0)
    model.set_logger(Logger(None, []))
    return model


def test_the_members_of_a_population_act_side_by_side_as_each_would_alone():
    env = make(find("envpool/Pendulum-v1"), 4, 0)
    model = built("ars", env, 200)
    weights = torch.randn(4, model.n_params)
    state = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    together = model._act(model._members(weights), state)
    for index in range(4):
        model.policy.load_from_vector(weights[index].numpy())
        alone, _ = model.policy.predict(state[index], deterministic=True)
        np.testing.assert_allclose(together[index], alone.clip(-1, 1), atol=1e-5)
    env.close()


def test_members_play_longer_stretches_in_every_call_and_where_they_earned_alike():
    env = make(find("envpool/Catch-v0"), 8, 0)
    model = built("ars", env, 1000)
    assert model.limit == 250
    model.limit = 2  # Catch pays at its ninth step only
    model.learn(1)
    assert model.limit == 4
    model.learn(1, reset_num_timesteps=False)
    assert model.limit == 16
    for _ in range(100):
        model.play_longer()
    assert model.limit == 1000  # no episode is longer
    env.close()


def test_a_policy_that_sees_images_loads_back_to_the_same_actions(tmp_path):
    env = make(find("envpool/BigfishEasy-v0"), 4, 0)
    actor = export("ppo", built("ppo", env, 1000))
    actor.save(path := tmp_path / "policy.safetensors")
    assert len(actor.convolutions) == 2 and path.stat().st_size < LARGEST
    again, step = load_network(path), env.reset()
    np.testing.assert_array_equal(again.act(step)[0], actor.act(step)[0])
    actor.convolutions.reverse()
    actor.save(path)
    with pytest.raises(LdmError, match="do not fit the image"):
        load_network(path)
    env.close()
