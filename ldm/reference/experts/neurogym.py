"""neurogym: rules over what was seen since the trial began, as each task's own source defines it.

The first number of an observation is 1 while the subject must fixate (action 0); most tasks ask for
a choice once it falls, and the next trial begins when it rises. Stimuli stay visible for a few
steps in little noise. A rule gets the observations (T, size) of the running trial, the last is now.
"""

from collections.abc import Callable

import numpy as np

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, Markov, expert, memory

Rule = Callable[[np.ndarray], int]
RING = 16  # directions of the ring in the tasks of Yang et al.
SHAPES = np.array([-10, -0.9, -0.7, -0.5, -0.3, 0.3, 0.5, 0.7, 0.9, 10])  # weights of evidence


class Trials:
    """Remembers the running trial of every stream. `column`: a trial begins where it changes from
    `before` to 1 − `before`."""

    def __init__(self, task: str, rule: Rule, column: int = 0, before: bool = False):
        self.id = f"scripted/neurogym-{task}@1"
        self.rule, self.column, self.before = rule, column, before
        self.seen: list[list[np.ndarray]] = []

    def act(self, timestep: TimeStep) -> Arrays:
        rows = timestep.observation[0]
        self.seen = self.seen or [[] for _ in rows]
        for row, seen, started in zip(rows, self.seen, timestep.started):
            if started or (seen and self.begins(seen[-1], row)):
                seen.clear()
            seen.append(row.copy())
        return [np.array([self.rule(np.array(seen)) for seen in self.seen], np.int32)]

    def begins(self, last: np.ndarray, row: np.ndarray) -> bool:
        was, now = last[self.column] > 0.5, row[self.column] > 0.5
        return was == self.before and now != self.before


def runs(trial: np.ndarray, floor: float = 0.3) -> list[np.ndarray]:
    """The sums of the stimulus over each stretch of steps in which there is one."""
    stimulus = trial[:, 1:]
    shown = np.abs(stimulus).max(1) > floor
    starts = np.flatnonzero(shown & ~np.roll(shown, 1) | (shown & (np.arange(len(shown)) == 0)))
    ends = [*starts[1:], len(trial)]
    return [(stimulus * shown[:, None])[a:b].sum(0) for a, b in zip(starts, ends)]


def after_fixation(choose: Rule) -> Rule:
    """Fixates until the choice is asked for."""
    return lambda trial: 0 if trial[-1, 0] > 0.5 else choose(trial)


def strongest(weights: tuple[float, ...], shift: int = 0) -> Rule:
    """The direction of the largest sum over modalities, each a ring, turned by `shift` places."""

    def choose(trial: np.ndarray) -> int:
        rings = trial[:, 1:].sum(0).reshape(len(weights), -1)
        ring = np.asarray(weights) @ rings
        return 1 + (int(ring.argmax()) + shift) % len(ring)

    return choose


