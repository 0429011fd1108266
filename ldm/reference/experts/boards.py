"""Jumanji's boards: shortest ways, placement by features, deduction."""

from collections import deque
from functools import lru_cache

import numpy as np

from ldm.envs.interface import Arrays
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import Markov, expert
from ldm.reference.experts.foraging import plan

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left

Cell = tuple[int, int]


def first_move(start: Cell, free: np.ndarray, goals: set[Cell]) -> int | None:
    """The first move (0 to 3) of a shortest way over free cells to a goal, which need not be free
    itself; None where there is no way or the start is a goal."""
    first: dict[Cell, int | None] = {start: None}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        if cell in goals:
            return first[cell]
        for number, (down, right) in enumerate(MOVES):
            there = cell[0] + down, cell[1] + right
            inside = 0 <= there[0] < free.shape[0] and 0 <= there[1] < free.shape[1]
            if inside and there not in first and (free[there] or there in goals):
                first[there] = number if first[cell] is None else first[cell]
                queue.append(there)
    return None


def cells(mask: np.ndarray) -> set[Cell]:
    return {(int(r), int(c)) for r, c in np.argwhere(mask)}


@expert("envpool/Cleaner-v0")
def clean(spec: EnvSpec) -> Markov:
    """Every agent on a shortest way to a dirty tile, each to another one while there are enough."""

    def assign(grid: np.ndarray, agents: np.ndarray) -> list[int]:
        dirty, free, actions = cells(grid == 0), grid != 2, []
        for agent in agents:
            start = (int(agent[0]), int(agent[1]))
            near = sorted(dirty, key=lambda t: (abs(t[0] - start[0]) + abs(t[1] - start[1]), t))
            for target in (near or [start])[:4]:
                if (move := first_move(start, free, {target})) is not None:
                    break
            dirty = dirty - {target} if len(dirty) > 1 else dirty
            actions.append(move or 0)
        return actions

    def act(observation: Arrays) -> Arrays:
        grids, agents = observation[:2]
        return [np.array([assign(g, a) for g, a in zip(grids, agents)], np.int32)]

    return Markov("scripted/clean-nearest@1", act)


@expert("envpool/Connector-v2")
def connect(spec: EnvSpec) -> Markov:
    """Agent after agent on a shortest way to its target through what the others leave free. Cells:
    3 k + 1 agent k's wire, + 2 its head, + 3 its target. Actions: 0 waits, then the four moves."""

    def route(grid: np.ndarray, agents: int) -> list[int]:
        free, actions = grid == 0, []
        for agent in range(agents):
            head, target = cells(grid == 3 * agent + 2), cells(grid == 3 * agent + 3)
            move = first_move(head.pop(), free, target) if head and target else None
            if move is not None:
                row, column = np.argwhere(grid == 3 * agent + 2)[0] + MOVES[move]
                free[row, column] = False
            actions.append(0 if move is None else move + 1)
        return actions

    def act(observation: Arrays) -> Arrays:
        grids, masks = observation[:2]
        return [np.array([route(grid, masks.shape[1]) for grid in grids], np.int32)]

    return Markov("scripted/connect-in-turn@1", act)


@expert("envpool/LevelBasedForaging-v0")
def forage(spec: EnvSpec) -> Markov:
    """As in the original (foraging.py); rows are food and players: row, column, level."""

    def act(observation: Arrays) -> Arrays:
        views = observation[0][:, 0].reshape(len(observation[0]), -1, 3)
        return [np.array([plan(view[:-2], view[-2:], 8) for view in views], np.int32)]

    return Markov("scripted/forage-together@2", act)


@expert("envpool/Sokoban-v0")
def push(spec: EnvSpec) -> Markov:
    """To the nearest place from which one push puts a box on a free target; then that push. Layers:
    3 agent, 4 box; 1 wall, 2 target."""

    def choose(moving: np.ndarray, fixed: np.ndarray) -> int:
        (agent,), boxes = cells(moving == 3), cells(moving == 4)
        free = (moving != 4) & (fixed != 1)
        wanted: dict = {}
        for row, column in sorted(boxes):
            for number, (down, right) in enumerate(MOVES):
                to, stand = (row + down, column + right), (row - down, column - right)
                if fixed[row, column] != 2 and fixed[to] == 2 and free[to] and free[stand]:
                    wanted.setdefault(stand, number)
        if agent in wanted:
            return wanted[agent]
        return first_move(agent, free, set(wanted)) or 0

    def act(observation: Arrays) -> Arrays:
        grids = observation[0]
        return [np.array([choose(g[..., 0], g[..., 1]) for g in grids], np.int32)]

    return Markov("scripted/one-push@1", act)


