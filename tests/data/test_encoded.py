from dataclasses import replace

import numpy as np
import pytest
from examples import SPACES, blocks, entry, flat, joined, trajectories

from ldm.config import TokenConfig
from ldm.data import facts
from ldm.data.codec import Codec
from ldm.data.encoded import Encoded, Limits, encode
from ldm.data.packing import Bins, pack

CONFIG = TokenConfig(context=64, identity_dropout=0.0)


def encoded(name, spans=False, config=CONFIG, count=4):
    rng = np.random.default_rng(1)
    environment = entry(*SPACES[name], name=name)
    codec = Codec(environment, config)
    data = trajectories(environment, count, rng)
    return codec, data, encode(codec, dict(enumerate(data)), 7, 3, spans, rng)


def as_one_bin(block, segment):
    tokens = int(block.tokens_S[segment])
    bins = Bins(*(np.array([i], np.int32) for i in (0, segment, 1)))
    return flat(pack([block], bins, tokens, 2, CONFIG.rows))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("spans", [False, True])
def test_a_segment_traces_back_to_its_steps(name, spans):
    """Every segment equals the tokens that acting makes of the raw steps it says it comes from."""
    codec, data, block = encoded(name, spans)
    assert (block.environment_S == 7).all() and (block.shard_S == 3).all()
    covered = np.zeros((len(data), max(map(len, data))), int)
    for i in range(len(block)):
        trajectory, first = data[block.trajectory_S[i]], block.first_step_S[i]
        steps = slice(first, first + block.steps_S[i])
        covered[block.trajectory_S[i], steps] += 1
        batch = as_one_bin(block, i)
        episode = np.repeat(np.arange(len(trajectory.lengths)), trajectory.lengths)[steps]
        assert spans or len(set(episode)) == 1
        seen = np.arange(first, steps.stop) + episode
        observation = [array[seen] for array in trajectory.observations]
        rows = codec.observation_rows_of(observation).join(
            codec.action_rows_of(
                [array[steps] for array in trajectory.actions],
                trajectory.rewards[steps],
                trajectory.terminated[steps],
                trajectory.truncated[steps],
            )
        )
        for key, value in vars(rows.tokens()).items():
            np.testing.assert_array_equal(batch[key], value, err_msg=key)
        labels = [array[steps] for array in trajectory.labels]
        components = len(codec.components.slots)
        values = batch["values_L"].reshape(-1, components)
        for back, true in zip(codec.decode(values), labels):
            np.testing.assert_allclose(back, true, atol=1e-5)
        reads = np.arange(len(values)) * codec.tokens_per_step + codec.tokens_per_observation - 1
        np.testing.assert_array_equal(batch["tokens_L"], np.repeat(reads, components))
    lengths = np.array([len(t) for t in data])
    np.testing.assert_array_equal(covered, np.arange(covered.shape[1]) < lengths[:, None])


