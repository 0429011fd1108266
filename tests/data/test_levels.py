"""Wide observations of few values: read as symbols, found by the mix, checked at the door."""

import gymnasium as gym
import numpy as np
import pytest
from examples import NAMES, SPACES, entry, recipe, record, trajectories

from ldm.config import TokenConfig
from ldm.data import facts, fidelity, levels, mix
from ldm.data.codec import Codec
from ldm.data.encoded import encode
from ldm.data.entry import check_entry
from ldm.data.manifest import read_manifest
from ldm.envs import spaces

BOARD = gym.spaces.Box(-1.0, 9.0, (10, 10)), gym.spaces.Discrete(2)
TOKENS = TokenConfig()


def boards(rows, seed=0):
    """Nothing but zeros and one 1; the last cell takes any number."""
    rng = np.random.default_rng(seed)
    made = np.zeros((rows, 100), np.float32)
    made[np.arange(rows), rng.integers(0, 99, rows)] = 1
    made[:, 99] = rng.normal(size=rows)
    return made.reshape(rows, 10, 10)


def board_entry(values, name="toy/Board-v0", owner=1):
    made = entry(*BOARD, name=name)
    made["facts"] = facts.derive(made) | {"levels": values, "owner": owner, "fidelity": []}
    check_entry(made, "entry")
    return made


def found(*batches):
    leaves = spaces.leaves(spaces.from_json(entry(*BOARD)["observation"]))
    assert levels.wide(leaves)
    return levels.find(leaves, [[batch] for batch in batches])


def test_values_are_counted_over_all_batches_the_usual_one_first():
    one, other = boards(400), boards(500, seed=1)
    other[:, 0, 0] = np.arange(500) % 2 + 5  # 0, 1, 5 and 6: neither batch has all of them
    values = found(one, other)
    assert values[0] == [0, 1, 5, 6] and values[1:99] == [[0, 1]] * 98 and values[99] is None
    assert found(1 - one)[1] == [1, 0]  # the usual one is the one that is seen most
    many = boards(17)
    many[:, 0, 0] = np.arange(17)
    assert found(many)[0] is None and found(many[:16])[0] == [*map(float, range(16))]


def test_a_cell_is_a_row_unless_it_has_its_usual_value():
    codec = Codec(board_entry(found(boards(900))), TOKENS)
    assert codec.tokens_per_observation == 1 and len(codec.mean) == 1 and len(codec.levels) == 99
    seen = boards(50, seed=2)
    tokens = codec.encode_observation([seen])
    bags = tokens.bag_ids_B.reshape(50, -1)  # kind, identity, one number, and a cell's two rows
    assert bags.shape[1] == 5
    cells = seen.reshape(50, -1)[:, :99].argmax(1)
    for column in (3, 4):  # shared and its own
        assert len(set(zip(cells, bags[:, column]))) == len(set(cells))
        assert len(set(bags[:, column])) > 0.9 * len(set(cells))
    np.testing.assert_allclose(tokens.features_NG[:, 0], seen[:, -1, -1], rtol=1e-6)
    dropped = codec.encode_observation([seen], False)
    assert dropped.bag_ids_B.tolist() == bags[:, [0, 3]].flatten().tolist()
    other = Codec(board_entry(found(boards(900)), "toy/Other-v0"), TOKENS)
    others = other.encode_observation([seen]).bag_ids_B.reshape(50, -1)
    assert (others[:, 3] == bags[:, 3]).all() and (others[:, 4] != bags[:, 4]).mean() > 0.9


def test_a_value_that_no_data_showed_counts_as_the_nearest():
    codec = Codec(board_entry(found(boards(900))), TOKENS)
    rows = []
    for value in (0.0, 0.4, 0.6, 1.0, 9.0):
        board = np.zeros((1, 10, 10), np.float32)
        board[0, 3, 3] = value
        rows.append(codec.encode_observation([board]).bag_ids_B.tolist()[3:])
    assert rows[0] == rows[1] == [] and rows[2] == rows[3] == rows[4] and len(rows[2]) == 2


