"""Driving and traffic problems of our own: feedback laws and switching rules whose few numbers are
searched for by playing the problem itself."""

import numpy as np

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.search import Policy, search


def tuned(spec: EnvSpec, id: str, make_family, start: tuple[int, ...]) -> Markov:
    from ldm.envs.adapters.roads import build

    problem = build(spec.make, "train", **spec.options)
    policy = search(problem, make_family(problem), start)
    return Markov(id, lambda observation: [policy(observation[0].astype(np.float64))])


def pedal(push: np.ndarray) -> np.ndarray:
    return np.clip(push, -1, 1).astype(np.float32)[:, None]


@expert("roads/Cruise*")
def cruise(spec: EnvSpec) -> Markov:
    """Proportional feedback on the error of the gap and on the difference of speeds."""

    def make_family(p):
        def family(gap_gain: int, speed_gain: int) -> Policy:
            def drive(rows: np.ndarray) -> np.ndarray:
                gap, speed, difference = rows.T * [[50], [10], [10]]
                miss = gap - p.headway * speed - 5
                return pedal(gap_gain / 100 * miss + speed_gain / 20 * difference)

            return drive

        return family

    return tuned(spec, "scripted/cruise@1", make_family, (6, 6))


@expert("roads/Tracking*")
def tracking(spec: EnvSpec) -> Markov:
    """The road's curvature as feed-forward, feedback on heading and offset (times 1 / speed)."""

    def make_family(p):
        def family(offset_gain: int, heading_gain: int) -> Policy:
            def steer(rows: np.ndarray) -> np.ndarray:
                offset, heading, now, _ = rows.T * [[3], [1], [1 / 20], [1 / 20]]
                back = offset_gain * offset / p.speed + heading_gain * heading
                return pedal((np.arctan(2.7 * now) - 2.7 * back / p.speed) / 0.5)

            return steer

        return family

    return tuned(spec, "scripted/path-tracking@1", make_family, (8, 6))


@expert("roads/Approach*")
def approach(spec: EnvSpec) -> Markov:
    """Slows down (which is free) to the speed that arrives a little after red ends; else drives on
    at a speed worth its energy."""

    def make_family(p):
        def family(margin: int, speed_up: int) -> Policy:
            def drive(rows: np.ndarray) -> np.ndarray:
                left, speed, wait = rows.T * [[100], [10], [20]]
                allowed = np.where(wait > 0, left / (wait + margin / 4 + 1e-9), np.inf)
                aim = np.minimum(np.maximum(speed, speed_up), allowed)
                return pedal(np.where(aim > speed, 0.3 * (aim - speed), aim - speed))

            return drive

        return family

    return tuned(spec, "scripted/eco-approach@1", make_family, (4, 10))


@expert("roads/Junction*", "roads/Corridor*")
def signals(spec: EnvSpec) -> Markov:
    """Serves a road until it is empty and the other waits, or until the other's queue is longer by
    so many cars."""

    def make_family(p):
        def family(longer: int, waiting: int) -> Policy:
            def serve(rows: np.ndarray) -> np.ndarray:
                queues = rows.reshape(len(rows), p.junctions, 3) * [10, 10, 1]
                served = np.rint(queues[..., 2]).astype(np.int32)
                own = np.where(served == 0, queues[..., 0], queues[..., 1])
                other = np.where(served == 0, queues[..., 1], queues[..., 0])
                switch = (other - own > longer) | ((own < 0.5) & (other > waiting))
                chosen = np.where(switch, 1 - served, served).astype(np.int32)
                return chosen if p.junctions > 1 else chosen[:, 0]

            return serve

        return family

    return tuned(spec, "scripted/switching@1", make_family, (8, 1))


@expert("roads/Ramp*")
def ramp(spec: EnvSpec) -> Markov:
    """Lets in what the density behind the ramp lacks of an aim (ALINEA; Papageorgiou 1991)."""

    def make_family(p):
        def family(aim: int, gain: int) -> Policy:
            def meter(rows: np.ndarray) -> np.ndarray:
                density = rows[:, p.cells - 2]
                return np.clip(gain * (aim / 50 - density), 0, 1).astype(np.float32)[:, None]

            return meter

        return family

    return tuned(spec, "scripted/alinea@1", make_family, (10, 10))
