"""Environments as their authors write them, for tests of the border: they keep what they get."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple


class Keeper(gymnasium.Env):
    """Pays the action-rate penalty of robot environments, from the last action that it kept."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.last = 0, np.zeros(2, np.float32)
        self.shown = np.zeros(2, np.float32)
        return self.shown, {}

    def step(self, action):
        penalty = float(np.square(action - self.last).sum())
        self.last = action
        self.time += 1
        self.shown[:] = action  # one observation array, written again and again
        return self.shown, -penalty, False, self.time >= 20, {}


class Forgetful(Keeper):
    """Keeps nothing: what it pays says nothing about its action later on."""

    def step(self, action):
        self.last = action.copy()
        return super().step(self.last)


class Scales(Keeper):
    """Writes into the action that it is given, as libraries do that scale it in place."""

    def step(self, action):
        action *= 0.5
        return super().step(action)


class Parts(Keeper):
    """The same for every kind of action at once, inside Dict and Tuple."""

    action_space = Dict(
        {
            "box": Box(-1, 1, (2,), np.float64),
            "nested": Tuple([MultiDiscrete([3, 4]), Discrete(5, start=10)]),
            "nothing": Dict({}),
        }
    )

    def reset(self, *, seed=None, options=None):
        self.kept = None
        return super().reset(seed=seed)

    def step(self, action):
        assert self.action_space.contains(action), action
        box, counts, choice = action["box"], *action["nested"]
        changes = 0.0
        if self.kept is not None:
            changes = np.abs(box - self.kept[0]).sum() + np.abs(counts - self.kept[1]).sum()
        self.kept = box, counts
        self.time += 1
        self.shown[:] = box
        reward = np.array([choice - changes])  # libraries of tensors pay in arrays of one number
        return self.shown, reward, False, self.time >= 20, {}


class Shifted(Keeper):
    """Symbols of which none is zero, neither seen nor played."""

    observation_space = Dict(
        {"one": Discrete(5, start=10), "two": MultiDiscrete([2, 3], start=[4, -9])}
    )
    action_space = Discrete(5, start=10)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.see(), {}

    def see(self):
        self.seen = self.np_random.integers([10, 4, -9], [15, 6, -6])
        return {"one": self.seen[0], "two": self.seen[1:]}

    def step(self, action):
        assert self.action_space.contains(action), action
        paid = float(action == self.seen[0])
        self.time += 1
        return self.see(), paid, False, self.time >= 20, {}


class Orders(gymnasium.Env):
    """How many of three goods to order, in whole numbers as people declare them."""

    observation_space = Box(0, 1000, (3,), np.float32)
    action_space = Box(0, 1000, (3,), np.int64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert action.dtype == np.int64 and self.action_space.contains(action), action
        self.time += 1
        return action.astype(np.float32), float(action.sum()), False, self.time >= 20, {}


class Narrow(Keeper):
    action_space = Box(-0.1, 0.1, (2,), np.float64)

    def step(self, action):
        assert self.action_space.contains(action), action
        if self.time == 2:
            assert self.action_space.contains(self.last)
        return super().step(action)


class Wide(Orders):
    action_space = Box(0, 2**40, (3,), np.int64)


class Frames(Keeper):
    observation_space = Box(0, 255, (4, 64, 64, 3), np.uint8)


class Raises(Keeper):
    """As environments do while they are written."""

    def step(self, action):
        if self.time == 7:
            raise KeyError("inventory of warehouse 7")
        return super().step(action)


class Entropic(Keeper):
    """Takes chance from the system wherever it is reset without a seed, as some libraries do."""

    def reset(self, *, seed=None, options=None):
        super().reset()
        self.shown[:] = np.random.default_rng(seed).uniform(-1, 1, 2)
        return self.shown, {}


gymnasium.register("Entropic-v0", Entropic)


class Blind(Keeper):
    observation_space = Dict({})


class Unpaid(Keeper):
    """Forgets to return its reward."""

    pays: object = None

    def step(self, action):
        shown, _, *rest = super().step(action)
        return shown, self.pays, *rest


class Spelt(Unpaid):
    """Pays a text that reads like a number."""

    pays = "1"