@lru_cache(maxsize=100_000)
def slide(line: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A line of 2048 pushed to its front, exponents, and what merging pays."""
    result: list[int] = []
    gained, waiting = 0, 0
    for tile in (t for t in line if t):
        if tile == waiting:
            result[-1] += 1
            gained += 2 ** (tile + 1)
            waiting = 0
        else:
            result.append(tile)
            waiting = tile
    return tuple(result + [0] * (len(line) - len(result))), gained


SNAKE = np.array([[15, 14, 13, 12], [8, 9, 10, 11], [7, 6, 5, 4], [0, 1, 2, 3]])
TURNS = (1, 2, 3, 0)  # quarter turns that bring up, right, down, left to the left


@expert("envpool/Game2048-v1")
def merge(spec: EnvSpec) -> Markov:
    """The move after which merges, empty cells and a snake of falling tiles from one corner add up
    to most."""

    def worth(board: np.ndarray, action: int) -> float:
        turned = np.rot90(board, TURNS[action])
        lines = [slide(tuple(line)) for line in turned.tolist()]
        after = np.rot90(np.array([line for line, _ in lines]), -TURNS[action])
        if (after == board).all():
            return -np.inf
        snake = (2.0**after * (after > 0) * 0.25 ** (15 - SNAKE)).sum()
        gained = sum(gain for _, gain in lines)
        return gained + 4 * (after == 0).sum() + 4 * snake

    def act(observation: Arrays) -> Arrays:
        boards = observation[0].astype(int)
        return [np.array([np.argmax([worth(b, a) for a in range(4)]) for b in boards], np.int32)]

    return Markov("scripted/snake-2048@1", act)


def around(cell: Cell, side: int) -> list[Cell]:
    rows = range(max(cell[0] - 1, 0), min(cell[0] + 2, side))
    columns = range(max(cell[1] - 1, 0), min(cell[1] + 2, side))
    return [(r, c) for r in rows for c in columns if (r, c) != cell]


def safest(board: np.ndarray, mines: int) -> Cell:
    """A hidden cell (negative) that some number proves safe, given what numbers prove to be mines;
    else the one with the lowest estimated chance: the largest that a number beside it gives it."""
    hidden = cells(board < 0)
    found: set[tuple[int, int]] = set()
    safe: set[tuple[int, int]] = set()
    numbers = [(int(board[cell]), set(around(cell, len(board)))) for cell in cells(board >= 0)]
    for _ in range(4):  # what is proved proves more
        for count, near in numbers:
            closed = near & hidden
            if len(closed - safe) == count:
                found |= closed - safe
            if len(closed & found) == count:
                safe |= closed - found
    if safe:
        return min(safe)
    chance = {cell: (mines - len(found)) / len(hidden) for cell in hidden - found}
    for count, near in numbers:
        closed = (near & hidden) - found
        for cell in closed:
            chance[cell] = max(chance[cell], (count - len(near & found)) / len(closed))
    return min(chance, key=lambda cell: (chance[cell], cell), default=(0, 0))


@expert("envpool/Minesweeper-v0")
def sweep(spec: EnvSpec) -> Markov:
    def act(observation: Arrays) -> Arrays:
        boards, mines = observation[0], observation[2]
        return [np.array([safest(b, int(m)) for b, m in zip(boards, mines)], np.int32)]

    return Markov("scripted/deduce-mines@1", act)


@expert("envpool/Tetris-v0")
def tetris(spec: EnvSpec) -> Markov:
    """Where the piece leaves the best of rows cleared, holes, height and bumpiness (weights of Lee
    2013). A rotation turns the piece clockwise and moves it to the upper left."""

    def rotated(piece: np.ndarray, times: int) -> np.ndarray:
        turned = np.rot90(piece, -times)
        return turned[np.ix_(turned.any(1), turned.any(0))]

    def worth(grid: np.ndarray, piece: np.ndarray, column: int) -> float:
        height, width = piece.shape
        if column + width > grid.shape[1]:
            return -np.inf
        depth = -1
        while depth + 1 + height <= len(grid):
            under = grid[depth + 1 : depth + 1 + height, column : column + width]
            if (under & piece).any():
                break
            depth += 1
        if depth < 0:
            return -np.inf
        after = grid.copy()
        after[depth : depth + height, column : column + width] |= piece
        full = after.all(1)
        after = np.concatenate([np.zeros((full.sum(), grid.shape[1]), bool), after[~full]])
        heights = np.where(after.any(0), len(grid) - after.argmax(0), 0)
        holes = (heights - after.sum(0)).sum()
        bumps = np.abs(np.diff(heights)).sum()
        return 0.76 * full.sum() - 0.51 * heights.sum() - 0.36 * holes - 0.18 * bumps

    def choose(grid: np.ndarray, piece: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
        pieces = [rotated(piece, times) for times in range(4)]
        places = [(int(r), int(c)) for r, c in np.argwhere(mask > 0)] or [(0, 0)]
        return max(places, key=lambda place: worth(grid, pieces[place[0]], place[1]))

    def act(observation: Arrays) -> Arrays:
        grids, pieces, masks = observation[0] > 0, observation[1] > 0, observation[2]
        return [np.array([choose(*one) for one in zip(grids, pieces, masks)], np.int32)]

    return Markov("scripted/tetris-features@1", act)