def test_nothing_of_a_symbol_is_cut():
    """A 1 among 900 zeros is far from the mean, and shown as what it is."""
    made = board_entry(found(boards(900)))
    (numbers,) = made["statistics"]["observation"]
    numbers |= {"mean": [0.001] * 100, "std": [0.03] * 100, "min": [0.0] * 100, "max": [1.0] * 100}
    (finding,) = fidelity.findings(made, TOKENS)
    assert (finding["kind"], finding["components"]) == ("cut", [99])
    made["facts"]["levels"] = []
    assert fidelity.findings(made, TOKENS)[0]["components"] == list(range(100))


@pytest.mark.parametrize(
    "size, expected", [(64, False), (65, True), (1 << 14, True), (16385, False)]
)
def test_what_is_wide(size, expected):
    """Neither what a token carries, nor what a bag, counted in sixteen bits, has no rows for."""
    made = entry(gym.spaces.Box(0.0, 1.0, (size,)), gym.spaces.Discrete(2))
    assert levels.wide(spaces.leaves(spaces.from_json(made["observation"]))) == expected


def test_every_component_of_the_widest_may_be_unusual():
    size = levels.WIDEST
    made = entry(gym.spaces.Box(0.0, 1.0, (size,)), gym.spaces.Discrete(2))
    made["facts"] = facts.derive(made) | {"levels": [[0.0, 1.0]] * size, "fidelity": []}
    codec, rng = Codec(made, TOKENS), np.random.default_rng(0)
    part = trajectories(made, 1, rng, most=2)[0]
    part.observations[0][:] = 1
    block = encode(codec, {0: part}, 0, 0, False, rng)
    assert int(block.bag_counts_N.max()) >= size


def test_what_was_never_recorded_has_no_values():
    assert found(boards(0)) == [None] * 100


def test_whole_numbers_of_a_hand_are_the_same_values():
    seen = [boards(20)]
    given = Codec(board_entry([[0, 1]] * 99 + [None]), TOKENS).encode_observation(seen)
    again = Codec(board_entry([[0.0, 1.0]] * 99 + [None]), TOKENS).encode_observation(seen)
    np.testing.assert_array_equal(given.bag_ids_B, again.bag_ids_B)


def test_the_mix_finds_them_in_all_shards_and_numbers_its_environments(tmp_path, monkeypatch):
    monkeypatch.setitem(SPACES, "toy/Board-v0", BOARD)
    made = trajectories

    def of_boards(environment, count, rng):
        parts = made(environment, count, rng)
        for part in parts if environment["id"] == "toy/Board-v0" else ():
            part.observations[0] = boards(len(part.observations[0]), int(rng.integers(1 << 30)))
        return parts

    monkeypatch.setattr("examples.trajectories", of_boards)
    monkeypatch.setattr("ldm.data.mix.run_jobs", lambda f, jobs, *_, **__: [f(*j) for j in jobs])
    names = ["toy/Board-v0", *NAMES]
    record(tmp_path, names)
    mix.mix_stage(recipe(names), tmp_path)
    entries = read_manifest(tmp_path / "mix", "mix")["environments"]
    assert [e["facts"]["owner"] for e in entries] == [1, 2, 3, 4, 5]
    board, wide = entries[0]["facts"]["levels"], entries[2]["facts"]["levels"]
    assert {tuple(v) for v in board[:99]} == {(0.0, 1.0)} and board[99] is None
    assert wide == [None] * 100 and entries[1]["facts"]["levels"] == []
    assert Codec(entries[0], recipe().tokens).tokens_per_step == 2


@pytest.mark.parametrize(
    "wrong, words",
    [
        ([[0.0, 1.0]], "levels: expected 100 or none, got 1"),
        ([[0.0, 0.0], *[None] * 99], r"levels\[0\]: expected 1 to 16 different values"),
        ([[*map(float, range(17))], *[None] * 99], r"levels\[0\]: expected 1 to 16"),
        ([[], *[None] * 99], r"levels\[0\]: expected 1 to 16"),
        ([["0"], *[None] * 99], r"levels\[0\]: expected"),
    ],
)
def test_values_that_do_not_fit_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        board_entry(wrong)
