"""Experts that act from images: what they see in a drawn one, what they do, and that they play."""

import numpy as np
import pytest

from ldm.envs.catalogue import find
from ldm.envs.interface import TimeStep
from ldm.envs.make import make
from ldm.reference import experts
from ldm.reference.experts.procgen_grids import flood, inner, share, step_down
from ldm.reference.experts.roads_seen import Driver
from ldm.reference.experts.shoals import swim
from ldm.reference.experts.tracking import Tracker, Where, centre, contrast, games

LEAST = {  # steps, and the least reward of a stream in them
    "envpool/MazeEasy-v0": (60, 8),
    "envpool/MinerEasy-v0": (60, 2),
    "envpool/LeaperEasy-v0": (200, 9),
    "envpool/FruitbotEasy-v0": (200, 1),
}


@pytest.mark.parametrize("id", LEAST)
def test_the_reference_finds_its_goals_soon(id):
    (steps, least), spec = LEAST[id], find(id)
    env, actor, earned = make(spec, 6, 3), experts.find(id).factory(spec), 0.0
    try:
        timestep = env.reset()
        for _ in range(steps):
            timestep = env.step(actor.act(timestep))
            earned += timestep.reward.sum()
    finally:
        env.close()
    assert earned / 6 >= least


def crossing(car: int) -> np.ndarray:
    """A Leaper level (1, 64, 64, 3): the frog in the lowest of nine lanes, a road with a car above
    it, then grass."""
    image = np.full((1, 64, 64, 3), (114, 146, 88), np.uint8)
    image[0, 50:57] = 87, 87, 87
    image[0, 51:56, car : car + 6] = 250, 210, 10
    image[0, 58:63, 30:34] = 136, 184, 48
    return image


@pytest.mark.parametrize("cars, action", [([29] * 6, 4), ([5] * 6, 5), ([5, 7, 9, 11, 13, 15], 4)])
def test_a_frog_waits_for_a_car_that_is_there_or_will_be(cars, action):
    actor = experts.find("envpool/LeaperEasy-v0").factory(find("envpool/LeaperEasy-v0"))
    for i, car in enumerate(cars):
        (found,) = actor.act(seen(crossing(car), started=i == 0))
    assert found == [action]


@pytest.mark.parametrize("gap, action", [(10, 1), (26, 4), (48, 7)])
def test_a_robot_sets_out_for_the_gap_of_a_wall(gap, action):
    image = np.full((1, 64, 64, 3), (100, 55, 12), np.uint8)
    image[0, 45:49] = 170, 189, 196
    image[0, 45:49, gap : gap + 15] = 100, 55, 12
    image[0, 56:61, 32:34] = 164, 180, 198
    image[0, 50:53, 5:9] = 230, 50, 60  # fruit does not hold it up
    spec = find("envpool/FruitbotEasy-v0")
    assert experts.find(spec.id).factory(spec).act(seen(image, started=True))[0] == [action]


def test_every_game_of_the_table_is_in_the_catalogue_and_acts_within_its_space():
    random = np.random.default_rng(0)
    for make_name, game in games().items():
        tracker = Tracker("x", game)
        frames = random.integers(0, 256, (3, 84, 84, 4), np.uint8)
        (action,) = tracker.act(seen(frames, started=True))
        assert find(f"envpool/{make_name}").modality == "image"
        assert set(action) <= set(np.ravel(game["buttons"]))


def seen(frames, started=False, action=None) -> TimeStep:
    n = len(frames)
    flags = np.full(n, started)
    action = np.zeros(n, np.int32) if action is None else np.array(action, np.int32)
    return TimeStep([frames], [action], np.zeros(n), ~flags & False, ~flags & False, flags)


GAME = {
    "me": {"box": [70, 75, 0, 83], "levels": [50, 255]},
    "target": {"box": [10, 60, 0, 83], "levels": [50, 255], "wide": 3},
    "buttons": [[3, 0, 2], [5, 1, 4]],
}


def scene(*spots: tuple[int, int, int]) -> np.ndarray:
    """Frames (1, 84, 84, 4) on a background of another grey in each row; (row, column, width)."""
    frames = np.repeat(np.arange(84, dtype=np.uint8)[:, None], 84, 1)
    for row, column, width in spots:
        frames[row, column : column + width] = 200
    return np.repeat(frames[None, ..., None], 4, -1)


