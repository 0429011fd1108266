"""Level-based foraging where everything is in view: all players go for the same food, each to a
side of its own. What a player does so hangs on few numbers, and can be learnt from few episodes;
the nearest food and a free side of it could not (docs/results/one-model.md)."""

from collections import deque

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert

STAY, LOAD = 0, 5
MOVES = {1: (-1, 0), 2: (1, 0), 3: (0, -1), 4: (0, 1)}  # north, south, west, east

Cell = tuple[int, int]


@expert("lbforaging/5x5-*", "lbforaging/8x8-*", "lbforaging/10x10-*", "lbforaging/15x15-*")
def forage(spec: EnvSpec) -> Markov:
    """The first food that is left and that all can lift together."""
    size = int(spec.id.rpartition("/")[2].partition("x")[0])
    players = int(spec.id.partition("p-")[0][-1])

    def act(observation: Arrays) -> Arrays:
        rows = observation[0].astype(int).reshape(len(observation[0]), -1, 3)
        actions = [plan(row[:-players], row[-players:], size) for row in rows]
        return list(np.array(actions, np.int32).T)

    return Markov("scripted/forage-together@2", act)


def plan(foods: np.ndarray, players: np.ndarray, size: int) -> list[int]:
    """An action a player. foods, players: row, column, level of each; level 0: eaten."""
    left = [food for food in foods if 0 < food[2] <= players[:, 2].sum()]
    if not left:
        return [STAY] * len(players)
    places = [(int(r), int(c)) for r, c, _ in players]
    taken = {(int(r), int(c)) for r, c, level in foods if level > 0} | set(places)
    goals = beside(left[0], taken - set(places), size)
    actions = []
    for place, goal in zip(places, goals):
        action = LOAD if place == goal else first_move(place, goal, taken - {goal}, size)
        there = moved(place, action)
        actions.append(STAY if action in MOVES and there in taken else action)
        taken.add(there)
    return actions


def beside(food: np.ndarray, taken: set[Cell], size: int) -> list[Cell]:
    """Where the players stand in turn: north, south, west, east. No food is beside another, so
    there are four, three at a border."""
    around = [(int(food[0]) + down, int(food[1]) + right) for down, right in MOVES.values()]
    return [(r, c) for r, c in around if 0 <= r < size and 0 <= c < size and (r, c) not in taken]


def moved(cell: Cell, action: int) -> Cell:
    down, right = MOVES.get(action, (0, 0))
    return cell[0] + down, cell[1] + right


def first_move(start: Cell, goal: Cell, taken: set[Cell], size: int) -> int:
    """The first move of a shortest way to the goal; STAY where there is none."""
    first, queue = {start: STAY}, deque([start])
    while queue:
        cell = queue.popleft()
        if cell == goal:
            return first[cell]
        for action in MOVES:
            there = moved(cell, action)
            inside = 0 <= there[0] < size and 0 <= there[1] < size
            if inside and there not in taken and there not in first:
                first[there] = first[cell] or action
                queue.append(there)
    return STAY
