import numpy as np
import pytest
from gymnasium import spaces as gym

from ldm.envs import legal, spaces

CASES = {
    "vector": gym.Box(-1, 2, (3,), np.float32),
    "doubles": gym.Box(-np.inf, np.inf, (2, 2), np.float64),
    "symbols": gym.Box(0, 31, (3,), np.int32),
    "image": gym.Box(0, 255, (20, 24, 3), np.uint8),
    "grey": gym.Box(0, 255, (20, 24), np.uint8),
    "channels first": gym.Box(0, 255, (4, 20, 24), np.uint8),
    "discrete": gym.Discrete(5),
    "started": gym.Discrete(5, start=-2),
    "multidiscrete": gym.MultiDiscrete([2, 3, 4]),
    "grid": gym.MultiDiscrete([[2, 3], [4, 5]]),
    "multibinary": gym.MultiBinary(4),
    "text": gym.Text(16),
    "dict": gym.Dict({"a": gym.Discrete(3), "b": gym.Dict({"c": gym.Box(0, 1, (2,))})}),
    "tuple": gym.Tuple((gym.Discrete(2), gym.Box(0, 1, (1,)), gym.MultiBinary(2))),
}


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b if isinstance(a, str) else np.allclose(a, np.reshape(b, np.shape(a)))


@pytest.mark.parametrize("space", CASES.values(), ids=CASES)
def test_samples_survive(space):
    tree = spaces.describe(space)
    space.seed(0)
    for _ in range(5):
        sample = space.sample()
        arrays = spaces.flatten(tree, sample)
        for leaf, array in zip(spaces.leaves(tree), arrays, strict=True):
            assert array.shape == leaf.shape and array.dtype == leaf.dtype
            assert legal.violation(leaf, array) == ""
        back = spaces.unflatten(tree, arrays)
        assert same(sample, back)
        assert space.shape == (20, 24) or space.contains(back)  # grey images get a channel


@pytest.mark.parametrize("space", CASES.values(), ids=CASES)
def test_json_gives_the_same_tree(space):
    tree = spaces.describe(space)
    assert spaces.from_json(spaces.to_json(tree)) == tree


def test_kinds():
    kinds = {name: [leaf.kind for leaf in leaves_of(name)] for name in CASES}
    assert kinds["vector"] == kinds["doubles"] == ["continuous"]
    assert kinds["symbols"] == kinds["discrete"] == kinds["multibinary"] == ["discrete"]
    assert kinds["image"] == kinds["grey"] == kinds["channels first"] == ["image"]
    assert kinds["tuple"] == ["discrete", "continuous", "discrete"]
    assert [leaf.path for leaf in leaves_of("dict")] == ["a", "b/c"]
    assert leaves_of("channels first")[0].shape == (20, 24, 4)


def test_leaves_of_like_names_have_paths_of_their_own():
    two = gym.Discrete(2)
    like = {"a/b": two, "a": gym.Dict({"b": two, "": two}), "a~1b": two, "b": two}
    like[""] = gym.Dict({"b": two, "~": two})
    paths = [leaf.path for leaf in spaces.leaves(spaces.describe(gym.Dict(like)))]
    assert sorted(paths) == sorted({"a~1b", "a/b", "a/~", "a~01b", "b", "~/b", "~/~0"})


def leaves_of(name):
    return spaces.leaves(spaces.describe(CASES[name]))


def test_an_unknown_space_says_what_to_do():
    with pytest.raises(spaces.UnsupportedSpace, match=r"Sequence.*padded"):
        spaces.describe(gym.Dict({"a": gym.Sequence(gym.Discrete(2))}))


def test_the_largest_float_is_no_bound():
    top = np.finfo(np.float32).max
    leaf = spaces.describe(gym.Box(np.float32([-top, 0]), np.float32([top, 1])))
    assert leaf.low == (-np.inf, 0) and leaf.high == (np.inf, 1)


