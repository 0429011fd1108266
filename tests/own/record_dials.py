"""Recordings of somebody at the dials, as plain arrays; no policy is left of them."""

import acme_envs  # noqa: F401 (it registers)
import gymnasium
import numpy as np

env, rng = gymnasium.make("acme/Dials-v0"), np.random.default_rng(0)
columns = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
for episode in range(300):
    observation, _ = env.reset(seed=episode)
    ended = False
    while not ended:
        action = np.array([observation[0], 3 - observation[1]])
        if rng.random() < 0.1:  # people err
            action = env.action_space.sample()
        shown, reward, terminated, truncated, _ = env.step(action)
        for name, value in zip(columns, (observation, action, reward, terminated, truncated)):
            columns[name].append(value)
        observation, ended = shown, terminated or truncated
np.savez("dials.npz", **{name: np.array(column) for name, column in columns.items()})