@pytest.mark.parametrize("column, action", [(20, 5), (39, 1), (60, 4)])
def test_a_tracker_moves_below_its_target_and_fires(column, action):
    frames = scene((72, 38, 5), (30, column, 4))
    assert Tracker("x", GAME).act(seen(frames, started=True))[0] == action


def test_a_tracker_takes_no_shot_for_a_target_and_flees_from_a_threat():
    shot = scene((72, 38, 5), (30, 10, 1))
    assert Tracker("x", GAME).act(seen(shot, started=True))[0] == 1
    bomb = scene((72, 38, 5), (30, 20, 4), (66, 37, 2))
    wary = GAME | {"threat": {"box": [-14, -3, -5, 5], "levels": [50, 255]}}
    assert Tracker("x", wary).act(seen(bomb, started=True))[0] == 4


def test_a_tracker_allows_for_what_it_drifts():
    tracker = Tracker("x", GAME | {"drift": 6, "rhythm": 0})
    frames = scene((72, 38, 5), (30, 45, 4))
    assert [int(tracker.act(seen(frames, started=first))[0][0]) for first in (True, False)] == [
        2,
        0,
    ]


def test_objects_are_what_differs_from_its_row():
    found = Where((0, 83, 0, 83), (50, 255)).find(contrast(scene((20, 10, 3))[..., 3]))
    assert found.sum() == 3
    assert centre(found).tolist() == [[20, 11]]
    assert np.isnan(centre(found & False)).all()


def test_the_way_leads_round_walls_and_nowhere_where_there_is_none():
    free = np.array([[[1, 1, 0], [0, 1, 0], [1, 0, 1]]]) > 0
    goals = np.zeros((1, 3, 3), bool)
    goals[0, 0, 0] = True
    steps = flood(free, goals)
    assert steps[0, 1, 1] == 2
    assert step_down(steps, np.array([[1, 1]])) == 5
    assert step_down(steps, np.array([[2, 2]])) == 4


def test_shares_of_cells_count_every_pixel_once():
    found = np.zeros((1, 64, 64), bool)
    found[0, :8, :4] = True
    assert share(found, 8)[0, 0, 0] == 0.5
    assert share(found, 8).sum() == 0.5
    assert (share(~found & True, 15) <= 1).all()
    assert inner(found, 8)[0, 0, 0] == 0.125


def test_a_fish_swims_to_the_smaller_and_from_the_larger():
    sea = np.zeros((64, 64, 3), int)
    sea[30:35, 30:35] = (40, 190, 110)
    smaller = sea.copy()
    smaller[31:33, 45:47] = (230, 80, 60)
    assert swim(smaller) // 3 == 2  # to the right
    larger = sea.copy()
    larger[28:38, 38:48] = (230, 80, 60)
    assert swim(larger) // 3 == 0  # to the left
    assert swim(sea) == 4


def test_a_driver_steers_to_the_road_and_waits_for_none():
    image = np.full((2, 96, 96, 3), (102, 204, 102), np.uint8)
    image[0, :83, 55:70] = 105
    steer, gas, brake = Driver().act(seen(image, started=True))[0].T
    assert steer[0] > 0.5 and steer[1] == 0
    assert gas[1] > 0 and (brake == 0).all()


@pytest.mark.parametrize(
    ("me", "ball", "action"),
    [
        ((36, 40), (36, 41), 5),  # level with the goal
        ((10, 70), (11, 70), 6),  # above it
        ((60, 84), (60, 85), 12),  # near enough
        ((36, 40), (36, 80), 5),  # somebody else's ball
        ((36, 80), (36, 40), 1),
        ((50, 40), (20, 42), 3),
        ((20, 40), (40, 20), 8),
    ],
)
def test_the_ball_is_fetched_carried_to_the_goal_and_shot(me, ball, action):
    actor = experts.find("envpool/gfootball/academy_run_to_score-v1").factory(None)
    pitch = np.zeros((2, 72, 96, 4), np.uint8)
    pitch[:, ball[0], ball[1], 2] = pitch[:, me[0], me[1], 3] = 255
    acted = [actor.act(seen(pitch, started=step == 0))[0].tolist() for step in range(5)]
    assert acted == [[action] * 2, [action] * 2, [13] * 2, [action] * 2, [action] * 2]
