"""The training order: which segments every bin of a stream holds, as a pure function.

A stream passes over its segments epoch after epoch: in an epoch its shards come in random order,
and within a shard its segments. Best fit with look-ahead turns that order into bins; segments left
over at the end of a round of whole epochs open the next one. So the n-th bin of a stream depends on
the mix manifest's checksum, the stream and n alone, and a cursor is the number n.
"""

from collections.abc import Iterator

import numpy as np

from ldm._native.best_fit import best_fit
from ldm.seeds import derive

LOOKAHEAD = 1024  # segments that wait to be placed
ROUND = (
    4 * LOOKAHEAD
)  # segments a round has at least: a smaller stream packs several epochs at once


def bins(
    lengths: list[np.ndarray], bin_tokens: int, checksum: str, stream: int, start: int = 0
) -> Iterator[np.ndarray]:
    """The bins of a stream from number `start` on, without end.

    lengths: for each shard the tokens of its segments, int32. A bin is int64 segment numbers,
    counted through all shards. Raises ValueError where a segment has more than `bin_tokens` tokens.
    """
    all_lengths = np.concatenate(lengths).astype(np.int32)
    epochs = -(-ROUND // len(all_lengths))
    waiting, epoch, done = np.empty(0, np.int64), 0, 0
    while True:
        passes = [_epoch(lengths, checksum, stream, epoch + i) for i in range(epochs)]
        epoch += epochs
        order = np.concatenate([waiting, *passes])
        placed, ends = np.empty((2, len(order)), np.int32)
        count = best_fit(all_lengths[order], bin_tokens, LOOKAHEAD, placed, ends)
        starts = np.append(0, ends[:count])
        for n in range(max(0, start - done), count):
            yield order[placed[starts[n] : starts[n + 1]]]
        waiting, done = order[placed[starts[count] :]], done + count


def _epoch(lengths: list[np.ndarray], checksum: str, stream: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng(derive(checksum, stream, epoch))
    first = np.cumsum([0, *map(len, lengths)])
    return np.concatenate(
        [first[s] + rng.permutation(len(lengths[s])) for s in rng.permutation(len(lengths))]
    )
