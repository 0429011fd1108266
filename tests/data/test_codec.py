import gymnasium as gym
import numpy as np
import pytest
from examples import entry

from ldm.config import TokenConfig
from ldm.data import facts
from ldm.data.batch import ACTION, OBSERVATION, PATCH
from ldm.data.codec import Codec
from ldm.data.hashing import rows_of
from ldm.envs.legal import sample
from ldm.errors import LdmError

Box, Discrete = gym.spaces.Box, gym.spaces.Discrete


def codec(observation=None, action=None, config=None, **options):
    spaces = observation or Discrete(5), action or Discrete(3)
    return Codec(entry(*spaces, **options), config or TokenConfig())


def bag(tokens, i):
    return tokens.bag_ids_B[tokens.bag_offsets_N1[i] : tokens.bag_offsets_N1[i + 1]].tolist()


ACTIONS = [
    Discrete(7, start=-3),
    gym.spaces.MultiDiscrete([2, 5, 101]),
    gym.spaces.MultiBinary(9),
    Box(-1.0, 1.0, (70,)),
    Box(-np.inf, np.inf, (3,)),
    Box(np.array([0.0, -3.0]), np.array([0.5, 400.0])),
    Box(0, 1000, (2, 2), dtype=np.int64),
    gym.spaces.Dict({"move": Box(-1, 1, (2,)), "grip": Discrete(2)}),
    gym.spaces.Tuple([Discrete(4), gym.spaces.MultiDiscrete([3, 3]), Box(-2, 5, ())]),
]


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_actions_decode_back(space):
    rng = np.random.default_rng(0)
    action = [sample(leaf, 50, rng) for leaf in codec(action=space).action]
    data = entry(Discrete(5), space)
    for seen, array in zip(data["statistics"]["action"], action):
        if seen:
            flat = array.reshape(50, -1)
            seen |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
    c = Codec(data, TokenConfig())
    values = c.labels(action)
    assert values.dtype == np.float32 and values.shape == (50, len(c.components.slots))
    assert (values >= 0).all() and (values <= c.components.classes - 1).all()
    for leaf, true, back in zip(c.action, action, c.decode(values)):
        assert back.dtype == true.dtype and back.shape == true.shape
        if leaf.source_dtype == "int64":
            np.testing.assert_array_equal(back, np.rint(true))
        else:
            np.testing.assert_allclose(
                back, true, rtol=0, atol=2e-6 * (c.high - c.low).max(initial=1)
            )


def test_slots_tell_every_component_apart():
    c = codec(action=ACTIONS[-2])
    assert c.components.slots.tolist() == [128, 0, 1]  # Dict sorts its keys: grip, move
    assert c.components.classes.tolist() == [2, 101, 101]
    assert c.components.smooth.tolist() == [False, True, True]


def test_bounds_come_from_the_labels_where_the_space_has_none():
    c = codec(action=Box(np.array([-np.inf, -3e38, -1], np.float32), np.inf, (3,)))
    np.testing.assert_array_equal(c.low, [-2, -2, -1])
    np.testing.assert_array_equal(c.high, [2, 2, 2])


def test_expected_bin_decodes_between_bins():
    c = codec(action=Box(-1, 1, (1,)))
    np.testing.assert_allclose(c.decode(np.array([[50.5]]))[0], [[0.01]], atol=1e-6)


def test_numbers_are_normalised_clipped_and_sixty_four_to_a_token():
    data = entry(Box(-np.inf, np.inf, (130,)), Discrete(2))
    statistics = data["statistics"]["observation"][0]
    statistics["mean"][0], statistics["std"][0], statistics["std"][1] = 10.0, 2.0, 0.0
    statistics["min"][1] = statistics["max"][1] = 0.0
    c = Codec(data, TokenConfig())
    assert c.tokens_per_observation == 3
    x = np.linspace(-20, 20, 130, dtype=np.float32)
    tokens = c.encode_observation([x[None]])
    expected = np.clip(x, -8, 8)
    expected[0], expected[1] = np.clip((x[0] - 10) / 2, -8, 8), 0.0
    np.testing.assert_allclose(tokens.features_NG.reshape(-1)[:130], expected, rtol=1e-6)
    assert not tokens.features_NG[2, 2:].any()
    assert tokens.kinds_N.tolist() == [OBSERVATION] * 3


