"""Power and heat: dynamic programming over the hours of the day where the state is small, else
rules whose few numbers are searched for."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.search import Policy, autoregression, interpolate, search

DAY, DAYS = 24, 14  # sweeps backwards over so many days: far beyond an episode
ANGLES = 2 * np.pi * np.arange(DAY) / DAY
DEVIATIONS, CHANCES = autoregression(0.9, 0.4, 15)
CHARGES = np.linspace(0, 1, 41)


def problem(spec: EnvSpec):
    from ldm.envs.adapters.power import build

    return build(spec.make, "train", **spec.options)


def hours(sine: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    return np.rint(np.arctan2(sine, cosine) * DAY / (2 * np.pi)).astype(int) % DAY


def nearest(deviation: np.ndarray) -> np.ndarray:
    """Index into DEVIATIONS."""
    return np.abs(deviation[..., None] - DEVIATIONS).argmin(-1)


def backwards(update, shape: tuple[int, ...]) -> np.ndarray:
    """The value of every hour, (DAY, *shape), by `update(hour, value of the next hour)`, which is
    an expectation over the deviation (the first axis) already."""
    value = np.zeros((DAY, *shape))
    for _ in range(DAYS):
        for hour in reversed(range(DAY)):
            ahead = np.tensordot(CHANCES, value[(hour + 1) % DAY], 1)
            value[hour] = update(hour, 0.999 * ahead)
    return value


@expert("power/Battery*")
def battery(spec: EnvSpec) -> Markov:
    """Backward induction over hour, price and charge."""
    p = problem(spec)
    powers = np.linspace(-1, 1, 41)
    keeps = np.where(powers > 0, 1 - p.loss, 1.0)

    def gains(price: np.ndarray, charge: np.ndarray):
        """Reward of every power (..., 41) and the charge it leads to."""
        after = np.clip(charge[..., None] + keeps * powers / p.hours, 0, 1)
        moved = (after - charge[..., None]) * p.hours / keeps
        return -price[..., None] * moved - p.wear * np.abs(moved), after

    def update(hour: int, ahead: np.ndarray) -> np.ndarray:
        price = np.maximum(1 - 0.5 * np.sin(ANGLES[hour]) + 0.3 * DEVIATIONS, 0.05)
        reward, after = gains(price[:, None], np.broadcast_to(CHARGES, (len(price), len(CHARGES))))
        later = interpolate(CHARGES, ahead, after.reshape(len(price), -1)).reshape(after.shape)
        return (reward + later).max(-1)

    value = backwards(update, (len(DEVIATIONS), len(CHARGES)))

    def act(observation: Arrays) -> Arrays:
        charge, price, sine, cosine = observation[0].astype(np.float64).T
        deviation = nearest((price - 1 + 0.5 * sine) / 0.3)
        ahead = np.einsum("nd,ndc->nc", CHANCES[deviation], value[(hours(sine, cosine) + 1) % DAY])
        reward, after = gains(price, charge)
        best = (reward + 0.999 * interpolate(CHARGES, ahead, after)).argmax(1)
        return [powers[best].astype(np.float32)[:, None]]

    return Markov("exact/battery@1", act)


@expert("power/Microgrid*")
def microgrid(spec: EnvSpec) -> Markov:
    """Backward induction over hour, load and charge; the generator then gives what is missing,
    because buying costs more."""
    p = problem(spec)
    powers = np.linspace(-1, 1, 41)
    clear = np.linspace(0.3, 1.0, 7)

    def costs(load, shine, charge):
        """Cost of every battery power (..., 41), the charge it leads to, the generator's output."""
        after = np.clip(charge[..., None] + powers / p.hours, 0, 1)
        net = load[..., None] + (after - charge[..., None]) * p.hours - shine[..., None]
        output = np.clip(net, 0, 1)
        missing = np.maximum(net - output, 0)
        return 0.5 * output + 0.5 * output**2 + p.penalty * missing, after, output

    def update(hour: int, ahead: np.ndarray) -> np.ndarray:
        load = np.clip(0.6 - 0.3 * np.sin(ANGLES[hour]) + 0.1 * DEVIATIONS, 0.1, 2)
        sun = p.sun * max(-np.cos(ANGLES[hour]), 0.0)
        total = np.zeros((len(load), len(CHARGES)))
        for share in clear if sun else clear[:1]:
            shine = np.broadcast_to(sun * share, total.shape)
            cost, after, _ = costs(
                np.broadcast_to(load[:, None], total.shape),
                shine,
                np.broadcast_to(CHARGES, total.shape),
            )
            later = interpolate(CHARGES, ahead, after.reshape(len(load), -1)).reshape(after.shape)
            total += (later - cost).max(-1)
        return total / (len(clear) if sun else 1)

    value = backwards(update, (len(DEVIATIONS), len(CHARGES)))

    def act(observation: Arrays) -> Arrays:
        charge, load, shine, sine, cosine = observation[0].astype(np.float64).T
        deviation = nearest((load - 0.6 + 0.3 * sine) / 0.1)
        ahead = np.einsum("nd,ndc->nc", CHANCES[deviation], value[(hours(sine, cosine) + 1) % DAY])
        cost, after, output = costs(load, shine, charge)
        best = (0.999 * interpolate(CHARGES, ahead, after) - cost).argmax(1)
        rows = np.arange(len(best))
        return [np.stack([output[rows, best], powers[best]], 1).astype(np.float32)]

    return Markov("exact/microgrid@1", act)


