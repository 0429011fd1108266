"""Passes in buckets: what recordings read, padded, gives the same actions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_timesteps import entry, timesteps
from test_actor import MANY, seated

from ldm.data.codec import Codec
from ldm.model.passes import MOST, Passes, bucket
from ldm.policy.actor import SharedActor
from ldm.policy.streams import Streams


def test_buckets_are_few_and_close():
    sizes = [bucket(count) for count in range(1, 10_000)]
    assert all(size >= count for count, size in enumerate(sizes, 1))
    assert all(size - count <= max(7, count / 8) for count, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 80 and bucket(0) == 0


class Recorded:
    """In a graph's place on a CPU: reads its tensors where they were when it was made."""

    made = 0

    def __init__(self, function):
        self.function = function
        Recorded.made += 1
        self.output = None

    def __call__(self):
        found = self.function()
        if self.output is None or self.output.shape != found.shape:
            self.output = torch.empty_like(found)
        return self.output.copy_(found)  # as replays do, which overwrite the same memory


def recording(actor: SharedActor) -> Passes:
    passes = Passes(actor._model, Recorded)
    actor._extend = passes.extend
    Recorded.made = 0
    return passes


@pytest.mark.parametrize("halves", [[slice(0, 4)], [slice(0, 2), slice(2, 4)]])
def test_padded_passes_read_what_plain_ones_do(model, tokens, halves):
    """Fresh, full and ended segments, texts and images; one slab a call and several."""
    plain, turns, _ = seated(MANY, model, tokens)
    actor, again, _ = seated(MANY, model, tokens)
    passes = recording(actor)
    for turn, other in zip(turns, again):
        for half in halves:
            expected, got = plain.read(turn[half]), actor.read(other[half])
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(actor.cache.lengths_W, plain.cache.lengths_W)
    assert 0 < len(passes.known) <= MOST and Recorded.made >= len(passes.known)


def test_a_long_play_needs_few_recordings(model, tokens):
    """Segments grow token by token; the shapes do not. What moved is recorded anew."""
    config = replace(tokens, context=300)
    streams = Streams(Codec(entry(), config), 4, False)
    actor = SharedActor(model, 300)
    passes = recording(actor)
    actor.join(streams)
    quiet = np.zeros(4, bool)
    for n, t in enumerate(timesteps("vector", 4, count=400, longest=1)):
        flags = {"started": quiet | (n == 0), "terminated": quiet, "truncated": quiet}
        actor.read([(streams, t._replace(**flags))])
    assert len(passes.known) == Recorded.made <= MOST
    assert Recorded.made < 400 / 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_replayed_passes_read_what_launched_ones_do(model, tokens):
    model = model.cuda()
    plain, turns, _ = seated(MANY, model, tokens)
    actor, again, _ = seated(MANY, model, tokens)
    actor._extend = Passes(model).extend
    for turn, other in zip(turns, again):
        torch.testing.assert_close(actor.read(other), plain.read(turn), rtol=1e-3, atol=1e-3)
