"""The map that MiniHack's expert keeps, and what it answers, without the game."""

import numpy as np

from ldm.reference.experts.dungeon import BROWN, Level, choices, letter_of, text
from ldm.reference.experts.minihack import Player, commands


def seen(level: Level, rows: list[str], here: tuple[int, int]) -> None:
    """Shows the level `rows`, whose "+" are doors."""
    chars = np.array([[ord(char) for char in row] for row in rows])
    level.look(chars, np.where(chars == ord("+"), BROWN, 7), (0, 0), here)


def test_a_shortest_way_goes_through_a_door_but_not_across_its_corner():
    level = Level()
    seen(level, ["-----", "|@|.|", "|.+.|", "-----"], (1, 1))
    way = level.way(lambda cell: cell == (3, 1))
    assert way == [(1, 2), (2, 2), (3, 2), (3, 1)]


def test_a_trap_is_stepped_on_only_where_nothing_else_leads_on():
    level = Level()
    seen(level, ["@^>", "..."], (0, 0))
    assert level.approach(lambda cell: cell == (2, 0)) == "SE"
    seen(level, ["@^>", "  -"], (0, 0))
    level.blocked = {(0, 1), (1, 1)}
    assert level.approach(lambda cell: cell == (2, 0)) == "E"


def test_a_step_that_fails_again_and_again_counts_as_blocked():
    level = Level()
    for _ in range(3):
        seen(level, ["@.>"], (0, 0))
        assert level.approach(lambda cell: cell == (2, 0)) == "E"
    seen(level, ["@.>"], (0, 0))
    assert level.approach(lambda cell: cell == (2, 0)) is None


def test_it_explores_what_borders_on_the_unknown():
    level = Level()
    seen(level, ["----- ", "|@...#", "----- "], (1, 1))
    assert level.explore() == "E"


def test_messages_are_read():
    assert text(np.array([72, 105, 0, 0], np.uint8)) == "Hi"
    assert letter_of("g - a wand.") == "g"
    assert choices("What do you want to zap? [f or ?*]") == "f"
    assert choices("What do you want to wield? [- a-cf or ?*]") == "abcf"


def test_prompts_are_answered_with_keys_that_the_level_has():
    player = Player({"/": "ZAP"}, commands("WoD-Easy-Restricted"))
    player.notice("f - a wand.")
    assert player.item == "/"
    assert player.answer("What do you want to zap? [f or ?*]") == "FIRE"
    assert player.answer("In what direction?") == "E"
    assert len(commands("Eat")) == 85
    assert commands("Room-5x5")[4:] == ["NE", "SE", "SW", "NW"]
