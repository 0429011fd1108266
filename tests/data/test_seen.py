"""What outsiders' data looked like, and what the model sees of it: right, or told."""

import gymnasium as gym
import numpy as np
import pytest
from examples import entry

from ldm.config import TokenConfig
from ldm.data import facts, fidelity, statistics
from ldm.data.codec import Codec
from ldm.data.entry import check_entry
from ldm.data.episode import Trajectory
from ldm.envs import spaces

Box, Discrete = gym.spaces.Box, gym.spaces.Discrete
TOKENS = TokenConfig()


def measured(observation, action, seen, labels, name="test/Env-v0") -> dict:
    """An entry whose statistics are those of one episode with these arrays."""
    data, n = entry(observation, action, name=name), len(labels)
    trees = [spaces.from_json(data[role]) for role in ("observation", "action")]
    arrays = [np.asarray(seen).astype(spaces.leaves(trees[0])[0].dtype)]
    done = [np.asarray(labels).astype(spaces.leaves(trees[1])[0].dtype)]
    flat = np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool)
    trajectory = Trajectory(
        name, 0, "p", np.array([n]), np.zeros(1, np.float32), arrays, done, done, *flat
    )
    part = statistics.from_json(statistics.to_json(statistics.measure(*trees, [trajectory])))
    data["statistics"] = statistics.summary(part)
    check_entry(data, "entry")
    return data


def kinds(data) -> list[tuple]:
    found = fidelity.findings(data, TOKENS)
    return [(f["role"], f["kind"], tuple(f["components"])) for f in found]


@pytest.mark.parametrize("side", [15, 16, 19, 83])
def test_boards_that_are_declared_so_are_symbols(side):
    board = Box(0, 2, (side, side), np.uint8)
    codec = Codec(entry(board, Discrete(2)), TOKENS)
    one = np.ones((2, side, side), np.int32)
    one[1, 5, 7] = 2
    rows = codec.encode_observation([one])
    assert codec.tokens_per_observation == -(-(side**2) // 192) and not len(rows.patches_PX)
    half = len(rows.bag_ids_B) // 2
    assert (rows.bag_ids_B[:half] != rows.bag_ids_B[half:]).sum() == 1


def test_boards_that_are_declared_as_images_are_symbols_by_their_data():
    rng = np.random.default_rng(0)
    boards = rng.integers(0, 3, (101, 19, 19), np.uint8)[..., None]
    data = measured(Box(0, 255, (19, 19), np.uint8), Discrete(2), boards, np.zeros(100))
    assert data["statistics"]["observation"] == [{"values": [0, 1, 2]}]
    rows = Codec(data, TOKENS).encode_observation([boards])
    bags = rows.bag_ids_B.reshape(101, -1)
    assert len(np.unique(bags, axis=0)) == 101 and not len(rows.patches_PX)
    assert kinds(data) == []


def test_pictures_stay_images_and_are_told_to_shrink():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (11, 84, 84, 4), np.uint8)
    data = measured(Box(0, 255, (84, 84, 4), np.uint8), Discrete(2), pictures, np.zeros(10))
    assert data["statistics"]["observation"] == [None]
    assert len(Codec(data, TOKENS).encode_observation([pictures]).patches_PX) == 11 * 36
    assert kinds(data) == [("observation", "shrunk", ())]
    (line,) = fidelity.lines(data, TOKENS)
    assert "84 × 84 pixels become 48 × 48" in line


def test_a_clock_in_float64_keeps_its_seconds():
    times = 1.7e9 + np.arange(601.0)[:, None]
    data = measured(Box(0, np.inf, (1,), np.float64), Discrete(2), times, np.zeros(600))
    numbers = Codec(data, TOKENS).numbers([times], 601)
    assert len(np.unique(numbers)) == 601
    np.testing.assert_allclose(numbers[:, 0], (np.arange(601) - 300) / np.arange(601).std(), 1e-5)
    assert kinds(data) == []


@pytest.mark.parametrize("seconds", [600, 20])
def test_a_clock_that_lost_its_seconds_is_told(seconds):
    """No bound says that it is one; within 20 s float32 does not even see it move."""
    times = 1.7e9 + np.arange(seconds + 1.0)[:, None]
    data = measured(Box(-np.inf, np.inf, (1,), np.float64), Discrete(2), times, np.zeros(seconds))
    numbers = Codec(data, TOKENS).numbers([times.astype(np.float32)], len(times))
    assert len(np.unique(numbers)) == len(np.unique(times.astype(np.float32)))
    assert ("observation", "coarse", ()) in kinds(data)
    assert '"" = "float64"' in fidelity.lines(data, TOKENS)[0]


def test_integers_beyond_float32_keep_their_digits():
    ticks = 2**40 + np.arange(101)[:, None]
    data = measured(Box(0, 2**50, (1,), np.int64), Discrete(2), ticks, np.zeros(100))
    assert len(np.unique(Codec(data, TOKENS).numbers([ticks], 101))) == 101


@pytest.mark.parametrize("size", [1e-200, 1e-12, 1e-3, 1e12, 1e30])
def test_whatever_varies_is_seen(size):
    x = np.array([[0.0, 5], [size, 5], [2 * size, 5]])
    leaf = spaces.numbers("", (2,), source_dtype="float64")
    data = entry(Box(-np.inf, np.inf, (2,), np.float64), Discrete(2))
    data["statistics"]["observation"] = [statistics.Moments.of(x).summary()]
    numbers = Codec(data, TOKENS).numbers([x], 3)
    assert len(np.unique(numbers[:, 0])) == 3 and not numbers[:, 1].any() and leaf.size == 2


