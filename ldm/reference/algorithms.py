"""The learners that references are chosen from, and how to take their policy out of them."""

from collections.abc import Callable

import torch
from sb3_contrib import QRDQN
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from torch import nn

from ldm.reference.flat import Flattener, class_counts
from ldm.reference.network import Layer, NetworkActor
from ldm.reference.pixels import Pixels
from ldm.reference.population import PopulationARS
from ldm.reference.sb3_env import Normalised, SB3Env

Build = Callable[[Normalised, int, int], BaseAlgorithm]  # (environment, horizon, seed) -> model
BATCH = 2048  # transitions between two updates of PPO
QUANTILES = 50  # of QR-DQN: its loss compares all with all, and 200 left it a twelfth of the steps


def candidates(flattener: Flattener) -> dict[str, Build]:
    """The algorithms for these spaces: for an image those that need no store of frames; else for an
    action that is continuous, of one discrete component, or of several."""
    counts = class_counts(flattener.action)
    if flattener.image:
        return {"ppo": ppo(1), "ppo-long": ppo(4)}
    if counts is None:
        return {"ppo": ppo(1), "sac": off_policy(SAC), "td3": td3, "ars": ars}
    if len(counts) > 1:
        return {"ppo": ppo(1), "ppo-long": ppo(4)}
    return {"ppo": ppo(1), "ppo-long": ppo(4), "qrdqn": qrdqn, "ars": ars}


def normalised(env: SB3Env, horizon: int) -> Normalised:
    """What a learner trains in."""
    return Normalised(env, discount(horizon))


def discount(horizon: int) -> float:
    """Long horizons count further ahead, within what is stable to learn."""
    return float(min(max(1 - 2 / horizon, 0.9), 0.995))


def ppo(times: int) -> Build:
    """`times` BATCH transitions between updates; only few epochs and large batches, for speed."""

    def build(env, horizon, seed):
        image = env.source.flattener.image
        eyes = {"features_extractor_class": Pixels, "features_extractor_kwargs": {"image": image}}
        return PPO(
            "MlpPolicy", env, n_steps=times * BATCH // env.num_envs, batch_size=times * BATCH // 8,
            n_epochs=10, ent_coef=0.003, learning_rate=1e-3, gamma=env.gamma, seed=seed,
            policy_kwargs=eyes if image else {}, device="cpu",
        )  # fmt: skip

    return build


def off_policy(algorithm, **arguments) -> Build:
    def build(env, horizon, seed):
        return algorithm(
            "MlpPolicy", env, learning_rate=1e-3, buffer_size=200_000, learning_starts=1000,
            batch_size=128, train_freq=1, gradient_steps=env.num_envs // 2, gamma=env.gamma,
            seed=seed, device="cpu", policy_kwargs={"net_arch": [128, 128]}, **arguments,
        )  # fmt: skip

    return build


def td3(env, horizon, seed):
    size = env.action_space.shape
    noise = NormalActionNoise(torch.zeros(size).numpy(), torch.full(size, 0.1).numpy())
    return off_policy(TD3, action_noise=noise)(env, horizon, seed)


def qrdqn(env, horizon, seed):
    return QRDQN(
        "MlpPolicy", env, learning_rate=5e-4, buffer_size=100_000, learning_starts=1000,
        batch_size=128, train_freq=1, gradient_steps=env.num_envs // 8,
        target_update_interval=1000, exploration_fraction=0.3, gamma=env.gamma, seed=seed,
        policy_kwargs={"n_quantiles": QUANTILES}, device="cpu",
    )  # fmt: skip


def ars(env, horizon, seed):
    return PopulationARS(
        env, horizon, n_top=env.num_envs // 4, learning_rate=0.1, delta_std=0.1, seed=seed,
        policy_kwargs={"net_arch": [], "squash_output": False}, device="cpu",
    )  # fmt: skip


def source(model: BaseAlgorithm) -> Normalised:
    """What the model trains in."""
    assert isinstance(model.env, Normalised)
    return model.env


def export(name: str, model: BaseAlgorithm) -> NetworkActor:
    """The model's deterministic policy as it is now, on its own copy of the weights, with what
    standardises its observations."""
    flattener = source(model).flattener()
    numbers, quantiles = class_counts(flattener.action) is None, 1
    convolutions: list[Layer] = []
    if isinstance(model, PPO):
        layers = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
        if isinstance(eyes := model.policy.features_extractor, Pixels):
            convolutions = [(w.detach().clone(), b.detach().clone()) for w, b in eyes.layers()]
        head = "numbers" if numbers else "classes"
    elif isinstance(model, PopulationARS):
        layers = list(model.policy.get_submodule("action_net").children())
        head = "numbers" if numbers else "classes"
    elif isinstance(model, QRDQN):
        layers, head = [*model.policy.quantile_net.quantile_net], "quantiles"
        quantiles = model.policy.n_quantiles
    elif isinstance(model, TD3):
        layers, head = [*model.policy.actor.mu], "tanh"
    elif isinstance(model, SAC):
        layers, head = [*model.actor.latent_pi, model.actor.mu], "tanh"
    else:
        raise TypeError(f"no way to export a {type(model).__name__}")
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return NetworkActor(
        id=f"learnt/{name}@2",
        flattener=flattener,
        layers=[(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in linear],
        activation="tanh" if any(isinstance(layer, nn.Tanh) for layer in layers[:-1]) else "relu",
        head=head,
        counts=class_counts(flattener.action) or [],
        quantiles=quantiles,
        convolutions=convolutions,
    )
