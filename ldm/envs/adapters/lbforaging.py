"""Level-based foraging with all players in one hand: their actions together, the sum of rewards."""

import warnings

import gymnasium
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lbforaging  # noqa: F401 (registers its environments)


def build(make: str, split: str, **options):
    return Together(gymnasium.make(make, disable_env_checker=True, **options).unwrapped)


class Together(gymnasium.Wrapper):
    def step(self, action):
        observation, rewards, terminated, truncated, info = self.env.step(action)
        reward = float(np.asarray(rewards).sum())
        return observation, reward, bool(terminated), bool(truncated), info