@expert("power/Commitment*")
def commitment(spec: EnvSpec) -> Markov:
    """Backward induction over hour, load and which units run."""
    p = problem(spec)
    sets = (np.arange(2**p.units)[:, None] >> np.arange(p.units)) % 2  # (2^units, units)
    starts = p.start * ((1 - sets)[:, None] * sets).sum(-1)  # [before, after]

    def dispatch(load: np.ndarray) -> np.ndarray:
        """Cost of every set at every load, (loads, 2^units): the cheapest units first."""
        output = np.broadcast_to(0.3 * p.size * sets, (len(load), *sets.shape)).copy()
        missing = load[:, None] - output.sum(-1)
        for unit in range(p.units):
            more = np.clip(missing, 0, 0.7 * p.size[unit]) * sets[:, unit]
            output[..., unit] += more
            missing = missing - more
        return output @ p.cost + 5 * np.maximum(missing, 0)

    def update(hour: int, ahead: np.ndarray) -> np.ndarray:
        load = np.clip(0.7 - 0.25 * np.sin(ANGLES[hour]) + 0.1 * DEVIATIONS, 0.1, 2)
        return ((ahead - dispatch(load))[:, None] - starts).max(-1)

    value = backwards(update, (len(DEVIATIONS), len(sets)))

    def act(observation: Arrays) -> Arrays:
        rows = observation[0].astype(np.float64)
        load, sine, cosine = rows[:, 0], rows[:, -2], rows[:, -1]
        before = np.rint(rows[:, 1:-2] @ 2 ** np.arange(p.units)).astype(int)
        deviation = nearest((load - 0.7 + 0.25 * sine) / 0.1)
        ahead = np.einsum("nd,nds->ns", CHANCES[deviation], value[(hours(sine, cosine) + 1) % DAY])
        return [(0.999 * ahead - dispatch(load) - starts[before]).argmax(1).astype(np.int32)]

    return Markov("exact/unit-commitment@1", act)


@expert("power/Charging*")
def charging(spec: EnvSpec) -> Markov:
    """The least slack (hours left less hours needed) first, up to the connection's limit: at once
    where the slack is small or the price is low, else later."""
    p = problem(spec)

    def family(tenths: int, slack_hours: int) -> Policy:
        def charge(rows: np.ndarray) -> np.ndarray:
            need, left = np.moveaxis(10 * rows[:, : 2 * p.bays].reshape(len(rows), -1, 2), -1, 0)
            slack, price = left - need, rows[:, -3:-2]
            wants = (left > 0.5) & ((price < tenths / 10) | (slack < slack_hours + 0.5))
            power = np.where(wants, np.clip(need, 0, 1), 0)
            order = np.argsort(slack, axis=1, kind="stable")
            sorted_power = np.take_along_axis(power, order, 1)
            before = np.cumsum(sorted_power, 1) - sorted_power
            given = np.clip(p.limit * p.bays - before, 0, sorted_power)
            np.put_along_axis(power, order, given, 1)
            return power.astype(np.float32)

        return charge

    policy = search(p, family, (10, 2))
    return Markov("scripted/least-slack@1", lambda observation: [policy(observation[0])])


@expert("power/Heating*")
def heating(spec: EnvSpec) -> Markov:
    """Heats to a little above 20 °C, the more the cheaper, by the balance of the room's losses."""
    p = problem(spec)

    def family(tenths: int, slope: int) -> Policy:
        def heat(rows: np.ndarray) -> np.ndarray:
            warmth, outside, price = (
                22 + 10 * rows[:, :-4],
                22 + 10 * rows[:, -4:-3],
                rows[:, -3:-2],
            )
            beside = np.pad(warmth, ((0, 0), (1, 1)), mode="edge")
            flow = 0.1 * (beside[:, :-2] + beside[:, 2:] - 2 * warmth)
            cold = warmth + flow + p.leak * (outside - warmth)
            aim = 20 + tenths / 10 + slope / 5 * (1 - price)
            return np.clip((np.maximum(aim, 20) - cold) / 3, 0, 1).astype(np.float32)

        return heat

    policy = search(p, family, (4, 2))
    return Markov("scripted/price-heating@1", lambda observation: [policy(observation[0])])