def match(go: bool, category: bool) -> Rule:
    """The direction of the second stimulus where both match (`go`) or where they do not; else
    none. Categories are halves of the ring, direction 8 counting to the first half in the sample.
    """

    def choose(trial: np.ndarray) -> int:
        shown = runs(trial)
        if len(shown) < 2:
            return 0
        first, second = (int((s[:RING] + s[RING:]).argmax()) for s in (shown[0], shown[-1]))
        same = (first > RING // 2) == (second >= RING // 2) if category else first == second
        return 1 + second if same == go else 0

    return choose


def yang(task: str) -> Rule:
    if task in ("dms", "dnms", "dmc", "dnmc"):
        return match(go=not task.startswith("dn"), category=task.endswith("c"))
    weights = {"1": (1.0, 0.0), "2": (0.0, 1.0)}.get(task[-1], (1.0, 1.0))
    return strongest(weights, RING // 2 if task.endswith("anti") else 0)


@expert("neurogym/Yang19-*")
def yang19(spec: EnvSpec) -> Trials:
    task = spec.id.rpartition("-")[2]
    return Trials(task, after_fixation(yang(task)))


def compare(trial: np.ndarray) -> int:
    """Which of two stimuli was stronger (or, with a column each, longer)."""
    shown = runs(trial)
    return 1 if shown[0].sum() > shown[-1].sum() else 2


def same(trial: np.ndarray) -> int:
    shown = runs(trial)
    return 1 if shown[0].argmax() == shown[-1].argmax() else 2


def paired(trial: np.ndarray) -> int:
    """Go for the pairs (1, 3) and (2, 4)."""
    shown = runs(trial)
    return int(shown[0].argmax() + 2 == shown[-1].argmax())


def economic(trial: np.ndarray) -> int:
    """As the source pays: choice 1 the amount of b at 0.1, choice 2 that of a at 0.22."""
    a_first, amounts = trial[:, 1].max() > 0.5, trial[:, 5:7].max(0)
    a, b = amounts if a_first else amounts[::-1]
    return 1 if 0.1 * b > 0.22 * a else 2


def wager(trial: np.ndarray) -> int:
    """1, the only sided choice that the source ever pays; where a sure 0.7 is offered, that, unless
    the evidence for 1 is strong."""
    evidence = trial[:, 2].sum() - trial[:, 1].sum()
    return 3 if trial[-1, 3] > 0.5 and evidence < 0.15 else 1


def odds(trial: np.ndarray) -> int:
    return 1 + int(trial[:, 1:].max(0) @ np.tile(SHAPES, 4) > 0)


def matching_now(trial: np.ndarray) -> int:
    """Go while the stimulus is the one that was shown first, after a gap."""
    shown = np.abs(trial[:, 1:]).max(1) > 0.5
    if not shown[-1]:
        return 0
    first = int(shown.argmax())
    gap = (~shown[first:]).any()
    return int(gap and np.abs(trial[-1, 1:] - trial[first, 1:]).max() < 1e-3)


def dual(trial: np.ndarray) -> int:
    """Both samples show together; whichever of them shows alone later is the test of that one."""
    shown = np.hypot(trial[:, [1, 3]], trial[:, [2, 4]]) > 0.5
    if shown[-1].all() or not shown[-1].any():
        return 0
    samples = np.flatnonzero(shown.all(1))
    pair = slice(1, 3) if shown[-1, 0] else slice(3, 5)
    if not len(samples):
        return 0
    return 1 if trial[samples[-1], pair].argmax() == trial[-1, pair].argmax() else 2


def press_at(moment: Callable[[np.ndarray], int | None]) -> Rule:
    """Go at one step of the trial, the index that `moment` says once it is known."""
    return lambda trial: int(moment(trial) == len(trial) - 1)


def motor_timing(trial: np.ndarray) -> int | None:
    """800 or 1500 ms after fixation ends, by the cue; steps take 80 ms."""
    free = trial[:, 0] < 0.5
    return int(free.argmax()) + (10 if trial[:, 1].any() else 19) if free.any() else None


def ready_set_go(trial: np.ndarray) -> int | None:
    """As long after "set" as that came after "ready"."""
    ready, go = trial[:, 1] > 0.5, trial[:, 2] > 0.5
    return 2 * int(go.argmax()) - int(ready.argmax()) if ready.any() and go.any() else None


def one_two_three(trial: np.ndarray) -> int | None:
    """As long after the third flash as the second came after the first."""
    flashes = np.flatnonzero(trial[:, 1] > 0.5)
    return int(flashes[2] + flashes[1] - flashes[0]) if len(flashes) > 2 else None


RULES: dict[str, Rule] = {
    "AntiReach": after_fixation(strongest((1.0,), shift=16)),
    "ContextDecisionMaking": after_fixation(strongest((1.0, 0.0))),
    "DelayComparison": after_fixation(compare),
    "DelayMatchCategory": after_fixation(lambda trial: 1),  # what is shown does not tell
    "DelayMatchSample": after_fixation(same),
    "DelayMatchSampleDistractor1D": matching_now,
    "DelayPairedAssociation": after_fixation(paired),
    "EconomicDecisionMaking": after_fixation(economic),
    "GoNogo": after_fixation(lambda trial: int(trial[:, 2].any())),
    "IntervalDiscrimination": after_fixation(compare),
    "MotorTiming": press_at(motor_timing),
    "MultiSensoryIntegration": after_fixation(strongest((1.0, 1.0))),
    "PerceptualDecisionMaking": after_fixation(strongest((1.0,))),
    "PerceptualDecisionMakingDelayResponse": after_fixation(strongest((1.0,))),
    "PostDecisionWager": after_fixation(wager),
    "ProbabilisticReasoning": after_fixation(odds),
    "PulseDecisionMaking": after_fixation(strongest((1.0,))),
    "ReadySetGo": press_at(ready_set_go),
}


@expert(*(f"neurogym/{task}" for task in RULES))
def fixating(spec: EnvSpec) -> Trials:
    task = spec.id.rpartition("/")[2]
    return Trials(task, RULES[task])


@expert("neurogym/OneTwoThreeGo")
def one_two_three_go(spec: EnvSpec) -> Trials:
    """Fixation lasts; a trial begins where the target goes."""
    return Trials("OneTwoThreeGo", press_at(one_two_three), column=2, before=True)


@expert("neurogym/DualDelayMatchSample")
def dual_match(spec: EnvSpec) -> Trials:
    """Fixation lasts: the whole episode counts as one trial, its latest sample as the sample."""
    return Trials("DualDelayMatchSample", dual)


@expert("neurogym/ReachingDelayResponse")
def delayed_reach(spec: EnvSpec) -> Actor:
    """Waits (first number negative) until the go signal, then names the value that was shown."""

    class Reach:
        id, shown = "scripted/neurogym-ReachingDelayResponse@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            go, stimulus = timestep.observation[0].T
            self.shown = memory(timestep, self.shown)
            self.shown[:] = np.where((go < 0.5) & (stimulus > -0.25), stimulus, self.shown)
            return [np.stack([np.where(go > 0.5, 1.0, -1.0), self.shown], 1).astype(np.float32)]

    return Reach()


def angle(ring: np.ndarray) -> np.ndarray:
    """The cosine bumps in rings (N, size) as complex numbers (N,): height and direction."""
    turn = np.exp(2j * np.pi * np.arange(ring.shape[1]) / ring.shape[1])
    return ring @ turn * 2 / ring.shape[1]


@expert("neurogym/Reaching1D")
def reaching(spec: EnvSpec) -> Markov:
    """Towards the target by the shorter way, once it shows."""

    def act(observation: Arrays) -> Arrays:
        target, own = angle(observation[0][:, :16]), angle(observation[0][:, 16:])
        off = np.angle(target * own.conj())
        side = np.where(off > 0, 1, 2)
        return [np.where((np.abs(target) > 0.5) & (np.abs(off) > 0.03), side, 0).astype(np.int32)]

    return Markov("scripted/neurogym-Reaching1D@1", act)


@expert("neurogym/DawTwoStep")
def two_step(spec: EnvSpec) -> Actor:
    """Action k leads to state k in four of five trials; one of the states pays in nine of ten
    trials, the other in one; they swap with probability 0.025. Bayes' rule says which."""

    class TwoStep:
        id, odds = "exact/neurogym-DawTwoStep@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            first, second = timestep.observation[0][:, 1] > 0.5, timestep.observation[0][:, 2] > 0.5
            self.odds = memory(timestep, self.odds)  # log odds that the first state pays
            news = np.log(9) * np.where(timestep.reward > 0.5, 1, -1) * np.where(first, 1, -1)
            chance = 1 / (1 + np.exp(-(self.odds + news)))
            chance = 0.975 * chance + 0.025 * (1 - chance)
            landed = (first | second) & ~timestep.started
            self.odds[:] = np.where(landed, np.log(chance / (1 - chance)), self.odds)
            choice = np.where(self.odds >= 0, 1, 2)
            return [np.where(first | second, 0, choice).astype(np.int32)]

    return TwoStep()
