"""simglucose: insulin for a patient of the UVA/Padova simulator, three minutes a step.

A reset draws meals, sensor noise and the hour of the day. The action is the basal insulin rate, the
observation the sensor's glucose reading; the reward is the fall of Magni's risk index.
"""

import gymnasium
import numpy as np
from simglucose.envs.simglucose_gym_env import T1DSimEnv

MAX_GLUCOSE = 1000.0  # mg/dl


def build(make: str, split: str):
    """`make`: a patient, "adult#001"."""
    return Patient(make)


class Patient(gymnasium.Env):
    def __init__(self, name: str):
        self.name = name
        self.env = T1DSimEnv(patient_name=name, seed=0)
        self.observation_space = gymnasium.spaces.Box(0, MAX_GLUCOSE, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(0, float(self.env.max_basal), (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.env = T1DSimEnv(patient_name=self.name, seed=seed)
        glucose = self.env._reset()  # meals, sensor and patient anew
        return np.array([glucose.CGM], np.float32), {}

    def step(self, action):
        glucose, reward, done, info = self.env._step(float(action[0]))
        return np.array([glucose.CGM], np.float32), float(reward), bool(done), False, info
