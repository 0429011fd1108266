"""Other people's loops and `ldm evaluate` earn the same, seed by seed: numbers, an image in a Dict,
symbols (tests/own)."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import ldm
from ldm.config import EvaluateConfig, Recipe
from ldm.envs.catalogue import find
from ldm.evaluate import rollouts
from ldm.reference.admission import card_folder, write_card
from tests.evaluate.made_run import card, write_model

OWN = Path(__file__).parents[1] / "own"
IDS = [f"gym:acme_envs:acme/{name}-v0" for name in ("Lock", "Camera", "Dials")]
STREAMS, ROUNDS = 3, 2
EPISODES = STREAMS * ROUNDS


@pytest.fixture(scope="module", params=IDS)
def evaluated(request, tmp_path_factory):
    """(the model, its seed, what `ldm evaluate` found: (ROUNDS, STREAMS), Gymnasium's name)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(OWN)
        patch.setenv("PYTHONPATH", str(OWN), prepend=os.pathsep)
        yield evaluate(request.param, tmp_path_factory.mktemp("run"))


def evaluate(id: str, folder: Path) -> tuple:
    spec, model = find(id), folder / "train/model"
    (home := card_folder(spec, folder)).mkdir(parents=True)
    write_card(card(id, True), home / "card.json")
    write_model(model, 0, (id,))
    rollouts.pin(folder)
    settings = EvaluateConfig(episodes=EPISODES, streams=STREAMS)
    recipe = Recipe(name="own", environments=[id], workers=1, evaluate=settings)
    found: list[dict] = []
    rollouts.play(recipe, [spec], folder, STREAMS, found.append)
    returns = np.array(found[0]["returns"]).reshape(ROUNDS, STREAMS)
    import_module("acme_envs")  # registers its environments in this process
    return ldm.load(model), found[0]["seed"], returns, id.rpartition(":")[2]


def test_loops_of_gymnasium(evaluated):
    model, seed, expected, name = evaluated
    for stream in range(STREAMS):
        env = gymnasium.make(name)
        earned = np.array(list(alone(model.agent(env), env, seed + stream)))
        np.testing.assert_allclose(earned, expected[:, stream])


def alone(agent, env, seed: int) -> Iterator[float]:
    observation, _ = env.reset(seed=seed)
    for _ in range(ROUNDS):
        earned, ended = 0.0, False
        while not ended:
            observation, reward, *flags, _ = env.step(agent.act(observation))
            agent.observe(reward, *flags)
            earned, ended = earned + float(reward), any(flags)
        yield earned
        observation, _ = env.reset()


def test_a_loop_over_a_vector(evaluated):
    model, seed, expected, name = evaluated
    envs = gymnasium.make_vec(name, STREAMS, vectorization_mode="sync")
    agent = model.agent(envs)
    observation, _ = envs.reset(seed=seed)
    earned, begun = np.zeros((ROUNDS + 1, STREAMS)), np.zeros(STREAMS, int)
    ended = np.zeros(STREAMS, bool)
    while (begun < ROUNDS).any():
        observation, reward, terminated, truncated, _ = envs.step(agent.act(observation))
        agent.observe(reward, terminated, truncated)
        begun += ended  # the step after an end only begins an episode
        earned[begun, range(STREAMS)] += np.where(ended, 0, reward)
        ended = terminated | truncated
    np.testing.assert_allclose(earned[:ROUNDS], expected)


def test_stable_baselines3_s_evaluate_policy(evaluated):
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    from stable_baselines3.common.vec_env import DummyVecEnv

    model, seed, expected, name = evaluated
    envs = DummyVecEnv([lambda: gymnasium.make(name)] * STREAMS)
    envs.seed(seed)
    agent = model.agent(envs)
    earned, _ = evaluation.evaluate_policy(
        agent, envs, n_eval_episodes=EPISODES, callback=agent.callback, warn=False,
        return_episode_rewards=True,
    )  # fmt: skip
    np.testing.assert_allclose(np.reshape(earned, (ROUNDS, STREAMS)), expected, rtol=1e-6)