def test_bins_follow_the_labels_where_the_declared_range_is_far_wider():
    """The bound: half a bin of the labels' own range."""
    rng = np.random.default_rng(0)
    labels = rng.uniform(-1, 1, (2000, 1)).astype(np.float32)
    for wide, expected in ((10_000, 1), (11, 1), (9, 9), (1, 1)):
        data = measured(Box(-wide, wide, (1,)), Box(-wide, wide, (1,)), np.zeros((2001, 1)), labels)
        codec = Codec(data, TOKENS)
        assert codec.high[0] == pytest.approx(expected, rel=0.01) and codec.low[0] < -0.99
        back = codec.decode(np.rint(codec.labels([labels])))[0]
        assert np.abs(back - labels).max() <= expected / 100 + 1e-3


def test_few_outliers_do_not_take_the_bins_from_the_rest_and_are_told():
    rng = np.random.default_rng(0)
    labels = rng.uniform(-1, 1, (5000, 1)).astype(np.float32)
    labels[17] = 9000
    data = measured(Discrete(2), Box(-1e4, 1e4, (1,)), np.zeros(5001), labels)
    assert Codec(data, TOKENS).high[0] == pytest.approx(1, rel=0.01)
    assert kinds(data) == [("action", "clipped", ())]
    labels[:20] = 9000  # no longer a thousandth: bins for all, in which the rest is blurred
    data = measured(Discrete(2), Box(-1e4, 1e4, (1,)), np.zeros(5001), labels)
    assert Codec(data, TOKENS).high[0] == 1e4
    assert kinds(data) == [("action", "coarse", ())]


def test_a_bin_wider_than_its_labels_is_told():
    labels = np.full((3000, 1), 0.5, np.float32)
    labels[::2] = 0.499
    labels[::1000] = -1
    data = measured(Discrete(2), Box(-1, 1, (1,)), np.zeros(3001), labels)
    assert kinds(data) == [("action", "coarse", ())]
    assert "a bin is 0.02 wide, the labels deviate by 0.000304" in fidelity.lines(data, TOKENS)[0]


def test_labels_beyond_the_bounds_are_told_with_their_share():
    rng = np.random.default_rng(0)
    labels = 3 * rng.normal(size=(4000, 2)).astype(np.float32)
    data = measured(Discrete(2), Box(-1, 1, (2,)), np.zeros(4001), labels)
    codec = Codec(data, TOKENS)
    assert codec.low.tolist() == [-1, -1] and codec.high.tolist() == [1, 1]
    (line,) = fidelity.lines(data, TOKENS)
    assert "action[0–1]: clipped: 0.7" in line and "-1 … 1" in line


def test_what_never_changes_and_what_is_far_out_are_told():
    x = np.zeros((1001, 6))
    x[:, 1:3] = 7
    x[:, 5] = np.arange(1001) % 2
    x[500, 4] = 1e6
    data = measured(Box(-np.inf, np.inf, (6,)), Discrete(2), x, np.zeros(1000))
    dropped, cut = kinds(data)
    assert dropped == ("observation", "dropped", (0, 1, 2, 3))
    assert cut == ("observation", "cut", (4,))
    assert "observation[0–3]: dropped" in fidelity.lines(data, TOKENS)[0]


def test_a_label_that_never_changes_is_decoded_to_itself():
    labels = np.full((100, 1), -3.5, np.float32)
    data = measured(Discrete(2), Box(-1e4, 1e4, (1,)), np.zeros(101), labels)
    codec = Codec(data, TOKENS)
    np.testing.assert_allclose(codec.decode(codec.labels([labels]))[0], labels, atol=1e-6)
    assert codec.high[0] - codec.low[0] < 0.1


def test_quantiles_of_shards_are_those_of_all():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 2)) * scale for n, scale in ((500, 1), (4000, 3), (900, 0.1))]
    parts = [statistics.Labels.of(part) for part in rows]
    found = parts[0].merge(parts[1]).merge(parts[2]).quantiles()
    exact = np.quantile(np.concatenate(rows), statistics.LEVELS, axis=0)
    ranks = [[(np.concatenate(rows)[:, c] <= q).mean() for c, q in enumerate(qs)] for qs in found]
    np.testing.assert_allclose(ranks, np.tile(statistics.LEVELS, (2, 1)).T, atol=0.006)
    assert found.shape == exact.shape


def test_facts_of_a_mix_are_what_the_codec_reads():
    data = entry(Discrete(2), Box(-1, 1, (2,)))
    derived = facts.derive(data)
    assert derived["low"] == [-1, -1] and derived["decode"] == ["expected", "expected"]
    data["facts"] = derived | {"low": [-0.5, -0.25], "high": [0.5, 0.25], "fidelity": []}
    check_entry(data, "entry")
    assert Codec(data, TOKENS).high.tolist() == [0.5, 0.25]
    for wrong in ({"low": [0]}, {"low": [1, 1]}, {"decode": ["mean"] * 2}, {"boards": [0]}):
        with pytest.raises(ValueError, match=r"entry\.facts"):
            check_entry(data | {"facts": data["facts"] | wrong}, "entry")
