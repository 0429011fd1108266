"""gym-electric-motor: voltage control of electric drives, the library's own ids.

The library's environments have no horizon; the runner's limit ends an episode. Its observation is
Tuple(state, reference), both in shares of their limits.
"""

import warnings

import gymnasium
import numpy as np

# Phase quantities pass their limit for a step before the limit ends an episode.
SWING = 2.0


def build(make: str, split: str, angle: bool = False):
    """`make`: an id of the library ("Cont-CC-PMSM-v0"). `angle` puts the cosine and sine of the
    rotor's angle, which the voltages turn with, behind the state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gym_electric_motor as gem

        env = gem.make(make)
    return Drive(env, angle)


class Drive(gymnasium.Wrapper):
    """float32 observations, plain rewards, and an angle as a point on the circle."""

    def __init__(self, env, angle: bool):
        super().__init__(env)
        self.draws: np.random.Generator | None = None
        _, reference = env.observation_space
        names = list(env.unwrapped.physical_system.state_names)
        self.angle = names.index("epsilon") if angle else None
        size = len(names) + (2 if angle else 0)
        self.observation_space = gymnasium.spaces.Tuple(
            (
                gymnasium.spaces.Box(-SWING, SWING, (size,)),
                gymnasium.spaces.Box(-1, 1, reference.shape),
            )
        )

    def reset(self, *, seed=None, options=None):
        if seed is not None or self.draws is None:
            self.draws = np.random.default_rng(seed)
        # Without a seed the library starts from fresh entropy.
        observation, info = self.env.reset(seed=int(self.draws.integers(2**31)))
        return self._observe(observation), info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), float(reward), bool(terminated), bool(truncated), info

    def _observe(self, observation):
        state, reference = observation
        if self.angle is not None:
            epsilon = np.pi * state[self.angle]
            state = np.append(state, (np.cos(epsilon), np.sin(epsilon)))
        return np.float32(state), np.float32(reference)