def test_discrete_values_have_rows_of_their_own():
    c = codec(gym.spaces.MultiDiscrete([4, 4]), config=TokenConfig(rows=1 << 20))
    rows = {row for v in range(4) for row in bag(c.encode_observation([np.array([[v, v]])]), 0)}
    assert len(rows) == 2 + 8


def test_many_components_spread_over_tokens():
    c = codec(gym.spaces.MultiBinary(400), config=TokenConfig(context=128))
    tokens = c.encode_observation([np.zeros((2, 400), np.int8)])
    assert np.diff(tokens.bag_offsets_N1).tolist() == [194, 194, 18] * 2


def test_large_spaces_hash_the_same_as_looked_up():
    small, large = codec(Discrete(1 << 19)), codec(Discrete((1 << 20) + 1))
    assert small.symbols.table is not None and large.symbols.table is None
    values = np.array([[0], [17], [(1 << 19) - 1]])
    direct = rows_of(small.symbols.bases, values, 32768)
    np.testing.assert_array_equal(small.symbols.rows([values[:, 0]]), direct)
    assert large.symbols.rows([np.array([1 << 20])]).shape == (1, 1)


def test_text_is_words_with_their_positions():
    c = codec(gym.spaces.Text(60), config=TokenConfig(rows=1 << 24))
    leaf = c.observation[0]
    texts = ["go to the red ball", "go to the", "", "the to go"]
    raw = np.stack([np.frombuffer(t.encode().ljust(leaf.shape[0], b"\0"), np.uint8) for t in texts])
    tokens = c.encode_observation([raw])
    words = [set(bag(tokens, i)[2:]) for i in range(4)]
    assert [len(w) for w in words] == [5, 3, 0, 3]
    assert words[1] < words[0] and len(words[1] & words[3]) == 1


def test_image_patches_hold_the_pixels():
    c = codec(Box(0, 255, (16, 24, 3), np.uint8), config=TokenConfig(patch=8))
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    tokens = c.encode_observation([image])
    assert tokens.kinds_N.tolist() == ([PATCH] * 6 + [OBSERVATION]) * 2
    assert tokens.patch_tokens_P.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    patch = tokens.patches_PX[6 + 4].reshape(8, 8, 4)  # second image, row 1, column 1
    np.testing.assert_array_equal(patch[..., :3], image[1, 8:, 8:16])
    assert not patch[..., 3].any()


