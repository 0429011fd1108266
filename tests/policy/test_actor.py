"""Acting step by step must read the very hidden states that the packed forward gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_timesteps import entry, timesteps

from ldm.data import facts
from ldm.data.batch import Labels, PackedBatch, Tokens
from ldm.data.codec import Codec
from ldm.data.work_list import attention_tiles
from ldm.policy.actor import ModelActor, SharedActor
from ldm.policy.streams import Streams


def row(timestep, i):
    return [array[i : i + 1] for array in timestep.observation]


def segments_of(found, i, codec, spans):
    """For each timestep, the tokens in stream `i`'s segment by the rule, written out plainly."""
    context, per_step = codec.config.context, codec.tokens_per_step
    segment, held, expected = [], None, []
    for timestep in found:
        goes_on = spans and timestep.started[i] and held is not None
        if timestep.started[i] and not goes_on:
            segment = []
        elif held is not None or not timestep.started[i]:
            segment = [*segment, held if goes_on else action_part(timestep, i, codec)]
        observation = codec.encode_observation(row(timestep, i))
        size = sum(len(part.kinds_N) for part in segment) + len(observation.kinds_N)
        if size > context:
            kept_steps = context // 2 // per_step
            segment = segment[len(segment) - 2 * kept_steps :]
        segment = [*segment, observation]
        expected.append(segment)
        held = None
        if spans and (timestep.terminated[i] or timestep.truncated[i]):
            *segment, held, _ = segment
    return expected


def action_part(timestep, i, codec):
    one = slice(i, i + 1)
    reward = timestep.reward[one].astype(np.float32)
    return codec.encode_action(
        [array[one] for array in timestep.action],
        reward,
        timestep.terminated[one],
        timestep.truncated[one],
    )


def joined(parts):
    """Tokens of several parts, one after another."""
    offsets, patch_tokens, entries, tokens = [np.zeros(1, np.int32)], [], 0, 0
    for part in parts:
        offsets.append(part.bag_offsets_N1[1:] + entries)
        patch_tokens.append(part.patch_tokens_P + tokens)
        entries, tokens = entries + len(part.bag_ids_B), tokens + len(part.kinds_N)
    names = ("kinds_N", "bag_ids_B", "bag_weights_B", "features_NG", "patches_PX")
    plain = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Tokens(
        **plain,
        bag_offsets_N1=np.concatenate(offsets).astype(np.int32),
        patch_tokens_P=np.concatenate(patch_tokens).astype(np.int32),
    )


def packed_last(model, segments):
    """The packed forward's hidden state of each segment's last token."""
    lengths = np.array([sum(len(part.kinds_N) for part in segment) for segment in segments])
    ends = np.cumsum(lengths)
    cu_seqlens = np.concatenate([[0], ends]).astype(np.int32)
    short_tiles_Q4, long_tiles_Q4 = attention_tiles(cu_seqlens)
    batch = PackedBatch(
        tokens=joined([part for segment in segments for part in segment]),
        labels=Labels(*[np.zeros(0, np.int32)] * 9),
        cu_seqlens_S1=cu_seqlens,
        positions_N=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        bag_order_B=np.zeros(0, np.int32),
        short_tiles_Q4=short_tiles_Q4,
        long_tiles_Q4=long_tiles_Q4,
        max_seqlen=int(lengths.max()),
        label_count=0,
        used_tokens=int(ends[-1]),
        transitions=0,
    ).to("cpu")
    with torch.no_grad():
        return model(batch)[torch.from_numpy(ends - 1)], lengths


@pytest.mark.parametrize("spans", [False, True])
@pytest.mark.parametrize(
    "kind, longest, context",
    [("vector", 7, 30), ("vector", 60, 30), ("vector", 60, 31), ("mixed", 12, 40)],
)
def test_acting_equals_the_packed_forward(kind, longest, context, spans, model, tokens):
    codec = Codec(entry(kind, spans), replace(tokens, context=context))
    found = timesteps(kind, num_envs=5, count=70, longest=longest)
    actor = ModelActor("test", model, Streams(codec, 5, spans))
    got = torch.stack([actor.read(timestep) for timestep in found], 1)  # [R, timesteps, D]
    longest_segment = 0
    for i in range(5):
        expected, lengths = packed_last(model, segments_of(found, i, codec, spans))
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=1e-4)
        longest_segment = max(longest_segment, lengths.max())
    filled = longest_segment > context - codec.tokens_per_step
    assert filled == (spans or longest > 7)  # the refill was seen


def test_a_context_too_short_to_remember_begins_anew(model, tokens):
    codec = Codec(entry("mixed"), replace(tokens, context=12))
    assert codec.tokens_per_step > 12 // 2
    found = timesteps("mixed", num_envs=3, count=20, longest=8)
    actor = ModelActor("test", model, Streams(codec, 3, False))
    got = torch.stack([actor.read(timestep) for timestep in found], 1)
    for i in range(3):
        expected, _ = packed_last(model, segments_of(found, i, codec, False))
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=1e-4)


def test_all_streams_full_at_once(model, tokens):
    codec = Codec(entry(), tokens)
    found = timesteps("vector", num_envs=3, count=40, longest=1)
    quiet = np.zeros(3, bool)
    found = [t._replace(started=quiet | (n == 0)) for n, t in enumerate(found)]
    found = [t._replace(terminated=quiet, truncated=quiet) for t in found]
    actor = ModelActor("test", model, Streams(codec, 3, False))
    got = torch.stack([actor.read(timestep) for timestep in found], 1)
    for i in range(3):
        expected, _ = packed_last(model, segments_of(found, i, codec, False))
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=1e-4)


