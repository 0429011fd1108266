"""Guarding machines and accounts: the cheapest decision by Bayes' rule where that is enough, else
a threshold that is searched for by playing the problem itself."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.search import Policy, search


def problem(spec: EnvSpec):
    from ldm.envs.adapters.guarding import build

    return build(spec.make, "train", **spec.options)


def tuned(spec: EnvSpec, id: str, make_family, start: tuple[int, ...]) -> Markov:
    p = problem(spec)
    policy = search(p, make_family(p), start, 20)
    return Markov(id, lambda observation: [policy(observation[0].astype(np.float64))])


@expert("guarding/Patching*")
def patching(spec: EnvSpec) -> Markov:
    """The hole with the largest expected loss a period, where that is worth its cost."""

    def make_family(p):
        def family(worthwhile: int) -> Policy:
            def patch(rows: np.ndarray) -> np.ndarray:
                loss = p.used * rows * p.worth
                return np.where(loss.max(1) > worthwhile / 50, 1 + loss.argmax(1), 0).astype(
                    np.int32
                )

            return patch

        return family

    return tuned(spec, "scripted/patch-worst@1", make_family, (3,))


@expert("guarding/Triage*")
def triage(spec: EnvSpec) -> Markov:
    """The least expected cost given the score."""
    p = problem(spec)

    def act(observation: Arrays) -> Arrays:
        score = observation[0][:, 0].astype(np.float64)
        odds = p.share / (1 - p.share) * np.exp(p.apart * score - p.apart**2 / 2)
        bad = odds / (1 + odds)
        costs = np.stack([10 * bad, 2 * (1 - bad), np.full_like(bad, p.look)])
        return [costs.argmin(0).astype(np.int32)]

    return Markov("exact/triage@1", act)


@expert("guarding/Lockout*")
def lockout(spec: EnvSpec) -> Markov:
    """Locks after so many failures."""

    def make_family(p):
        return lambda most: lambda rows: (rows[:, 0] * 5 > most + 0.5).astype(np.int32)

    return tuned(spec, "scripted/lockout@1", make_family, (2,))


@expert("guarding/MovingTarget*")
def moving_target(spec: EnvSpec) -> Markov:
    """Changes when so many parts are known, those counted in that are not seen yet."""

    def make_family(p):
        def family(part: int) -> Policy:
            def change(rows: np.ndarray) -> np.ndarray:
                unseen = p.speed * np.minimum(p.lag, rows[:, 1] * 10)
                known = rows[:, 0] * p.parts + unseen
                return (known > part / 4).astype(np.int32)

            return change

        return family

    return tuned(spec, "scripted/moving-target@1", make_family, (4 * problem(spec).parts - 6,))


@expert("guarding/Backup*")
def backup(spec: EnvSpec) -> Markov:
    """Backs up when so much would be lost (about √(2 cost · rate / strikes); Young 1974)."""

    def make_family(p):
        return lambda much: lambda rows: (rows[:, 0] * 10 > much / 2).astype(np.int32)

    p = problem(spec)
    young = (2 * 10 * p.cost * p.rate / p.strikes) ** 0.5
    return tuned(spec, "scripted/backup@1", make_family, (round(2 * young),))


@expert("guarding/Jamming*")
def jamming(spec: EnvSpec) -> Markov:
    """The channel of the least expected loss this period, given where the jammer was seen."""
    p = problem(spec)
    channels = np.arange(p.channels)
    step = np.zeros((p.channels, p.channels))
    np.add.at(step, (channels, (channels + p.stride) % p.channels), p.moves)
    np.add.at(step, (channels, channels), 1 - p.moves)
    away = np.abs(channels[:, None] - channels)
    paid = np.choose(np.minimum(np.minimum(away, p.channels - away), 2), [0.0, 0.5, 1.0])
    worth = np.stack([np.linalg.matrix_power(step, k) @ paid for k in range(1, 41)])

    def act(observation: Arrays) -> Arrays:
        rows = observation[0]
        shown, own = rows[:, : p.channels].argmax(1), rows[:, p.channels + 1 :]
        since = np.clip(np.rint(rows[:, p.channels] * 5).astype(int), 0, 39)
        return [(worth[since, shown] + p.switch * own).argmax(1).astype(np.int32)]

    return Markov("scripted/likely-free@1", act)
