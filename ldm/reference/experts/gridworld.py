"""MiniGrid tasks of finding a goal or a door: search on the map of what has been seen so far."""

from collections import deque
from collections.abc import Callable

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import expert

UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, GOAL = 0, 1, 2, 3, 4, 5, 8
OPEN, LOCKED = 0, 2  # states of a door
LEFT, RIGHT, FORWARD, PICK_UP, TOGGLE = 0, 1, 2, 3, 5
HEADINGS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up
SIDE = 64  # of the map; the agent starts in its middle
VIEW = 7  # cells; the agent stands in the middle of its last row


class Mapper:
    """The map of one episode in the frame of its first cell."""

    def __init__(self):
        self.kind = np.zeros((SIDE, SIDE), np.int8)
        self.colour = np.zeros((SIDE, SIDE), np.int8)
        self.state = np.zeros((SIDE, SIDE), np.int8)
        self.position = np.array([SIDE // 2, SIDE // 2])
        self.heading = 0
        self.held = EMPTY  # the kind of what the agent carries

    def see(self, heading: int, view: np.ndarray) -> None:
        """view: (7, 7, 3) of (column from the left, row from afar), kind, colour and state."""
        self.heading = heading
        self.held = int(view[VIEW // 2, VIEW - 1, 0])
        column, row = np.nonzero(view[..., 0] != UNSEEN)
        right, ahead = column - VIEW // 2, VIEW - 1 - row
        x, y = (
            self.position
            + np.outer(ahead, HEADINGS[heading])
            + np.outer(right, HEADINGS[(heading + 1) % 4])
        ).T
        elsewhere = (right != 0) | (ahead != 0)  # what the agent carries shows in its own cell
        for channel, layer in enumerate((self.kind, self.colour, self.state)):
            layer[x[elsewhere], y[elsewhere]] = view[column, row, channel][elsewhere]
        if self.kind[tuple(self.position)] == UNSEEN:
            self.kind[tuple(self.position)] = EMPTY

    def did(self, action: int) -> None:
        """Follows an executed action; turns show in the next heading."""
        ahead = self.position + HEADINGS[self.heading]
        if action == FORWARD and self.passable()[tuple(ahead)]:
            self.position = ahead

    def passable(self) -> np.ndarray:
        free = (self.kind == EMPTY) | (self.kind == FLOOR) | (self.kind == GOAL)
        return free | ((self.kind == DOOR) & (self.state == OPEN))

    def aims(self) -> list[tuple[np.ndarray, int]]:
        """Cells to face and what to do there, in the order of preference: the goal, else a door
        that can be opened, else the key, else where something unseen is next."""
        goal, unseen = (self.kind == GOAL, FORWARD), (self.kind == UNSEEN, FORWARD)
        return [goal, (self.closed(), TOGGLE), (self.keys(), PICK_UP), unseen]

    def closed(self) -> np.ndarray:
        """The doors that can be opened now."""
        shut = (self.kind == DOOR) & (self.state != OPEN)
        return shut & ((self.state != LOCKED) | (self.held == KEY))

    def keys(self) -> np.ndarray:
        return (self.kind == KEY) & (self.held != KEY)

    def choose(self) -> int:
        """The first action of the shortest way to what is preferred of all that can be reached."""
        for target, last in self.aims():
            if target.any() and (action := self.search(target, last)) is not None:
                return action
        return LEFT

    def search(self, target: np.ndarray, last: int) -> int | None:
        """The first action towards facing a cell of `target`, `last` where it is faced already."""
        free, aim = self.passable().tolist(), target.tolist()
        start = (*self.position.tolist(), self.heading)
        # state → the action that the way there begins with
        first: dict[tuple, int | None] = {start: None}
        queue = deque([start])
        while queue:
            x, y, heading = queue.popleft()
            begun = first[x, y, heading]
            ahead_x, ahead_y = x + int(HEADINGS[heading, 0]), y + int(HEADINGS[heading, 1])
            if aim[ahead_x][ahead_y]:
                return last if begun is None else begun
            steps = [(LEFT, (x, y, (heading - 1) % 4)), (RIGHT, (x, y, (heading + 1) % 4))]
            if free[ahead_x][ahead_y]:
                steps.insert(0, (FORWARD, (ahead_x, ahead_y, heading)))
            for action, state in steps:
                if state not in first:
                    first[state] = action if begun is None else begun
                    queue.append(state)
        return None


class GridSearch:
    """A mapper for every stream."""

    id = "scripted/grid-search@1"

    def __init__(self, mapper: Callable[[str], Mapper] = lambda mission: Mapper()):
        self.mapper = mapper  # of a mission
        self.maps: list[Mapper] = []

    def act(self, timestep: TimeStep) -> Arrays:
        heading, view, mission = timestep.observation
        actions = np.zeros(len(heading), np.int32)
        self.maps = self.maps or [Mapper() for _ in heading]
        for i, started in enumerate(timestep.started):
            if started:
                self.maps[i] = self.mapper(bytes(mission[i]).rstrip(b"\0").decode())
            else:
                self.maps[i].did(int(timestep.action[0][i]))
            self.maps[i].see(int(heading[i]), view[i])
            if not (timestep.terminated[i] or timestep.truncated[i]):
                actions[i] = self.maps[i].choose()
        return [actions]


FAMILIES = (
    "Empty",
    "DoorKey",
    "LavaGap",
    "LavaCrossing",
    "SimpleCrossing",
    "Unlock-",
    "FourRooms",
    "MultiRoom",
    "DistShift",
    "WFC",
    "LockedRoom",
    "Dynamic-Obstacles",
)


@expert(
    *(f"{library}/MiniGrid-{f}*" for library in ("envpool", "minigrid") for f in FAMILIES),
)
def grid_search(spec: EnvSpec) -> GridSearch:
    return GridSearch()
