"""The learners that references are chosen from, and how to take their policy out of them."""

from collections.abc import Callable

import torch
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from torch import nn

from ldm.reference.flat import Flattener, class_counts
from ldm.reference.network import NetworkActor
from ldm.reference.sb3_env import SB3Env

Build = Callable[[SB3Env, int, int], BaseAlgorithm]  # (environment, horizon, seed) -> model


def candidates(counts: list[int] | None) -> dict[str, Build]:
    """The algorithms for an action space: continuous (None), one discrete component, or several."""
    if counts is None:
        return {"ppo": ppo(128), "sac": off_policy(SAC), "tqc": off_policy(TQC), "td3": td3}
    if len(counts) > 1:
        return {"ppo": ppo(128), "ppo-long": ppo(512)}
    return {
        "ppo": ppo(128),
        "ppo-long": ppo(512),
        "dqn": value_based(DQN),
        "qrdqn": value_based(QRDQN),
    }


def discount(horizon: int) -> float:
    """Long horizons count further ahead, within what is stable to learn."""
    return float(min(max(1 - 2 / horizon, 0.9), 0.995))


def ppo(rollout: int) -> Build:
    """`rollout`: steps a stream between updates; only few epochs and large batches, for speed."""

    def build(env, horizon, seed):
        batch = rollout * env.num_envs // 8
        return PPO(
            "MlpPolicy", env, n_steps=rollout, batch_size=batch, n_epochs=10, ent_coef=0.003,
            learning_rate=1e-3, gamma=discount(horizon), seed=seed, device="cpu",
        )  # fmt: skip

    return build


def off_policy(algorithm, **arguments) -> Build:
    def build(env, horizon, seed):
        return algorithm(
            "MlpPolicy", env, learning_rate=1e-3, buffer_size=200_000, learning_starts=1000,
            batch_size=128, train_freq=1, gradient_steps=8, gamma=discount(horizon), seed=seed,
            device="cpu", policy_kwargs={"net_arch": [128, 128]}, **arguments,
        )  # fmt: skip

    return build


def td3(env, horizon, seed):
    size = env.action_space.shape
    noise = NormalActionNoise(torch.zeros(size).numpy(), torch.full(size, 0.1).numpy())
    return off_policy(TD3, action_noise=noise)(env, horizon, seed)


def value_based(algorithm) -> Build:
    def build(env, horizon, seed):
        return algorithm(
            "MlpPolicy", env, learning_rate=5e-4, buffer_size=100_000, learning_starts=1000,
            batch_size=128, train_freq=1, gradient_steps=2, target_update_interval=1000,
            exploration_fraction=0.3, gamma=discount(horizon), seed=seed, device="cpu",
        )  # fmt: skip

    return build


def export(name: str, model: BaseAlgorithm, flattener: Flattener) -> NetworkActor:
    """The model's deterministic policy as it is now, on its own copy of the weights."""
    quantiles = 1
    if isinstance(model, PPO):
        layers = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
        head = "numbers" if class_counts(flattener.action) is None else "classes"
    elif isinstance(model, QRDQN):
        layers, head = [*model.policy.quantile_net.quantile_net], "quantiles"
        quantiles = model.policy.n_quantiles
    elif isinstance(model, DQN):
        layers, head = [*model.policy.q_net.q_net], "classes"
    elif isinstance(model, TD3):
        layers, head = [*model.policy.actor.mu], "tanh"
    elif isinstance(model, SAC | TQC):
        layers, head = [*model.actor.latent_pi, model.actor.mu], "tanh"
    else:
        raise TypeError(f"no way to export a {type(model).__name__}")
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return NetworkActor(
        id=f"learnt/{name}@1",
        flattener=flattener,
        layers=[(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in linear],
        activation="tanh" if any(isinstance(layer, nn.Tanh) for layer in layers[:-1]) else "relu",
        head=head,
        counts=class_counts(flattener.action) or [],
        quantiles=quantiles,
    )
