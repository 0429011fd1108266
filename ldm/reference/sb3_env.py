"""Our VectorEnv as a stable-baselines3 VecEnv."""

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from ldm.envs.interface import VectorEnv
from ldm.envs.spaces import leaves
from ldm.reference.flat import Flattener, class_counts


class SB3Env(VecEnv):
    """Vectors in, class indices or numbers in [-1, 1] out.

    Ours resets on the step after the last one, so each episode gives the learner one more step,
    from its final observation to the first of the next episode, with no reward: one that no return
    passes through, because the step before it is `done`.
    """

    def __init__(self, env: VectorEnv, flattener: Flattener):
        self.env, self.flattener = env, flattener
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
        return self.flattener.vector(self.env.reset().observation)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions).reshape(self.num_envs, -1)

    def step_wait(self):
        timestep = self.env.step(self.flattener.arrays(self._actions))
        vector = self.flattener.vector(timestep.observation)
        done = timestep.terminated | timestep.truncated
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            cut = bool(timestep.truncated[i] and not timestep.terminated[i])
            infos[i] = {"terminal_observation": vector[i].copy(), "TimeLimit.truncated": cut}
        return vector, timestep.reward.astype(np.float32), done, infos

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
