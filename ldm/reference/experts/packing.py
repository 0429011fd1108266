"""Jumanji's problems of allocation: greedy rules of the literature over what its masks allow."""

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert


def best(score: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The index (N,) of the highest score among those allowed; both (N, choices)."""
    return np.where(mask > 0, score, -np.inf).argmax(1)


@expert("envpool/BinPack-v2")
def bin_pack(spec: EnvSpec) -> Markov:
    """The largest item that fits anywhere, into the free space that it leaves least of."""

    def act(observation: Arrays) -> Arrays:
        x1, x2, y1, y2, z1, z2, _, *items, _, _, mask = observation
        item = items[0] * items[1] * items[2]  # volumes
        space = (x2 - x1) * (y2 - y1) * (z2 - z1)
        score = 10 * item[:, None, :] - space[:, :, None]
        chosen = best(score.reshape(len(score), -1), mask.reshape(len(mask), -1))
        return [np.stack(np.divmod(chosen, item.shape[1]), 1).astype(np.int32)]

    return Markov("scripted/largest-item@1", act)


@expert("envpool/FlatPack-v0")
def flat_pack(spec: EnvSpec) -> Markov:
    """The block with the most cells, the first place where it goes."""

    def act(observation: Arrays) -> Arrays:
        _, blocks, mask = observation
        cells = (blocks > 0).sum((2, 3)).astype(float)
        score = np.broadcast_to(cells[:, :, None, None, None], mask.shape)
        chosen = best(score.reshape(len(mask), -1), mask.reshape(len(mask), -1))
        return [np.stack(np.unravel_index(chosen, mask.shape[1:]), 1).astype(np.int32)]

    return Markov("scripted/largest-block@1", act)


@expert("envpool/GraphColoring-v1")
def colour(spec: EnvSpec) -> Markov:
    """The lowest colour that no neighbour has."""
    return Markov(
        "scripted/greedy-colouring@1",
        lambda observation: [(observation[1] > 0).argmax(1).astype(np.int32)],
    )


@expert("envpool/JobShop-v0")
def job_shop(spec: EnvSpec) -> Markov:
    """Every machine takes the job with the most work left; it waits only where there is none."""

    def act(observation: Arrays) -> Arrays:
        _, durations, left, *_, mask = observation
        work = np.where(left > 0, durations, 0).sum(2).astype(float)
        waiting = np.full((len(work), 1), -1.0)
        score = np.concatenate([work, waiting], 1)[:, None]
        return [np.where(mask > 0, score, -np.inf).argmax(2).astype(np.int32)]

    return Markov("scripted/most-work-left@1", act)


@expert("envpool/CVRP-v1")
def deliver(spec: EnvSpec) -> Markov:
    """On to the nearest customer whose demand is on board, back to the depot where none is left."""

    def act(observation: Arrays) -> Arrays:
        coordinates, _, _, position, _, _, mask = observation
        here = coordinates[np.arange(len(position)), position]
        far = ((coordinates - here[:, None]) ** 2).sum(2)
        far[:, 0] = 1e3
        return [best(-far, mask).astype(np.int32)]

    return Markov("scripted/nearest-customer@1", act)


@expert("envpool/MultiCVRP-v0")
def deliver_together(spec: EnvSpec) -> Markov:
    """Each vehicle on to the nearest customer that it may serve, no two to the same."""

    def act(observation: Arrays) -> Arrays:
        customers, vehicles, mask = observation[0], observation[6], observation[9].copy()
        chosen = []
        for vehicle in range(vehicles.shape[1]):
            far = ((customers - vehicles[:, vehicle, None]) ** 2).sum(2)
            far[:, 0] = 1e6
            number = best(-far, mask[:, vehicle])
            chosen.append(number)
            taken = np.arange(mask.shape[2]) == number[:, None]
            mask[:, vehicle + 1 :] &= ~(taken & (number > 0)[:, None])[:, None]
        return [np.stack(chosen, 1).astype(np.int32)]

    return Markov("scripted/nearest-customers@1", act)
