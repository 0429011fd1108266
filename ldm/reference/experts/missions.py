"""MiniGrid tasks with a mission in words: search on the map of what has been seen so far."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ldm.envs.spec import EnvSpec
from ldm.reference.experts import expert
from ldm.reference.experts.gridworld import (
    DOOR,
    EMPTY,
    FORWARD,
    KEY,
    LOCKED,
    OPEN,
    PICK_UP,
    TOGGLE,
    UNSEEN,
    GridSearch,
    Mapper,
)

BALL, BOX = 6, 7
DROP, DONE = 4, 6
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
KINDS = {"door": DOOR, "key": KEY, "ball": BALL, "box": BOX}
EMPTY_HANDS = (EMPTY, DOOR)  # kinds of the agent's own cell: nothing carried, in a doorway

Aims = list[tuple[np.ndarray, int]]


class Errand(Mapper):
    """things: the kind and colour of every thing that the mission names, in order. plan: the aims
    that come before exploring."""

    def __init__(self, mission: str, plan: Callable[["Errand"], Aims]):
        super().__init__()
        words = mission.replace(",", "").split()
        self.plan = plan
        self.things = [
            (KINDS[word], COLOURS.index(before))
            for before, word in pairwise(words)
            if word in KINDS and before in COLOURS
        ]

    def aims(self) -> Aims:
        return [*self.plan(self), (self.kind == UNSEEN, FORWARD)]

    def where(self, number: int) -> np.ndarray:
        kind, colour = self.things[number]
        return (self.kind == kind) & (self.colour == colour)

    @property
    def free(self) -> bool:
        return self.held in EMPTY_HANDS


def beside(cells: np.ndarray, diagonal: bool = False) -> np.ndarray:
    """The neighbours of any of `cells`."""
    shifts = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    shifts += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if diagonal else []
    return np.any([np.roll(cells, shift, (0, 1)) for shift in shifts], axis=0)


def fetch(errand: Errand) -> Aims:
    return [(errand.where(0), PICK_UP)]


def go_to(errand: Errand) -> Aims:
    return [(errand.where(0), DONE)]


def doors_in_order(errand: Errand) -> Aims:
    first, second = (errand.where(i) & (errand.state != OPEN) for i in range(2))
    opened = (errand.where(0) & (errand.state == OPEN)).any()
    return [(second, TOGGLE)] if opened else [(first, TOGGLE)]


def put_near(errand: Errand) -> Aims:
    if errand.free:
        return fetch(errand)
    near = beside(errand.where(1), diagonal=True) & (errand.kind == EMPTY)
    return [(near, DROP)]


def unlock_and_fetch(errand: Errand) -> Aims:
    """What blocks a locked door is carried off first; hands must be free for what is wanted."""
    room = errand.kind == EMPTY
    put_down = [(room & ~beside(errand.kind == DOOR), DROP), (room, DROP)]
    wanted = errand.where(0)
    if wanted.any() and errand.search(wanted, PICK_UP) is not None:
        return [(wanted, PICK_UP)] if errand.free else put_down
    if not errand.free and errand.held != KEY:
        return put_down
    locked = (errand.kind == DOOR) & (errand.state == LOCKED)
    blocking = (errand.kind == BALL) & beside(locked)
    first = [(blocking, PICK_UP)] if errand.free else []
    return [*first, (errand.closed(), TOGGLE), (errand.keys(), PICK_UP)]


PLANS = {
    "Fetch": fetch,
    "GoToDoor": go_to,
    "GoToObject": go_to,
    "RedBlueDoors": doors_in_order,
    "PutNear": put_near,
    "UnlockPickup": unlock_and_fetch,
    "KeyCorridor": unlock_and_fetch,
    "BlockedUnlockPickup": unlock_and_fetch,
}


@expert(*(f"envpool/MiniGrid-{family}*" for family in PLANS))
def errand(spec: EnvSpec) -> GridSearch:
    family = spec.base_task.partition("-")[2]
    search = GridSearch(lambda mission: Errand(mission, PLANS[family]))
    search.id = f"scripted/grid-errand-{family}@1"
    return search
