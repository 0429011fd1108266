"""Planning problems of PDDLGym that are small enough to know all their states.

Observation: MultiBinary, a bit for each ground atom that actions can change. Action: Discrete, the
ground actions that some state allows; one that the present state does not allow changes nothing.
An episode begins in a state drawn from those from which the goal can be reached and is not reached
yet, and ends there with a reward of 1. The library steps; what can be reached, and the shortest
way, is found beforehand by going through all states, as integers of bits.
"""

import importlib
import itertools
from functools import cache
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
from bare_package import bare
from gymnasium import spaces

MOST_STATES = 20_000
ANY = "default"  # the type of what has none


def build(make: str, split: str, number: int = 0, operators: bool = False):
    """`make`: the library's domain ("blocks"). `number`: of the problem among those that come with
    it. `operators`: whether the domain's operators are the actions, as the library registers it."""
    return Planning(problem(make, number, operators))


class Ground(NamedTuple):
    """One operator with objects in the place of its parameters: what it needs and needs not, what
    it adds and deletes (bits of atoms), and the action that asks for it."""

    action: int
    needs: int
    lacks: int
    adds: int
    deletes: int


class Problem:
    """All of a problem: atoms (literals of the library), actions (likewise), `reached`: state →
    steps to the goal, for the states from which it can be reached."""

    def __init__(self, env):
        self.env, (self.first, _) = env, env.reset()
        changed = {e.predicate.name for op in self._operators() for e in literals(op.effects)}
        lifted = [ground for op in self._operators() for ground in self._ground(op, changed)]
        possible = self._possible(lifted)
        self.atoms = sorted({x for g in possible for x in g[3] | g[4]})
        self.still = self.first.literals - set(self.atoms)
        self.actions = sorted({g[0] for g in possible})
        self.bit = {atom: 1 << i for i, atom in enumerate(self.atoms)}
        number = {action: i for i, action in enumerate(self.actions)}
        self.ground = [Ground(number[g[0]], *map(self.bits, g[1:])) for g in possible]
        goal = literals(self.first.goal)
        self.wanted = self.bits({x for x in goal if not x.is_negative})
        self.unwanted = self.bits({x.positive for x in goal if x.is_negative})
        self.reached = self._reached()

    def _operators(self):
        return self.env.domain.operators.values()

    def _ground(self, operator, changed: set[str]):
        """(action, needs, lacks, adds, deletes) of every choice of objects that what never changes
        allows."""
        domain, asked = self.env.domain, self.env.operators_as_actions
        asking = set() if asked else set(domain.actions)
        above = domain.type_to_parent_types or {}
        fits = lambda object, kind: (
            kind in (object.var_type, ANY) or kind in above.get(object.var_type, ())
        )
        objects = [
            [x for x in sorted(self.first.objects) if fits(x, v.var_type)] for v in operator.params
        ]
        for choice in itertools.product(*objects):
            values = dict(zip(operator.params, choice))
            action = domain.predicates[operator.name](*choice) if asked else None
            needs: set = set()
            lacks: set = set()
            for condition in literals(operator.preconds):
                atom = self._placed(condition, values)
                if condition.predicate.name in asking:
                    action = atom
                elif condition.predicate.name in changed:
                    (lacks if condition.is_negative else needs).add(atom)
                elif (atom in self.first.literals) == condition.is_negative:
                    break
            else:
                effects = literals(operator.effects)
                adds = {self._placed(x, values) for x in effects if not x.is_anti}
                deletes = {self._placed(x, values) for x in effects if x.is_anti}
                yield action, needs, lacks, adds, deletes

    def _placed(self, literal, values: dict):
        """The atom of a literal, with objects in the place of variables."""
        objects = [values.get(variable, variable) for variable in literal.variables]
        return self.env.domain.predicates[literal.predicate.name](*objects)

    def _possible(self, lifted: list) -> list:
        """Those that may become possible if nothing is ever deleted."""
        atoms, rest, possible = set(self.first.literals), lifted, []
        while new := [g for g in rest if g[1] <= atoms]:
            possible += new
            rest = [g for g in rest if not g[1] <= atoms]
            atoms = atoms.union(*(g[3] for g in new))
        return possible

    def bits(self, atoms) -> int:
        return sum(self.bit.get(atom, 0) for atom in set(atoms))

    def literals(self, state: int) -> frozenset:
        return frozenset(self.still | {x for x, bit in self.bit.items() if state & bit})

    def done(self, state: int) -> bool:
        return state & self.wanted == self.wanted and not state & self.unwanted

    def after(self, state: int):
        """(action, next state) of everything that the state allows."""
        for g in self.ground:
            if state & g.needs == g.needs and not state & g.lacks:
                yield g.action, state & ~g.deletes | g.adds

    def _reached(self) -> dict[int, int]:
        """Raises ValueError where there are too many states."""
        before: dict[int, list[int]] = {self.bits(self.first.literals): []}
        queue = list(before)
        for state in queue:
            for _, then in self.after(state) if not self.done(state) else ():
                if then not in before:
                    before[then] = []
                    queue.append(then)
                before[then].append(state)
            if len(queue) > MOST_STATES:
                raise ValueError(f"more than {MOST_STATES} states")
        steps = {state: 0 for state in queue if self.done(state)}
        for state in (queue := list(steps)):
            for earlier in before[state]:
                if earlier not in steps:
                    steps[earlier] = steps[state] + 1
                    queue.append(earlier)
        return steps