def test_segments_end_with_the_episode_unless_hidden_state_spans_it():
    codec, data, apart = encoded("toy/Vector-v0")
    _, _, across = encoded("toy/Vector-v0", spans=True)
    most = CONFIG.context // codec.tokens_per_step
    expected = sum(-(-n // most) for t in data for n in t.lengths.tolist())
    assert len(apart) == expected
    assert len(across) == sum(-(-len(t) // most) for t in data) < expected


def test_identity_is_dropped_from_whole_segments():
    config = TokenConfig(context=8, identity_dropout=0.3)
    codec, _, block = encoded("toy/Vector-v0", config=config, count=60)
    named = np.zeros(len(block), int)
    for i in range(len(block)):
        at = block.offsets["B"]
        named[i] = (block.bag_ids_B[at[i] : at[i + 1]] == codec.identity_row).sum()
    assert set(np.unique(named / block.tokens_S)) == {0.0, 1.0}
    assert 0.25 < (named == 0).mean() < 0.35
    np.testing.assert_array_equal(block.named_S, named > 0)
    shown = np.repeat(named > 0, block.tokens_S)
    np.testing.assert_array_equal(block.own_counts_N, block.feature_counts_N * shown)
    for i in (int(np.flatnonzero(named)[0]), int(np.flatnonzero(named == 0)[0])):
        owner = block.environment_S[i] + 1 if named[i] else 0
        assert set(as_one_bin(block, i)["owners_U"]) == {owner}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("without", ["rewards", "actions", "identity"])
def test_what_a_model_is_kept_from_seeing_changes_no_token(name, without):
    config = replace(CONFIG, without=[without])
    _, _, with_it = encoded(name)
    codec, data, block = encoded(name, config=config)
    for trajectory in data:
        if without == "rewards":
            trajectory.rewards[:] = -3.0 * trajectory.rewards + 1.0
        if without == "actions":
            trajectory.actions[:] = [np.roll(leaf, 1, axis=0) for leaf in trajectory.actions]
    again = encode(codec, dict(enumerate(data)), 7, 3, False, np.random.default_rng(1))
    for key, array in block.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key], err_msg=key)
    np.testing.assert_array_equal(block.values_L, with_it.values_L)  # what it is to do stays
    if without == "identity":
        assert not block.named_S.any() and not (block.bag_ids_B == codec.identity_row).any()
        assert codec.owner == 0
    else:
        assert any((a != with_it.arrays()[k]).any() for k, a in block.arrays().items())


@pytest.mark.parametrize("name", SPACES)
def test_a_policy_without_memory_never_sees_what_it_did(name):
    environment = entry(*SPACES[name], name=name)
    data = trajectories(environment, 4, np.random.default_rng(1))

    def tokens(own: bool, memoryless: bool):
        if own:
            for trajectory in data:
                trajectory.actions[:] = [np.roll(leaf, 1, axis=0) for leaf in trajectory.actions]
        codec = Codec({**environment, "memoryless": memoryless}, CONFIG)
        return encode(codec, dict(enumerate(data)), 7, 3, False, np.random.default_rng(1)).arrays()

    seen, unseen = tokens(False, memoryless=False), tokens(False, memoryless=True)
    for key, array in tokens(True, memoryless=True).items():
        np.testing.assert_array_equal(array, unseen[key], err_msg=key)
    np.testing.assert_array_equal(seen["values_L"], unseen["values_L"])  # what it is to do stays
    assert any((array != unseen[key]).any() for key, array in seen.items())
    assert seen["tokens_S"].tolist() == unseen["tokens_S"].tolist()


def test_facts_that_say_nothing_of_own_actions_show_them():
    """So say models that were trained before there was a choice."""
    derived = facts.derive(entry(*SPACES["toy/Vector-v0"]) | {"memoryless": True})
    known = {name: value for name, value in derived.items() if name != "own_actions"}
    made = entry(*SPACES["toy/Vector-v0"])
    assert not derived["own_actions"] and Codec(made | {"facts": known}, CONFIG).own_actions


def test_a_recipe_may_run_segments_over_episodes_anywhere():
    assert not Codec(entry(*SPACES["toy/Vector-v0"], name="a"), CONFIG).spans_episodes
    config = replace(CONFIG, across_episodes=True)
    assert Codec(entry(*SPACES["toy/Vector-v0"], name="a"), config).spans_episodes


def test_select_takes_segments_whole_and_in_order():
    block = joined(blocks())
    order = np.random.default_rng(0).permutation(len(block))[:40]
    chosen = block.select(np.append(order, order[0]))
    for i, segment in enumerate(np.append(order, order[0])):
        for (name, one), other in zip(
            as_one_bin(block, segment).items(), as_one_bin(chosen, i).values()
        ):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_a_block_whose_counts_do_not_add_up_is_refused():
    block = blocks()[0]
    with pytest.raises(ValueError, match=r"features_G has \d+ rows, expected"):
        Encoded(**{**block.arrays(), "features_G": block.features_G[1:]})


def some_tokens_have_all_numbers(block, count):
    """The block with `count` numbers at its first observation, which others lack."""
    arrays = block.arrays()
    features, own = (arrays[name].copy() for name in ("feature_counts_N", "own_counts_N"))
    taken = np.flatnonzero((block.kinds_N == 1) & (features > 0))
    each = int(features[taken[0]])
    others = taken[1 : -(-count // each)]
    features[taken[0]] = each * (1 + len(others))
    features[others] = own[others] = 0
    return {**arrays, "feature_counts_N": features, "own_counts_N": own}, taken[0]


def test_own_rows_that_their_bag_does_not_hold_are_refused():
    """254 and the two before them would wrap around to 0: the packer wrote past its array."""
    block = blocks(count=40)[0]
    for count in (70, 255):
        arrays, token = some_tokens_have_all_numbers(block, count)
        arrays["own_counts_N"][token] = arrays["feature_counts_N"][token]
        assert arrays["feature_counts_N"][token] >= count
        with pytest.raises(ValueError, match="own_counts_N are neither 0 nor of all numbers"):
            Encoded(**arrays)
    arrays = {**block.arrays(), "own_counts_N": np.maximum(block.own_counts_N, 1) - 1}
    with pytest.raises(ValueError, match="own_counts_N"):
        Encoded(**arrays)


def test_more_numbers_than_a_token_has_room_for_are_named():
    block = blocks(count=40)[0]
    limits = Limits(CONFIG.rows, 256, len(SPACES))
    assert block.problem(limits) == ""
    arrays, token = some_tokens_have_all_numbers(block, 66)
    arrays["own_counts_N"][token] = 0
    assert "feature_counts_N is" in Encoded(**arrays).problem(limits)
