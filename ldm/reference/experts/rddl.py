"""References for RDDL domains, from the constants of the instance; functions of the state."""

import numpy as np

from ldm.envs.interface import Actor, Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


@expert("rddl/SysAdmin-*")
def reboot(spec: EnvSpec) -> Actor:
    """Reboots the stopped computer that most helps others: 1 + Σ over its running neighbours of the
    running probability that they gain, 0.5 / (1 + their in-degree). Ties go to the lower index."""
    links = np.asarray(_constants(spec)["CONNECTED"], np.float64)  # [from, to]
    share = 0.5 / (1 + links.sum(0))

    def rule(observation: Arrays) -> Arrays:
        (running,) = observation
        worth = (1 + (links * share) @ running.T).T * (running == 0)
        best = worth.argmax(1)
        action = np.zeros_like(running)
        action[np.arange(len(action)), best] = worth.max(1) > 0
        return [action]

    return Markov("scripted/sysadmin@1", rule)


@expert("rddl/HVAC-*")
def heat(spec: EnvSpec) -> Actor:
    """Air that brings a room the share 0.6 of the way to the middle of its comfort range, after
    what neighbours, hall and outside take: the heat balance of the domain solved for the air
    flow."""
    c = _constants(spec)
    near = (np.asarray(c["ADJ"]) | np.asarray(c["ADJ"]).T) / np.asarray(c["R_WALL"])
    outside = np.asarray(c["ADJ_OUTSIDE"]) / np.asarray(c["R_OUTSIDE"])
    hall = np.asarray(c["ADJ_HALL"]) / np.asarray(c["R_HALL"])
    target = (np.asarray(c["TEMP_UP"]) + np.asarray(c["TEMP_LOW"])) / 2
    step = np.asarray(c["CAP"]) / c["TIME_DELTA"]

    def law(observation: Arrays) -> Arrays:
        temperature = observation[0].astype(np.float64)
        gain = temperature @ near.T - temperature * near.sum(1)
        gain += outside * (np.asarray(c["TEMP_OUTSIDE_MEAN"]) - temperature)
        gain += hall * (np.asarray(c["TEMP_HALL_MEAN"]) - temperature)
        wanted = 0.6 * step * (target - temperature) - gain
        air = wanted / (c["CAP_AIR"] * np.maximum(c["TEMP_AIR"] - temperature, 1))
        return [np.clip(air, 0, np.asarray(c["AIR_MAX"])).astype(np.float32)]

    return Markov("scripted/heat-balance@1", law)


@expert("rddl/ReservoirContinuous-*")
def release(spec: EnvSpec) -> Actor:
    """Releases half of what stands above the middle of the wanted range."""
    c = _constants(spec)
    middle = (np.asarray(c["MIN_LEVEL"]) + np.asarray(c["MAX_LEVEL"])) / 2

    def law(observation: Arrays) -> Arrays:
        return [np.maximum(0.5 * (observation[0] - middle), 0).astype(np.float32)]

    return Markov("scripted/reservoir@1", law)


@expert("rddl/ReservoirDiscrete-*")
def open_valves(spec: EnvSpec) -> Actor:
    """Opens a valve (which empties the reservoir) where the level, with what the opened ones above
    pour in, would pass the upper end of the wanted range; upstream first."""
    c = _constants(spec)
    links = np.asarray(c["RES_CONNECT"], np.float64)  # [from, to]
    share = links / np.maximum(links.sum(1) + np.asarray(c["CONNECTED_TO_SEA"]), 1)[:, None]
    size = len(links)
    downstream = (np.linalg.matrix_power(links + np.eye(size), size) > 0).sum(1)
    order = np.argsort(-downstream, kind="stable")

    def rule(observation: Arrays) -> Arrays:
        (level,) = observation
        opened = np.zeros(level.shape, np.int32)
        for i in order:
            inflow = (opened * level) @ share[:, i]
            opened[:, i] = level[:, i] + inflow > np.asarray(c["MAX_LEVEL"])[i]
        return [opened]

    return Markov("scripted/reservoir-valves@1", rule)


@expert("rddl/PowerGenContinuous-*")
def generate(spec: EnvSpec) -> Actor:
    """Today's demand (an exact function of today's temperature) and a margin, in equal shares."""
    c = _constants(spec)
    largest = np.asarray(c["PROD-UNITS-MAX"])

    def law(observation: Arrays) -> Arrays:
        needed = _demand(c, observation[1]) + 0.75
        return [np.minimum(needed * largest / largest.sum(), largest).astype(np.float32)]

    return Markov("scripted/power-demand@1", law)


@expert("rddl/PowerGenDiscrete-*")
def switch(spec: EnvSpec) -> Actor:
    """Today's demand, rounded up with a margin, from the plants that produced least yesterday (the
    domain pays for changes); ties go to the lower index."""
    c = _constants(spec)
    largest = np.asarray(c["PROD-UNITS-MAX"], np.int64)

    def rule(observation: Arrays) -> Arrays:
        before, temperature = observation
        left = np.ceil(_demand(c, temperature)[:, 0] + 0.3).astype(np.int64)
        action = np.zeros(before.shape, np.int32)
        order, rows = before.argsort(1, kind="stable"), np.arange(len(before))
        for plant in order.T:
            action[rows, plant] = np.minimum(left, largest[plant])
            left = left - action[rows, plant]
        return [action]

    return Markov("scripted/power-switch@1", rule)


def _demand(c: dict, temperature: np.ndarray) -> np.ndarray:
    away = temperature - c["MIN-DEMAND-TEMP"]
    return c["MIN-CONSUMPTION"] + c["DEMAND-EXP-COEF"] * away**2


@expert("rddl/SupplyChain-*")
def base_stock(spec: EnvSpec) -> Actor:
    """Base-stock policy: every warehouse is filled up to the most that may be asked next (the
    critical fractile 0.5 / (0.5 + 0.1) lies above the demand's coin flip), the factory produces
    what the warehouses will order after that, and eight units more. Shipments never exceed the
    factory's stock, for then nothing would ship."""
    c = _constants(spec)
    index = np.asarray(c["INDEX"])

    def most(epoch: np.ndarray) -> np.ndarray:
        half = c["MAX-DEMAND"] / 2
        wave = np.sin(2 * np.pi * (epoch + 2 * index) / 12)
        return np.floor(half * wave + half + 1e-6) + 1

    def law(observation: Arrays) -> Arrays:
        epoch, _, _, factory, stock = (leaf.reshape(len(leaf), -1) for leaf in observation)
        wanted = np.maximum(most(epoch) - stock, 0)
        ship = np.floor(wanted * np.minimum(factory / np.maximum(wanted.sum(1), 1)[:, None], 1))
        produce = most(epoch + 1).sum(1) + 8 - factory[:, 0] + wanted.sum(1)
        produce = np.clip(produce, 0, c["PRODUCE-MAX"])
        return [produce.astype(np.int32), np.clip(ship, 0, 100).astype(np.float32)]

    return Markov("scripted/base-stock@1", law)


def _constants(spec: EnvSpec) -> dict:
    """The instance's non-fluents: scalars, or arrays over objects."""
    from ldm.envs.adapters.rddl import load

    env = load(spec.make)
    return {name: env.sampler.init_values[name] for name in env.model.non_fluents}