@pytest.mark.parametrize(
    "space, value, words",
    [
        (gym.Box(0, 1, (2,)), np.zeros(3), "expected shape"),
        (gym.Discrete(3), 1.5, "do not fit"),
        (gym.Discrete(3), 2**32, "do not fit"),
        (gym.MultiBinary(2), np.array([np.nan, 0]), "do not fit"),
        (gym.Box(0, 255, (20, 24, 3), np.uint8), np.full((20, 24, 3), 256), "do not fit"),
        (gym.Dict({"a": gym.Discrete(2)}), {"b": 0}, "lacks"),
        (gym.Tuple((gym.Discrete(2),)), (0, 1), "2 parts"),
    ],
)
def test_flatten_refuses(space, value, words):
    with pytest.raises(ValueError, match=words):
        spaces.flatten(spaces.describe(space), value)


def test_check_finds_what_is_out_of_range():
    symbols = spaces.describe(gym.MultiDiscrete([2, 3], start=[0, 5]))
    assert legal.violation(symbols, np.array([[1, 7], [0, 5]])) == ""
    assert legal.violation(symbols, np.array([[1, 7], [0, 8]])) == '""[1]: 8 is outside 5..7'
    numbers = spaces.describe(gym.Box(-np.inf, np.inf, (2,)))
    assert "1 values" in legal.violation(numbers, np.array([[0, np.nan]]))


def test_override():
    space = gym.Dict(
        {
            "image": gym.Box(0, 255, (7, 7, 3), np.uint8),
            "mission": gym.Box(0, 255, (16,), np.uint8),
            "direction": gym.Discrete(4),
        }
    )
    tree = spaces.override(spaces.describe(space), {"image": [11, 6, 4], "mission": "text"})
    assert tree["image"].counts == (11, 6, 4) * 49
    assert (tree["mission"].kind, tree["mission"].shape) == ("text", (16,))
    assert tree["direction"].counts == (4,)
    for rules in ({"picture": [2]}, {"image": "pixels"}):
        with pytest.raises(ValueError):
            spaces.override(tree, rules)


def test_executable_clips_numbers_and_refuses_the_rest():
    leaf = spaces.describe(gym.Box(np.float32([-1, 0]), np.float32([1, np.inf])))
    out = legal.executable(leaf, np.array([[-3.0, 9.0], [0.5, -1.0]]))
    assert out.dtype == np.float32 and out.tolist() == [[-1, 9], [0.5, 0]]
    for bad in (np.zeros((2, 3)), np.full((1, 2), np.nan)):
        with pytest.raises(ValueError):
            legal.executable(leaf, bad)


def test_what_is_executed_is_what_the_environment_s_own_dtype_holds():
    leaf = spaces.describe(gym.Box(-1, np.float16(np.inf), (2,), np.float16))
    sampled = legal.sample(leaf, 50, np.random.default_rng(0))
    played = legal.executable(leaf, np.array([[0.1, -0.3333333], [1e30, -7]], np.float32))
    for array in (sampled, played):
        assert array.dtype == np.float32
        assert (array == array.astype(np.float16)).all() and np.isfinite(array).all()
    row = spaces.unflatten(leaf, [played[0]])
    assert row.dtype == np.float16 and (spaces.flatten(leaf, row)[0] == played[0]).all()


def test_random_actions_cover_the_space():
    rng = np.random.default_rng(0)
    symbols = spaces.describe(gym.MultiDiscrete([2, 3], start=[0, 5]))
    values = legal.sample(symbols, 200, rng)
    assert values.min(0).tolist() == [0, 5] and values.max(0).tolist() == [1, 7]
    numbers = legal.sample(spaces.describe(gym.Box(-np.inf, np.inf, (1,))), 200, rng)
    assert -1 <= numbers.min() < -0.9 and 0.9 < numbers.max() <= 1
    with pytest.raises(spaces.UnsupportedSpace, match="text"):
        legal.sample(spaces.describe(gym.Text(4)), 1, rng)