@pytest.mark.parametrize("shape", [(84, 84, 4), (480, 640, 3), (17, 300, 1), (210, 160, 9)])
def test_images_shrink_to_the_budget_and_keep_their_brightness(shape):
    c = codec(Box(0, 255, shape, np.uint8))
    tokens = c.encode_observation([np.full((1, *shape), 200, np.uint8)])
    assert len(tokens.patches_PX) <= 36
    planes = tokens.patches_PX.reshape(-(-shape[2] // 4), -1, 64, 4)
    assert (planes.transpose(0, 3, 1, 2).reshape(planes.shape[0] * 4, -1)[: shape[2]] == 200).all()


def test_action_token_carries_reward_flags_and_action():
    c = codec(action=ACTIONS[-2], reward=(2.0, -4.0, 4.0))
    action = [np.array([1, 0]), np.array([[0.5, -1.0], [0.0, 1.0]])]
    tokens = c.encode_action(action, np.array([-4.0, 2.0]), np.array([0, 1]), np.array([1, 0]))
    expected = [[-np.log(3), 0, 1, 0.5, -1], [np.log(2), 1, 0, 0, 1]]
    np.testing.assert_allclose(tokens.features_NG[:, :5], expected, rtol=1e-6)
    assert tokens.kinds_N.tolist() == [ACTION, ACTION]
    first, second = set(bag(tokens, 0)), set(bag(tokens, 1))
    assert len(first) == len(second) == 3 + 5 and len(first & second) == 2 + 5
    expected = [[1, 1, *numbers, 1] for numbers in expected]
    np.testing.assert_allclose(tokens.bag_weights_B.reshape(2, -1), expected, rtol=1e-6)


def test_environments_share_no_row_of_a_number():
    space = Box(-1, 1, (20,)), Box(-1, 1, (20,))
    one, other = (Codec(entry(*space, name=name), TokenConfig()) for name in ("a/A", "b/B"))
    seen = np.ones((1, 20), np.float32)
    bags = [set(bag(c.encode_observation([seen]), 0)) for c in (one, other)]
    assert [len(rows) for rows in bags] == [22, 22]
    assert len(bags[0] & bags[1]) == 1  # that of the token's kind


def test_an_environment_that_no_model_knows_shows_no_identity():
    made = entry(Box(-1, 1, (2,)), Discrete(3))
    made["facts"] = facts.derive(made) | {"owner": 0, "fidelity": []}
    named = {**made, "facts": {**made["facts"], "owner": 3}}
    known, unknown = Codec(named, TokenConfig()), Codec(made, TokenConfig())
    seen = [np.ones((1, 2), np.float32)]
    dropped = known.encode_observation(seen, False)
    for name, array in vars(unknown.encode_observation(seen)).items():
        np.testing.assert_array_equal(array, getattr(dropped, name))
    assert (known.owner, unknown.owner) == (3, 0)


def test_a_constant_reward_is_not_lost():
    assert codec(reward=(0.0, 1.0, 1.0)).reward_scale == 1.0
    assert codec(reward=(0.0, 0.0, 0.0)).reward_scale == 1.0
    assert codec(reward=(0.0, -5.0, -5.0)).reward_scale == 5.0


def test_identity_is_dropped_by_row():
    c = codec(gym.spaces.Tuple([Discrete(3), Box(-1, 1, (2,))]))
    observation = [np.array([1, 1]), np.ones((2, 2), np.float32)]
    tokens = c.encode_observation(observation, np.array([True, False]))
    named, unnamed = bag(tokens, 0), bag(tokens, 1)
    assert named[1] == c.identity_row and unnamed == [named[0], named[-1]]
    assert len(set(named)) == 5  # of its kind, of the identity, of two numbers, of a symbol
    assert tokens.bag_weights_B.tolist() == [1, 1, *tokens.features_NG[0, :2].tolist(), 1, 1, 1]
    all_named = c.encode_observation(observation)
    np.testing.assert_array_equal(tokens.features_NG, all_named.features_NG)
    assert bag(all_named, 1) == bag(tokens, 0)


def test_rows_are_the_same_everywhere():
    """Recorded once: a change of the hash would silently invalidate every trained table."""
    c = codec(gym.spaces.Tuple([Discrete(3), gym.spaces.Text(10)]))
    text = np.frombuffer(b"red".ljust(c.observation[1].shape[0], b"\0"), np.uint8)
    assert bag(c.encode_observation([np.array([2]), text[None]]), 0) == RECORDED


RECORDED = [8826, 2705, 2353, 8162]


def test_errors_name_what_to_do():
    with pytest.raises(LdmError, match=r"context only 4.*image_patches"):
        codec(Box(0, 255, (64, 64, 3), np.uint8), config=TokenConfig(context=4))
    with pytest.raises(LdmError, match="129 continuous"):
        codec(action=Box(-1, 1, (129,)))
    with pytest.raises(LdmError, match="kind text"):
        codec(action=gym.spaces.Text(4))