@cache
def problem(make: str, number: int, operators: bool) -> Problem:
    """Raises LookupError for a domain or problem that the library does not have, and what Problem
    raises."""
    bare("pddlgym")  # it would import what draws pictures
    core = importlib.import_module("pddlgym.core")
    home = Path(str(core.__file__)).parent / "pddl"
    if not (home / f"{make}.pddl").is_file():
        raise LookupError(f"PDDLGym has no domain {make}")
    env = core.PDDLEnv(str(home / f"{make}.pddl"), str(home / make), operators_as_actions=operators)
    if number >= len(env.problems):
        raise LookupError(f"{make} has {len(env.problems)} problems, not number {number}")
    env.fix_problem_index(number)
    if not any(predicate.is_derived for predicate in env.domain.predicates.values()):
        env._handle_derived_literals = lambda state: state  # it would list all atoms at every step
    return Problem(env)


class Planning(gymnasium.Env):
    """See the module's docstring. `state`: the bits of the present one."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.starts = sorted(state for state, steps in problem.reached.items() if steps)
        self.observation_space = spaces.MultiBinary(len(problem.atoms))
        self.action_space = spaces.Discrete(len(problem.actions))
        self.draws = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.draws = np.random.default_rng(seed)
        self.state = self.starts[self.draws.integers(len(self.starts))]
        return self._observe(), {}

    def step(self, action):
        problem = self.problem
        present = problem.first.with_literals(problem.literals(self.state))
        problem.env.set_state(present)
        then, reward, done, _, _ = problem.env.step(problem.actions[int(action)])
        self.state = problem.bits(then.literals)
        return self._observe(), float(reward), bool(done), False, {}

    def _observe(self) -> np.ndarray:
        bits = [self.state >> i & 1 for i in range(len(self.problem.atoms))]
        return np.array(bits, np.int8)


def shortest(env: Planning):
    """Acts towards the goal on a shortest way, of several on the action with the lowest number;
    where no way is left it does what is first."""

    def act() -> np.ndarray:
        problem, far = env.problem, len(env.problem.reached)
        after = problem.after(env.state)
        ways = [(problem.reached.get(then, far), action) for action, then in after]
        return np.array(min(ways)[1] if ways else 0)

    return act


EXPERTS = {"shortest": shortest}


def literals(structure) -> list:
    """Of a conjunction, or of one literal. Raises TypeError for what is neither."""
    if hasattr(structure, "literals"):
        return list(structure.literals)
    if hasattr(structure, "predicate"):
        return [structure]
    raise TypeError(f"{type(structure).__name__}: only conjunctions of literals are known")