def test_a_stream_acts_with_its_environment_s_gain_and_bias(model, tokens):
    """Two environments alike but for their owner, and one that no model knows, side by side."""
    known = entry()
    derived = facts.derive(known) | {"fidelity": []}
    codecs = [Codec({**known, "facts": derived | {"owner": n}}, tokens) for n in (1, 2, 0)]
    found = timesteps("vector", num_envs=2, count=3, longest=3)

    def acted():
        shared = SharedActor(model, tokens.context)
        streams = [shared.join(Streams(codec, 2, False)) for codec in codecs]
        return [shared.act([(s, timestep) for s in streams]) for timestep in found]

    same = acted()
    assert all(np.array_equal(a, b) for one, two, _ in same for a, b in zip(one, two))
    with torch.no_grad():
        model.head.own[2] = torch.randn(64) * 5
    for before, after in zip(same, acted()):
        changed = [any((a != b).any() for a, b in zip(x, y)) for x, y in zip(before, after)]
        assert changed == [False, True, False]


def test_actions_lie_in_the_space(model, tokens):
    codec = Codec(entry("mixed"), tokens)
    actor = ModelActor("test", model, Streams(codec, 4, False))
    for timestep in timesteps("mixed", num_envs=4, count=5, longest=3):
        numbers, symbols = actor.act(timestep)
        assert numbers.shape == (4, 2) and np.abs(numbers).max() <= 1
        assert symbols.shape == (4, 2) and (symbols >= 0).all() and (symbols < [3, 5]).all()


def test_the_past_changes_the_action(model, tokens):
    """The same observation after another reward is read differently, within the episode only."""
    codec = Codec(entry(), tokens)
    first, second, third = timesteps("vector", num_envs=1, count=4, longest=9)[:3]
    hidden = []
    for reward in (0.0, 1.0):
        actor = ModelActor("test", model, Streams(codec, 1, False))
        actor.read(first)
        now = actor.read(second._replace(reward=np.array([reward])))
        fresh = actor.read(third._replace(started=np.array([True])))
        hidden.append((now, fresh))
    assert (hidden[0][0] - hidden[1][0]).abs().max() > 1e-3
    torch.testing.assert_close(hidden[0][1], hidden[1][1])


def test_another_number_of_streams_is_refused(model, tokens):
    actor = ModelActor("test", model, Streams(Codec(entry(), tokens), 2, False))
    with pytest.raises(ValueError, match="3 streams, the actor was made for 2"):
        actor.read(timesteps("vector", num_envs=3, count=1, longest=1)[0])


def seated(kinds, model, tokens, context=40):
    """(shared actor, its turns a timestep, each environment's streams alone)."""
    config = replace(tokens, context=context)
    found = [timesteps(k, n, count=50, longest=9, seed=i) for i, (k, n, _) in enumerate(kinds)]
    streams = lambda: [Streams(Codec(entry(k, s), config), n, s) for k, n, s in kinds]
    actor = SharedActor(model, context)
    together = [actor.join(s) for s in streams()]
    return actor, [list(zip(together, turn)) for turn in zip(*found)], streams()


MANY = [("vector", 3, False), ("mixed", 2, False), ("vector", 1, True), ("mixed", 4, True)]


def test_many_environments_act_together_as_each_does_alone(model, tokens):
    actor, turns, alone = seated(MANY, model, tokens)
    actors = [ModelActor("test", model, streams) for streams in alone]
    for turn in turns:
        hidden = torch.cat([a.read(timestep) for a, (_, timestep) in zip(actors, turn)])
        torch.testing.assert_close(actor.read(turn), hidden, rtol=1e-4, atol=1e-4)
    assert len(actor.cache.slabs) == 2  # of one token a step, and of many


def test_environments_leave_and_others_take_their_rows(model, tokens):
    actor, turns, alone = seated(MANY, model, tokens)
    for turn in turns[:20]:
        actor.read(turn)
    rows, held = len(actor.cache.lengths_W), actor.cache.bytes()
    actor.leave(turns[0][1][0])
    late = actor.join(Streams(alone[1].codec, 2, False))
    assert len(actor.cache.lengths_W) == rows and actor.cache.bytes() == held
    single = ModelActor("test", model, alone[1])
    for turn in turns[20:]:
        mixed = [(late if k == 1 else streams, t) for k, (streams, t) in enumerate(turn)]
        got, expected = actor.read(mixed)[3:5], single.read(turn[1][1])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for streams, _ in mixed:
        actor.leave(streams)
    assert actor.cache.bytes() == 0


def test_taking_turns_changes_nothing(model, tokens):
    """Two halves that act one after the other, as where simulators run meanwhile."""
    actor, turns, alone = seated(MANY, model, tokens)
    actors = [ModelActor("test", model, streams) for streams in alone]
    for turn in turns:
        for half in (turn[:2], turn[2:]):
            for got, (streams, timestep) in zip(actor.act(half), half):
                place = [s for s, _ in turn].index(streams)
                for ours, theirs in zip(got, actors[place].act(timestep)):
                    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_memory_grows_with_the_segments_and_not_past_the_context(model, tokens):
    config = replace(tokens, context=300)
    streams = Streams(Codec(entry(), config), 4, False)
    actor = SharedActor(model, 300)
    actor.join(streams)
    quiet, sizes = np.zeros(4, bool), []
    for n, t in enumerate(timesteps("vector", 4, count=400, longest=1)):
        flags = {"started": quiet | (n == 0), "terminated": quiet, "truncated": quiet}
        actor.read([(streams, t._replace(**flags))])
        sizes.append(actor.cache.bytes())
    token = sizes[0] // 64
    assert sizes[0] == 64 * token and max(sizes) == 300 * token and sizes == sorted(sizes)
