"""NetHack's levels as a player sees them: a map that grows with every look, ways over it, and what
the bottom line's message asks. No experts in here: minihack.py and nethack.py have them."""

import re
from collections import deque

import numpy as np

Cell = tuple[int, int]  # x, y

COMPASS = {"N": (0, -1), "E": (1, 0), "S": (0, 1), "W": (-1, 0)}
COMPASS |= {"NE": (1, -1), "SE": (1, 1), "SW": (-1, 1), "NW": (-1, -1)}
BROWN, BLUE = 3, 4  # colours of doors, of water
UNKNOWN = (" ", 0)
SOLID = " |-}`"  # what nobody walks over, unless it is an open door
TRIES = 3  # at a step that does not succeed, before it counts as blocked


class Level:
    """What has been seen of one level, by absolute cell; where the hero is."""

    def __init__(self):
        self.seen: dict[Cell, tuple[str, int]] = {}
        self.under: dict[Cell, str] = {}  # what is not a creature
        self.stood: dict[Cell, int] = {}
        self.here: Cell = (0, 0)
        self.blocked: set[Cell] = set()
        self.failed: dict[tuple[Cell, Cell], int] = {}
        self.wanted: Cell | None = None  # where the last action should have led

    def look(self, chars: np.ndarray, colours: np.ndarray, corner: Cell, here: Cell) -> None:
        """chars, colours: (rows, columns), the first of which shows `corner`."""
        if self.wanted is not None and self.wanted != here:
            edge = (self.here, self.wanted)
            self.failed[edge] = self.failed.get(edge, 0) + 1
        self.wanted, self.here = None, here
        self.stood[here] = self.stood.get(here, 0) + 1
        for y, x in zip(*np.nonzero(chars != ord(" "))):
            cell = (corner[0] + int(x), corner[1] + int(y))
            char = chr(chars[y, x])
            self.seen[cell] = (char, int(colours[y, x]))
            if not is_creature(char) and cell != here:
                self.under[cell] = char
        self.under.setdefault(here, ".")

    def at(self, cell: Cell) -> tuple[str, int]:
        return self.seen.get(cell, UNKNOWN)

    def cells(self, chars: str) -> list[Cell]:
        """Where one of `chars` was seen last, but not under the hero."""
        return [
            cell for cell, (char, _) in self.seen.items() if char in chars and cell != self.here
        ]

    def is_door(self, cell: Cell) -> bool:
        char, colour = self.at(cell)
        return char in "+|-" and colour == BROWN

    def is_open(self, cell: Cell, risky: bool) -> bool:
        char, _ = self.at(cell)
        if cell in self.blocked:
            return False
        if is_creature(char) and cell != self.here:
            return risky
        if char == "^":
            return risky
        return self.is_door(cell) or char not in SOLID

    def neighbours(self, cell: Cell, risky: bool = False):
        """The cells that one step leads to."""
        for dx, dy in COMPASS.values():
            there = (cell[0] + dx, cell[1] + dy)
            if not self.is_open(there, risky) or self.failed.get((cell, there), 0) >= TRIES:
                continue
            if dx and dy and (self.is_door(cell) or self.is_door(there)):
                continue
            yield there

    def way(self, goals, risky: bool = False) -> list[Cell]:
        """A shortest way from here to the nearest cell for which `goals(cell)`; empty: none."""
        before: dict[Cell, Cell | None] = {self.here: None}
        queue = deque([self.here])
        while queue:
            cell = queue.popleft()
            if cell != self.here and goals(cell):
                back: list[Cell] = []
                while cell != self.here:
                    back.append(cell)
                    cell = before[cell]  # type: ignore[assignment]  # only the start has none
                return back[::-1]
            for there in self.neighbours(cell, risky):
                if there not in before:
                    before[there] = cell
                    queue.append(there)
        return []

    def is_frontier(self, cell: Cell) -> bool:
        """Whether standing there would show something new."""
        if cell in self.stood:
            return False
        return any(self.at((cell[0] + dx, cell[1] + dy)) == UNKNOWN for dx, dy in COMPASS.values())

    def step_to(self, cell: Cell) -> str:
        """The compass direction of a neighbour, which is expected to be reached."""
        self.wanted = cell
        return toward(self.here, cell)

    def explore(self) -> str | None:
        """A step towards the nearest place that shows something new; traps and creatures are met
        only where nothing else is left."""
        for risky in (False, True):
            if way := self.way(self.is_frontier, risky):
                return self.step_to(way[0])
        return None

    def approach(self, goals) -> str | None:
        """A step on a shortest way to one of those cells."""
        for risky in (False, True):
            if way := self.way(goals, risky):
                return self.step_to(way[0])
        return None

    def wander(self) -> str | None:
        """A step to the neighbour that was stood on least, to look for what was missed."""
        around = list(self.neighbours(self.here, True))
        if not around:
            return None
        return self.step_to(min(around, key=lambda cell: (self.stood.get(cell, 0), cell)))

    def adjacent(self, chars: str | None = None) -> list[Cell]:
        """Neighbours that show one of `chars`, or a creature."""
        around = [(self.here[0] + dx, self.here[1] + dy) for dx, dy in COMPASS.values()]
        return [
            c for c in around if (self.at(c)[0] in chars if chars else is_creature(self.at(c)[0]))
        ]


def is_creature(char: str) -> bool:
    return char.isalpha() or char in "@&;:'"


def toward(start: Cell, goal: Cell) -> str:
    """The compass direction from one cell to another (the nearest of eight)."""
    dx, dy = np.sign(goal[0] - start[0]), np.sign(goal[1] - start[1])
    return next(name for name, step in COMPASS.items() if step == (dx, dy))


def text(message: np.ndarray) -> str:
    return bytes(message.astype(np.uint8)).rstrip(b"\0").decode("latin-1")


def letter_of(message: str) -> str | None:
    """The letter of an inventory that "f - a dagger." names."""
    found = re.search(r"\b([a-zA-Z]) - ", message)
    return found[1] if found else None


def choices(message: str) -> str:
    """The letters that a prompt such as "[abf or ?*]" offers."""
    found = re.search(r"\[(?:- )?([a-zA-Z-]+) or \?\*\]", message)
    if not found:
        return ""
    spans = re.sub(
        r"(\w)-(\w)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), found[1]
    )
    return spans
