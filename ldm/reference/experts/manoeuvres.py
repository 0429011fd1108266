"""Manoeuvres of one vehicle: feedback laws and thresholds whose few numbers are searched for by
playing the problem itself, or follow from it."""

import numpy as np

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.search import Policy, search

MANY = 200  # episodes of a search where a rare collision decides


def problem(spec: EnvSpec):
    from ldm.envs.adapters.manoeuvres import build

    return build(spec.make, "train", **spec.options)


def tuned(spec: EnvSpec, id: str, make_family, start: tuple[int, ...], episodes=6) -> Markov:
    p = problem(spec)
    policy = search(p, make_family(p), start, episodes)
    return Markov(id, lambda observation: [policy(observation[0].astype(np.float64))])


def pedal(push: np.ndarray) -> np.ndarray:
    return np.clip(push, -1, 1).astype(np.float32)[:, None]


def go(when: np.ndarray) -> np.ndarray:
    return when.astype(np.int32)


@expert("manoeuvres/Platoon*")
def platoon(spec: EnvSpec) -> Markov:
    """Feedback on gap and closing speed, feed-forward of what is heard (Swaroop and Hedrick)."""

    def make_family(p):
        def family(gap: int, closing: int, ahead: int, first: int) -> Policy:
            gains = np.array([gap / 4, closing / 4, 0, ahead / 8, first / 8])
            return lambda rows: pedal(rows @ gains)

        return family

    return tuned(spec, "scripted/platoon@1", make_family, (6, 6, 4, 0))


@expert("manoeuvres/Gap*")
def gap_acceptance(spec: EnvSpec) -> Markov:
    """Goes when the smallest time that is seen exceeds a critical gap."""

    def make_family(p):
        def family(margin: int) -> Policy:
            critical = min((p.need + margin / 4) / 5, 2.99)
            return lambda rows: go(rows.min(1) >= critical)

        return family

    return tuned(spec, "scripted/critical-gap@1", make_family, (2,), MANY)


@expert("manoeuvres/Roundabout*")
def roundabout(spec: EnvSpec) -> Markov:
    """A critical gap to the next car that does not indicate, and a shorter one to any car."""

    def make_family(p):
        def family(margin: int, any_car: int) -> Policy:
            def enter(rows: np.ndarray) -> np.ndarray:
                times = rows[:, [0, 2]] * 5
                stays = np.where(rows[:, [1, 3]] > 0.5, np.inf, times)
                clear = stays.min(1) >= p.need + margin / 10
                return go(clear & (times.min(1) >= any_car / 4))

            return enter

        return family

    return tuned(spec, "scripted/roundabout-gap@1", make_family, (0, 8), MANY)


@expert("manoeuvres/Overtaking*")
def overtaking(spec: EnvSpec) -> Markov:
    """Passes when the oncoming car is farther than the pass takes, or none is seen."""
    p = problem(spec)
    needed = min(50 * p.takes / p.view, 1 - 1e-6)
    return Markov("exact/overtaking@1", lambda observation: [go(observation[0][:, 0] > needed)])


@expert("manoeuvres/Parking*")
def parking(spec: EnvSpec) -> Markov:
    """Aims for a heading that leads to the bay's axis, and steers towards it."""

    def make_family(p):
        def family(lead: int, gain: int) -> Policy:
            def back(rows: np.ndarray) -> np.ndarray:
                x, y, heading = rows.T * [[5], [2], [1]]
                aim = np.clip(lead / 10 * y, -0.6, 0.6)
                steer = np.clip(gain / 2 * (heading - aim), -1, 1)
                speed = np.clip(np.abs(x) * 2.5, 0.1, 1)
                return np.stack([speed, steer], 1).astype(np.float32)

            return back

        return family

    return tuned(spec, "scripted/back-in@1", make_family, (4, 6))


@expert("manoeuvres/Hills*")
def hills(spec: EnvSpec) -> Markov:
    """Holds a speed by feed-forward of slope and drag, with a share of the slopes to come."""

    def make_family(p):
        def family(aim: int, gain: int, ahead: int) -> Policy:
            def drive(rows: np.ndarray) -> np.ndarray:
                speed, slope = rows[:, 0] * 20, 0.03 * rows[:, 1:]
                felt = slope[:, 0] + ahead / 20 * slope[:, 1:].mean(1)
                push = 3.5 * speed**2 + 40e3 * (9.81 * (0.006 + felt) + gain / 100 * (aim - speed))
                share = push * np.maximum(speed, 5) / (1e3 * p.power)
                return np.clip(share, 0, 1).astype(np.float32)[:, None]

            return drive

        return family

    return tuned(spec, "scripted/hills@1", make_family, (21, 4, 0))


@expert("manoeuvres/Crossing*")
def crossing(spec: EnvSpec) -> Markov:
    """Slows near people who look restless; stops for those on the road."""

    def make_family(p):
        def family(doubt: int, slow: int, near: int) -> Policy:
            def drive(rows: np.ndarray) -> np.ndarray:
                distance, speed, signs, there = rows.T * [[30], [10], [1], [1]]
                wary = (signs > doubt / 8) & (distance < near * 4)
                aim = np.where(wary, slow, 14.0)
                aim = np.where(there > 0.5, np.sqrt(np.maximum(8 * (distance - 2), 0)), aim)
                return pedal((aim - speed) / 1.5)

            return drive

        return family

    return tuned(spec, "scripted/crossing@1", make_family, (3, 6, 8), MANY)


@expert("manoeuvres/Lanes*")
def lane_choice(spec: EnvSpec) -> Markov:
    """Changes towards the fastest lane where it is faster by a threshold a lane."""

    def make_family(p):
        def family(faster: int) -> Policy:
            def steer(rows: np.ndarray) -> np.ndarray:
                speeds, own = rows[:, : p.lanes] * 25, rows[:, p.lanes :].argmax(1)
                away = np.abs(np.arange(p.lanes) - own[:, None])
                best = (speeds - faster * away).argmax(1)
                return (1 + np.sign(best - own)).astype(np.int32)

            return steer

        return family

    return tuned(spec, "scripted/lane-choice@1", make_family, (3,))
