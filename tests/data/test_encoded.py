import numpy as np
import pytest
from examples import SPACES, blocks, entry, flat, joined, trajectories

from ldm.config import TokenConfig
from ldm.data.codec import Codec
from ldm.data.encoded import Encoded, encode
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
