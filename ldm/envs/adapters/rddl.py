"""RDDL domains of rddlrepository, simulated by pyRDDLGym: one array a lifted fluent.

Observation: Dict of the state (or observation) fluents, `running: MultiBinary(10)`,
`temp: Box(3)`. Action: Dict of the action fluents; a single one becomes the space itself. Where
only one action is allowed at a time and there are several boolean fluents, the action is
Discrete(1 + ground actions): 0 does nothing, then the ground fluents in declared order.

A fluent whose values are objects of a type becomes their numbers. Partially observed domains show
nothing before the first action: that observation is all zeros (or the lowest values there are).

Where an instance allows fewer concurrent actions than there are ground fluents, the first ones
(declared order, then object order) that differ from their default survive, the others go back to
it.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

LARGEST = 2.0**31 - 1  # what RDDL says for an unbounded int
MAX_SYMBOLS = 64  # an int fluent with more values is a number


def build(make: str, split: str, bounds: dict | None = None):
    """`make`: "domain/instance" ("SysAdmin_MDP_ippc2011/1"). `bounds`: fluent → [low, high], for
    fluents whose domain states none; actions are clipped to theirs."""
    return Planning(load(make), bounds or {})


def load(make: str):
    """The library's own environment, vectorised. Raises what it raises for an unknown problem."""
    from pyRDDLGym.core.env import RDDLEnv
    from rddlrepository.core.manager import RDDLRepoManager

    domain, _, instance = make.rpartition("/")
    problem = RDDLRepoManager().get_problem(domain)
    return RDDLEnv(problem.get_domain(), problem.get_instance(instance), vectorized=True)


class Planning(gymnasium.Env):
    """See the module's docstring. Numbers of int fluents are rounded before they are executed."""

    def __init__(self, env, bounds: dict):
        self.env = env
        self.fluents = {
            name: self._space(name, box, bounds) for name, box in self._boxes("observation")
        }
        self.actions = {name: self._space(name, box, bounds) for name, box in self._boxes("action")}
        self.defaults = {
            name: np.broadcast_to(np.asarray(env._noop_actions[name]), box.shape).astype(box.dtype)
            for name, box in self._boxes("action")
        }
        self.scalars = {name for name, noop in env._noop_actions.items() if not np.ndim(noop)}
        types = env.model.type_to_objects
        self.numbers = {  # of the objects that are a fluent's values
            name: {value: i for i, value in enumerate(types[kind])}
            for name, kind in env.model.variable_ranges.items()
            if kind in types
        }
        self.limit = int(min(env.max_allowed_actions, sum(v.size for v in self.defaults.values())))
        binary = all(
            box.dtype == np.int32 and box.high.max() == 1 for _, box in self._boxes("action")
        )
        self.single = binary and self.limit == 1 and len(self.actions) > 1
        self.observation_space = self._join(self.fluents)
        self.action_space = self._join(self.actions)
        if self.single:
            ground = sum(default.size for default in self.defaults.values())
            self.action_space = spaces.Discrete(1 + ground)

    def reset(self, *, seed=None, options=None):
        observation, info = self.env.reset(seed=seed)
        return self._observe(observation), info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(self._executed(action))
        return self._observe(observation), float(reward), bool(terminated), bool(truncated), info

    def _boxes(self, kind: str):
        return getattr(self.env, f"{kind}_space").spaces.items()

    def _space(self, name: str, box, bounds: dict):
        """The space of one fluent: booleans, symbols or numbers."""
        shape = box.shape
        low = np.maximum(box.low, bounds.get(name, [-np.inf])[0]).astype(np.float64)
        high = np.minimum(box.high, bounds.get(name, [np.inf])[-1]).astype(np.float64)
        counts = high - low + 1
        if box.dtype == np.int32 and counts.max() <= MAX_SYMBOLS:
            if not shape:
                return spaces.Discrete(int(counts), start=int(low))
            if counts.max() == 2 and not low.any():
                return spaces.MultiBinary(shape)
            return spaces.MultiDiscrete(counts.astype(np.int64), start=low.astype(np.int64))
        low, high = np.where(low < -LARGEST, -np.inf, low), np.where(high >= LARGEST, np.inf, high)
        return spaces.Box(np.float32(np.atleast_1d(low)), np.float32(np.atleast_1d(high)))

    @staticmethod
    def _join(fluents: dict):
        return next(iter(fluents.values())) if len(fluents) == 1 else spaces.Dict(fluents)

    def _observe(self, observation: dict):
        values = {
            name: self._value(self._numeric(name, observation[name], space), space)
            for name, space in self.fluents.items()
        }
        return next(iter(values.values())) if len(values) == 1 else values

    def _numeric(self, name: str, value, space):
        value = np.asarray(value)
        if value.dtype == object and value.size and value.flat[0] is None:  # nothing is seen yet
            lowest = getattr(space, "start", getattr(space, "low", 0))
            return np.broadcast_to(np.clip(0, lowest, None), space.shape)
        if value.dtype.kind in "OUS":
            numbers = self.numbers[name]
            return np.reshape([numbers[str(item)] for item in value.flat], value.shape)
        return value

    @staticmethod
    def _value(value, space):
        if isinstance(space, spaces.Discrete):
            return int(np.reshape(value, ()))
        value = np.reshape(value, space.shape)
        return np.clip(value, space.low, space.high) if isinstance(space, spaces.Box) else value

    def _executed(self, action) -> dict:
        """The action as the simulator takes it, within bounds and within the number allowed."""
        if self.single:
            given = self._chosen(int(action))
        else:
            given = {next(iter(self.actions)): action} if len(self.actions) == 1 else action
        room, result = self.limit, {}
        for name, default in self.defaults.items():
            value, space = np.asarray(given[name]), self.actions[name]
            if isinstance(space, spaces.Box):
                value = np.clip(value, space.low, space.high)
                value = np.rint(value) if default.dtype == np.int32 else value
            value = value.astype(default.dtype).reshape(-1)
            acts = value != default.reshape(-1)
            survives = acts & (np.cumsum(acts) <= room)
            room -= int(survives.sum())
            executed = np.where(survives, value, default.reshape(-1))
            shape = () if name in self.scalars else default.shape
            result[name] = executed.reshape(shape)
        return result

    def _chosen(self, number: int) -> dict:
        ground = np.zeros(sum(v.size for v in self.defaults.values()), np.int32)
        if number:
            ground[number - 1] = 1
        ends = np.cumsum([v.size for v in self.defaults.values()])[:-1]
        parts = np.split(ground, ends)
        return {
            name: part.reshape(v.shape) for (name, v), part in zip(self.defaults.items(), parts)
        }
