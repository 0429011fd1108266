"""Any fully observed RDDL domain: one-step improvement of doing nothing, in the domain's simulator.

From the state that is observed, every single change of the default action is simulated for a few
steps, the same random numbers for all, and the best is taken; where more changes are allowed at a
time, the next best on top of it (rollout, Bertsekas and Castañon 1999). After the first step
nothing is done any more, or, where actions are numbers, the same goes on.
"""

import numpy as np
from gymnasium.spaces import MultiBinary

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import expert

WORK = 120  # simulated steps a decision, about
CHANGES = 3  # of one action, at most
DEEPEST = 10  # steps


class Lookahead:
    def __init__(self, spec: EnvSpec):
        from ldm.envs.adapters.rddl import build

        self.id = "scripted/rddl-lookahead@2"
        self.problem = build(spec.make, "train", **spec.options)
        self.simulator = self.problem.env.sampler
        if self.simulator.is_pomdp:
            raise ValueError("the state is not observed, so nothing can be simulated from it")
        self.initial = self.simulator.init_values
        self.fluents = sorted(self.problem.fluents)  # as the observation's leaves
        self.holds = any(default.dtype.kind == "f" for default in self.problem.defaults.values())
        self.changes = [c for name in self.problem.defaults for c in self._changes(name)]
        rounds = 1 if self.problem.single else min(self.problem.limit, CHANGES)
        self.rounds, share = rounds, WORK // max(rounds * len(self.changes), 1)
        self.samples = 1 if share < 6 else 2 if share < 12 else 4
        self.depth = int(np.clip(share // self.samples, 2, DEEPEST))

    def _changes(self, name: str) -> list[tuple[str, int, float]]:
        """(fluent, index, value) of what may differ from the default action."""
        default, space = self.problem.defaults[name].reshape(-1), self.problem.actions[name]
        if hasattr(space, "high"):
            ends = np.clip([space.low, space.high], -10, 10).reshape(2, -1)
            values = [[share * end for end in pair for share in (0.3, 1.0)] for pair in ends.T]
        else:
            binary = isinstance(space, MultiBinary)
            count = space.nvec if hasattr(space, "nvec") else 2 if binary else space.n
            start = np.broadcast_to(getattr(space, "start", 0), space.shape).reshape(-1)
            counts = np.broadcast_to(count, space.shape).reshape(-1)
            values = [list(range(int(s), int(s + c))) for s, c in zip(start, counts)]
        return [(name, i, v) for i, own in enumerate(values) for v in own if v != default[i]]

    def act(self, timestep: TimeStep) -> Arrays:
        chosen = [
            self.choose([leaf[i] for leaf in timestep.observation])
            for i in range(len(timestep.started))
        ]
        if self.problem.single:
            return [np.array([self._number(action) for action in chosen], np.int32)]
        return [
            np.stack([action[name] for action in chosen])
            .astype(timestep.action[k].dtype)
            .reshape(timestep.action[k].shape)
            for k, name in enumerate(sorted(self.problem.actions))
        ]

    def choose(self, observation: Arrays) -> dict[str, np.ndarray]:
        """The action as arrays by fluent."""
        state = {
            name: np.asarray(value)
            .reshape(np.shape(self.initial[name]))
            .astype(np.asarray(self.initial[name]).dtype)
            for name, value in zip(self.fluents, observation)
        }
        best = {name: value.copy() for name, value in self.problem.defaults.items()}
        worth = self.worth(state, best)
        for _ in range(self.rounds):
            tried = [(self.worth(state, changed(best, *c)), k) for k, c in enumerate(self.changes)]
            top, number = max(tried, key=lambda one: (one[0], -one[1]))
            if top <= worth + 1e-9:
                break
            worth, best = top, changed(best, *self.changes[number])
        return best

    def worth(self, state: dict, action: dict[str, np.ndarray]) -> float:
        """Mean sum of rewards of the next steps over a few draws."""
        total, simulator = 0.0, self.simulator
        first = self._prepared(action)
        later = first if self.holds else self._prepared(self.problem.defaults)
        for seed in range(self.samples):
            simulator.seed(seed)
            simulator.subs = {**self.initial, **state}
            for step in range(self.depth):
                _, reward, over = simulator.step(later if step else first)
                total += reward
                if over:
                    break
        return total

    def _prepared(self, action: dict[str, np.ndarray]) -> dict:
        given = {
            name: value[()] if name in self.problem.scalars else value
            for name, value in action.items()
        }
        taken: object = self._number(action) if self.problem.single else given
        if not self.problem.single and len(given) == 1:
            taken = next(iter(given.values()))
        return self.simulator.prepare_actions_for_sim(self.problem._executed(taken))

    def _number(self, action: dict[str, np.ndarray]) -> int:
        ground = np.concatenate([value.reshape(-1) for value in action.values()])
        return 1 + int(ground.argmax()) if ground.any() else 0


def changed(action: dict[str, np.ndarray], name: str, index: int, value: float) -> dict:
    """A copy with one number replaced."""
    copy = {key: array.copy() for key, array in action.items()}
    copy[name].flat[index] = value
    return copy


@expert("rddl/*")
def lookahead(spec: EnvSpec) -> Actor:
    return Lookahead(spec)
