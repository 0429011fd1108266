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
    done = 0
    for placed, starts in _rounds(lengths, bin_tokens, checksum, stream):
        count = len(starts) - 1
        for n in range(max(0, start - done), count):
            yield placed[starts[n] : starts[n + 1]]
        done += count


def contents(
    sizes: list[np.ndarray], bin_tokens: int, checksum: str, stream: int, count: int
) -> np.ndarray:
    """What the first `count` bins of a stream hold: int64 (count, columns), sums over segments.

    sizes: for each shard int32 (segments, columns), the first column the tokens.
    """
    lengths, whole = [part[:, 0] for part in sizes], np.concatenate(sizes)
    found, done = [], 0
    for placed, starts in _rounds(lengths, bin_tokens, checksum, stream):
        before = np.zeros((len(placed) + 1, whole.shape[1]), np.int64)
        np.cumsum(whole[placed], axis=0, out=before[1:])
        found.append(np.diff(before[starts], axis=0))
        done += len(starts) - 1
        if done >= count:
            break
    return np.concatenate(found)[:count]


def _rounds(
    lengths: list[np.ndarray], bin_tokens: int, checksum: str, stream: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(segment numbers bin after bin, where each bin starts and the last ends), round by round."""
    all_lengths = np.concatenate(lengths).astype(np.int32)
    epochs = -(-ROUND // len(all_lengths))
    waiting, epoch = np.empty(0, np.int64), 0
    while True:
        passes = [_epoch(lengths, checksum, stream, epoch + i) for i in range(epochs)]
        epoch += epochs
        order = np.concatenate([waiting, *passes])
        placed, ends = np.empty((2, len(order)), np.int32)
        count = best_fit(all_lengths[order], bin_tokens, LOOKAHEAD, placed, ends)
        starts = np.append(0, ends[:count])
        yield order[placed[: starts[-1]]], starts
        waiting = order[placed[starts[-1] :]]


def _epoch(lengths: list[np.ndarray], checksum: str, stream: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng(derive(checksum, stream, epoch))
    first = np.cumsum([0, *map(len, lengths)])
    return np.concatenate(
        [first[s] + rng.permutation(len(lengths[s])) for s in rng.permutation(len(lengths))]
    )
