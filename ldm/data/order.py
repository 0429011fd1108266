"""The training order: which segments every bin of a stream holds, as a pure function.

A stream passes over its segments epoch after epoch: in an epoch its shards come in random order,
within a shard its blocks, and within a block its segments. Best fit with look-ahead turns that
order into bins; segments left over at the end of a round of whole epochs open the next one. So the
n-th bin of a stream depends on the mix manifest's checksum, the stream and n alone, and a cursor is
the number n.
"""

from collections.abc import Iterator

import numpy as np

from ldm._native.best_fit import best_fit
from ldm.seeds import derive

LOOKAHEAD = 1024  # segments that wait to be placed, at most: readers hold their blocks
FEWEST = (
    128  # and at least: bins of 8,192 tokens are 99.4% full then where most segments have 2,048
)
WAITING_BINS = 16  # between the two, what fills so many bins
ROUND = 4 * LOOKAHEAD  # segments of a round, at least: a smaller stream packs several epochs

Lengths = list[list[np.ndarray]]  # for each shard, for each of its blocks: tokens of its segments


def bins(
    lengths: Lengths, bin_tokens: int, checksum: str, stream: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The bins of a stream from number `start` on, without end, as (segments, finished).

    Segments are int64, counted through all blocks; finished: int64, the blocks, counted through all
    shards, of which nothing else will come before they come again as a whole. Raises ValueError
    where a segment has more than `bin_tokens` tokens.
    """
    first = np.cumsum([0, *(len(block) for shard in lengths for block in shard)])
    done = 0
    for placed, starts, left in _rounds(lengths, bin_tokens, checksum, stream):
        count = len(starts) - 1
        if done + count > start:
            last = np.full(len(first) - 1, -1)
            blocks = np.searchsorted(first, placed, side="right") - 1
            last[blocks] = np.repeat(np.arange(count), np.diff(starts))  # the last of each stands
            last[np.searchsorted(first, left, side="right") - 1] = count
            for n in range(max(0, start - done), count):
                part = slice(starts[n], starts[n + 1])
                mine = np.unique(blocks[part])
                yield placed[part], mine[last[mine] == n]
        done += count


def contents(sizes: Lengths, bin_tokens: int, checksum: str, stream: int, count: int) -> np.ndarray:
    """What the first `count` bins of a stream hold: int64 (count, columns), sums over segments.

    sizes: like lengths, but int32 (segments, columns), the first column the tokens.
    """
    lengths = [[block[:, 0] for block in shard] for shard in sizes]
    whole = np.concatenate([block for shard in sizes for block in shard])
    found, done = [], 0
    for placed, starts, _ in _rounds(lengths, bin_tokens, checksum, stream):
        before = np.zeros((len(placed) + 1, whole.shape[1]), np.int64)
        np.cumsum(whole[placed], axis=0, out=before[1:])
        found.append(np.diff(before[starts], axis=0))
        done += len(starts) - 1
        if done >= count:
            break
    return np.concatenate(found)[:count]


def lookahead(lengths: Lengths, bin_tokens: int) -> int:
    """How many segments wait to be placed."""
    blocks = [block for shard in lengths for block in shard]
    tokens, count = sum(int(block.sum()) for block in blocks), sum(map(len, blocks))
    return min(LOOKAHEAD, max(FEWEST, WAITING_BINS * bin_tokens * count // tokens))


def _rounds(
    lengths: Lengths, bin_tokens: int, checksum: str, stream: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(segments bin after bin, where each bin starts and the last ends, segments left for the next
    round), round by round."""
    all_lengths = np.concatenate([b for shard in lengths for b in shard]).astype(np.int32)
    ahead = lookahead(lengths, bin_tokens)
    epochs = -(-ROUND // len(all_lengths))
    waiting, epoch = np.empty(0, np.int64), 0
    while True:
        passes = [_epoch(lengths, checksum, stream, epoch + i) for i in range(epochs)]
        epoch += epochs
        order = np.concatenate([waiting, *passes])
        placed, ends = np.empty((2, len(order)), np.int32)
        count = best_fit(all_lengths[order], bin_tokens, ahead, placed, ends)
        starts = np.append(0, ends[:count])
        waiting = order[placed[starts[-1] :]]
        yield order[placed[: starts[-1]]], starts, waiting


def _epoch(lengths: Lengths, checksum: str, stream: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng(derive(checksum, stream, epoch))
    first = np.cumsum([0, *(len(block) for shard in lengths for block in shard)])
    number = np.cumsum([0, *map(len, lengths)])  # of each shard's first block
    return np.concatenate(
        [
            first[number[s] + b] + rng.permutation(len(lengths[s][b]))
            for s in rng.permutation(len(lengths))
            for b in rng.permutation(len(lengths[s]))
        ]
    )
