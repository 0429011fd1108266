"""Level-based foraging where everything is in view: all players go for the same food."""

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
    """The food that all can lift together and that is nearest to the farthest of them; the players
    gather round it, one after the other, and load once enough of them are there."""
    size = int(spec.id.rpartition("/")[2].partition("x")[0])
    players = int(spec.id.partition("p-")[0][-1])

    def act(observation: Arrays) -> Arrays:
        rows = observation[0].astype(int).reshape(len(observation[0]), -1, 3)
        actions = [plan(row[:-players], row[-players:], size) for row in rows]
        return list(np.array(actions, np.int32).T)

    return Markov("scripted/forage-together@1", act)


def plan(foods: np.ndarray, players: np.ndarray, size: int) -> list[int]:
    """An action a player. foods, players: row, column, level of each; level 0: eaten."""
    left = [tuple(food) for food in foods if food[2] > 0 and food[2] <= players[:, 2].sum()]
    if not left:
        return [STAY] * len(players)
    places = [(int(r), int(c)) for r, c, _ in players]
    row, column, level = min(left, key=lambda food: (spread(food, places), food))
    there = [abs(r - row) + abs(c - column) == 1 for r, c in places]
    if sum(players[there, 2]) >= level:
        return [LOAD if near else STAY for near in there]
    taken = {(int(r), int(c)) for r, c, food_level in foods if food_level > 0} | set(places)
    actions = []
    for place, near in zip(places, there):
        action = STAY if near else first_move(place, (row, column), taken, size)
        if action:
            taken.add(moved(place, action))
        actions.append(action)
    return actions


def spread(food: tuple, places: list[Cell]) -> int:
    return max(abs(r - food[0]) + abs(c - food[1]) for r, c in places)


def moved(cell: Cell, action: int) -> Cell:
    return cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]


def first_move(start: Cell, goal: Cell, taken: set[Cell], size: int) -> int:
    """The first move of a shortest way to a cell beside the goal; STAY where there is none."""
    first, queue = {start: STAY}, deque([start])
    while queue:
        cell = queue.popleft()
        if abs(cell[0] - goal[0]) + abs(cell[1] - goal[1]) == 1:
            return first[cell]
        for action in MOVES:
            there = moved(cell, action)
            inside = 0 <= there[0] < size and 0 <= there[1] < size
            if inside and there not in taken and there not in first:
                first[there] = first[cell] or action
                queue.append(there)
    return STAY
