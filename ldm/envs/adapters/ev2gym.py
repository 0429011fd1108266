"""EV2Gym: charge (and discharge) the cars that come and go at a site, 28 hours an episode.

Prices and loads replay 2022 in "train" and the first half of 2023 in "test", weekdays only; who
comes when is drawn. The library reads its data relative to the folder it is installed in.
"""

import datetime
import os
from pathlib import Path

import ev2gym
import gymnasium
import numpy as np
from ev2gym.models.ev2gym_env import EV2Gym
from ev2gym.rl_agent import reward as rewards
from ev2gym.rl_agent import state as states

DAYS = {"train": (datetime.datetime(2022, 1, 1), 360), "test": (datetime.datetime(2023, 1, 1), 180)}


def build(make: str, split: str, state: str, reward: str):
    """`make`: one of the library's example configurations, `state` and `reward` its functions."""
    home = Path(ev2gym.__file__).parent
    os.chdir(home.parent)
    env = EV2Gym(
        config_file=str(home / "example_config_files" / f"{make}.yaml"),
        state_function=getattr(states, state),
        reward_function=getattr(rewards, reward),
    )
    return Site(env, split)


class Site(gymnasium.Env):
    def __init__(self, env, split: str):
        self.env = env
        env.config["random_day"] = False
        self.first, self.days = DAYS[split]
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        day = self.first + datetime.timedelta(days=int(self.np_random.integers(self.days)))
        day -= datetime.timedelta(days=max(day.weekday() - 4, 0))  # of a weekend, its Friday
        config = self.env.config
        self.env.sim_starting_date = day.replace(hour=config["hour"], minute=config["minute"])
        observation, _ = self.env.reset(seed=int(self.np_random.integers(2**31 - 1)))
        return np.asarray(observation), {}

    def step(self, action):
        observation, reward, done, _, _ = self.env.step(action)
        return np.asarray(observation), float(reward), bool(done), False, {}
