"""Our VectorEnv as a stable-baselines3 VecEnv, and what standardises what its learners see."""

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from ldm.envs.interface import VectorEnv
from ldm.envs.spaces import leaves
from ldm.reference.flat import CLIP, SMALLEST, Flattener, class_counts, raw_vector


class SB3Env(VecEnv):
    """Vectors that nothing has standardised in, class indices or numbers in [-1, 1] out.

    Ours resets on the step after the last one, so each episode gives the learner one more step,
    from its final observation to the first of the next episode, with no reward: one that no return
    passes through, because the step before it is `done`.

    flattener: fitted to random actions; learners start from its mean and deviation. curve: steps
    that were taken when an episode ended, and its return.
    """

    def __init__(self, env: VectorEnv, flattener: Flattener):
        self.env, self.flattener = env, flattener
        self.curve: list[tuple[int, float]] = []
        self.steps = 0
        self._returns = np.zeros(env.num_envs)
        size = len(flattener.mean)
        counts = class_counts(env.action)
        action: gymnasium.Space
        if counts is None:
            components = sum(leaf.size for leaf in leaves(env.action))
            action = gymnasium.spaces.Box(-1, 1, (components,), np.float32)
        elif len(counts) == 1:
            action = gymnasium.spaces.Discrete(counts[0])
        else:
            action = gymnasium.spaces.MultiDiscrete(counts)
        observation = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        super().__init__(env.num_envs, observation, action)

    def reset(self) -> np.ndarray:
        self._returns[:] = 0
        return raw_vector(self.env.observation, self.env.reset().observation)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions).reshape(self.num_envs, -1)

    def step_wait(self):
        timestep = self.env.step(self.flattener.arrays(self._actions))
        vector = raw_vector(self.env.observation, timestep.observation)
        done = timestep.terminated | timestep.truncated
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            cut = bool(timestep.truncated[i] and not timestep.terminated[i])
            infos[i] = {"terminal_observation": vector[i].copy(), "TimeLimit.truncated": cut}
        self._note(timestep.reward, timestep.started, done)
        return vector, timestep.reward.astype(np.float32), done, infos

    def _note(self, reward: np.ndarray, started: np.ndarray, done: np.ndarray) -> None:
        self.steps += self.num_envs
        self._returns = np.where(started, 0.0, self._returns + reward)
        self.curve += [(self.steps, float(total)) for total in self._returns[done]]

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name, indices=None):
        value = getattr(self.env, attr_name, None)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError("the environments behind a VectorEnv have no attributes")

    def env_method(self, method_name, *arguments, indices=None, **keywords):
        raise NotImplementedError("the environments behind a VectorEnv have no methods")

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False for _ in self._get_indices(indices)]


class Normalised(VecNormalize):
    """An SB3Env whose observations and rewards are standardised by what was seen so far: numbers by
    their mean and deviation, symbols and pixels not at all, rewards by the deviation of the
    discounted return. `flattener()` does the same to what the exported policy sees."""

    def __init__(self, env: SB3Env, gamma: float):
        super().__init__(env, gamma=gamma, clip_obs=CLIP, epsilon=SMALLEST**2)
        self.source = env
        self.numbers = Numbers(env.flattener)
        self.obs_rms: Any = self.numbers  # under the name that the base class reads

    def flattener(self) -> Flattener:
        mean, std = self.numbers.mean, np.sqrt(self.numbers.var + self.epsilon)
        return self.source.flattener.with_statistics(mean, std)

    def statistics(self) -> dict[str, np.ndarray]:
        """All that it has learnt, float64."""
        return {
            f"{kind} {name}": np.asarray(getattr(rms, name), np.float64)
            for kind, rms in self._kinds.items()
            for name in ("mean", "var", "count")
        }

    def restore(self, statistics: dict[str, np.ndarray]) -> None:
        """The inverse of `statistics`. Raises KeyError where one is missing."""
        for kind, rms in self._kinds.items():
            rms.mean, rms.var = statistics[f"{kind} mean"], statistics[f"{kind} var"]
            rms.count = float(statistics[f"{kind} count"])

    @property
    def _kinds(self) -> dict[str, RunningMeanStd]:
        return {"observation": self.numbers, "return": self.ret_rms}


class Numbers(RunningMeanStd):
    """Mean and variance of the numbers of a vector, from those of random actions on; 0 and 1 for
    all else."""

    def __init__(self, flattener: Flattener):
        super().__init__(shape=flattener.mean.shape)
        self.fixed = ~flattener.numeric
        self.update_from_moments(flattener.mean, flattener.std.astype(np.float64) ** 2, 1000)

    def update_from_moments(self, batch_mean, batch_var, batch_count) -> None:
        super().update_from_moments(batch_mean, batch_var, batch_count)
        self.mean[self.fixed], self.var[self.fixed] = 0, 1
