"""Experts of grids, boards, small control tasks and hidden states: better than random, and good."""

import numpy as np
import pytest

from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.reference import experts
from ldm.reference.admission import objection, score
from ldm.reference.experts.boards import first_move, safest, slide
from ldm.reference.experts.foraging import plan
from ldm.reference.experts.missions import BALL, Errand, beside, fetch
from ldm.reference.experts.popgym_hidden import Battleship

# environment, mean return that its reference reaches at least
LEAST = {
    "envpool/MiniGrid-BlockedUnlockPickup-v0": 0.7,
    "envpool/MiniGrid-Fetch-8x8-N3-v0": 0.95,
    "envpool/MiniGrid-GoToDoor-6x6-v0": 0.9,
    "envpool/MiniGrid-KeyCorridorS3R1-v0": 0.9,
    "envpool/MiniGrid-PutNear-6x6-N2-v0": 0.6,
    "envpool/MiniGrid-RedBlueDoors-6x6-v0": 0.95,
    "envpool/Cleaner-v0": 45,
    "envpool/Connector-v2": 0.76,
    "envpool/Game2048-v1": 2500,
    "envpool/GraphColoring-v1": -12,
    "envpool/LevelBasedForaging-v0": 1,
    "envpool/Minesweeper-v0": 10,
    "envpool/MultiCVRP-v0": -43,
    "envpool/Sokoban-v0": 13,
    "envpool/FetchPickAndPlace-v4": -25,
    "envpool/FetchPush-v4": -30,
    "envpool/PendulumSwingup-v1": 500,
    "popgym/BattleshipEasy": 0.3,
    "popgym/MineSweeperEasy": 0.2,
    "popgym/NoisyPositionOnlyCartPoleEasy": 0.7,
    "popgym/NoisyPositionOnlyPendulumEasy": 0.7,
    "popgym/PositionOnlyPendulumEasy": 0.8,
    "popgym/VelocityOnlyCartpoleEasy": 1,
}


@pytest.mark.parametrize("id", LEAST)
def test_the_reference_beats_random_and_reaches_its_level(id):
    spec = find(id)
    env = make(spec, 12, 3)
    try:
        reference = returns(env, experts.find(id).factory(spec), 24)
        random = returns(env, RandomActor(env.action, 0), 24)
    finally:
        env.close()
    assert objection(score(random), score(reference)) == ""
    assert reference.mean() >= LEAST[id] - 1e-6


def test_a_mission_names_things_by_kind_and_colour():
    errand = Errand("put the grey key near the blue ball", fetch)
    assert errand.things == [(5, 5), (BALL, 2)]
    errand.kind[3, 4], errand.colour[3, 4] = BALL, 2
    assert np.argwhere(errand.where(1)).tolist() == [[3, 4]]
    assert beside(errand.where(1)).sum() == 4 and beside(errand.where(1), True).sum() == 8


def test_a_way_goes_round_what_is_not_free():
    free = np.array([[1, 0, 1], [1, 1, 1]]) > 0
    assert first_move((0, 0), free, {(0, 2)}) == 2  # down, for the middle is blocked
    assert first_move((0, 0), free[:1], {(0, 2)}) is None
    assert first_move((0, 0), free, {(0, 0)}) is None


def test_equal_tiles_merge_once_and_pay_what_they_become():
    assert slide((1, 1, 1, 1)) == ((2, 2, 0, 0), 8)
    assert slide((0, 2, 1, 1)) == ((2, 2, 0, 0), 4)
    assert slide((3, 0, 0, 3)) == ((4, 0, 0, 0), 16)


def test_numbers_prove_mines_and_safe_cells():
    board = np.array([[-1, 1, 0], [1, 1, 0], [0, 0, 0]])  # one mine, in the corner
    board = np.pad(board, ((0, 0), (0, 1)), constant_values=0)
    hidden = board.copy()
    hidden[0, 1] = -1  # 1 in the middle touches both hidden cells, 0 in (0, 2) clears one of them
    assert safest(np.pad(hidden, ((0, 1), (0, 0)), constant_values=0), 1) == (0, 1)


def test_players_load_each_from_a_side_of_its_own():
    players = np.array([[0, 0, 1], [3, 3, 1]])
    food = np.array([[1, 0, 2], [-1, -1, 0]])
    assert plan(food, players, 4) == [5, 1]  # the second is on its way to the south of the food
    players[1, :2] = (2, 0)
    assert plan(food, players, 4) == [5, 5]
    assert plan(food * 0, players, 4) == [0, 0]


def test_no_player_moves_to_where_another_is_or_goes():
    food = np.array([[2, 2, 3]])
    players = np.array([[1, 1, 1], [1, 2, 1], [2, 3, 1]])  # the second is where the first is to be
    assert plan(food, players, 5) == [0, 4, 2]
    players = np.array([[3, 1, 1], [3, 3, 1], [2, 0, 1]])
    assert plan(food, players, 5) == [1, 3, 0]  # the first passes through the third's place


def test_ships_are_looked_for_beside_a_hit():
    ships = Battleship(find("popgym/BattleshipEasy"))
    board = np.full((8, 8), -1)
    board[4, 4], board[3, 4] = 1, 0  # a hit; nothing above it
    row, column = ships.choose(board)
    assert abs(row - 4) + abs(column - 4) == 1 and row != 3
