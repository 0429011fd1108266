"""The cost model of the token embedding: bytes that anyone must move, and bytes that ours moves.

    python -m ldm.bench.embedding_cost

Bytes of memory, not of caches: every distinct table row and every weight counts once in each
kernel that reads it, whatever is read again within a kernel comes from a cache. What that asks of
the caches stands beside it: `gathers`, a row for every bag entry, and `products`, a weight for
every tile that multiplies with it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ldm.bench.lengths import lengths
from ldm.bench.rows import table
from ldm.bench.synthetic import packed_batch
from ldm.data.batch import ACTION, OBSERVATION, PackedBatch
from ldm.kernels.token_embedding.configurations import (
    CHUNK,
    GROUP,
    SPLIT,
    configuration,
)

KINDS = (OBSERVATION, ACTION)


@dataclass(frozen=True)
class Counts:
    """What a batch holds: tokens, those with numbers, distinct rows, whole chunks of one row,
    weight rows that the tiles of the forward read."""

    tokens: int
    numbered: int
    columns: int
    entries: int
    distinct: int
    patches: int
    patch_bytes: int
    chunks: int
    tile_rows: int


def counts(batch: PackedBatch, width: int, arch: str = "sm_90") -> Counts:
    t = batch.tokens
    ids = t.bag_ids_B[batch.bag_order_B.long()].numpy()
    whole = ids[: len(ids) // CHUNK * CHUNK].reshape(-1, CHUNK)
    chosen = configuration("forward", width, arch, 16)
    return Counts(
        tokens=len(t.kinds_N),
        numbered=int(sum((t.kinds_N == k).sum() for k in KINDS)),
        columns=t.features_NF.shape[1],
        entries=len(ids),
        distinct=len(np.unique(ids)),
        patches=len(t.patch_tokens_P),
        patch_bytes=t.patches_PX.shape[1],
        chunks=int((whole[:, 0] == whole[:, -1]).sum()),
        tile_rows=_tile_rows(t, chosen.BM, chosen.BK),
    )


def _tile_rows(tokens, BM: int, BK: int) -> int:
    """Rows of a weight that the tiles load: for each kind in a tile up to its last number."""
    numbers, kinds = tokens.features_NF.numpy(), tokens.kinds_N.numpy()
    last = np.where(numbers != 0, np.arange(1, numbers.shape[1] + 1), 0).max(1)
    last = np.pad(last, (0, -len(last) % BM))
    kinds = np.pad(kinds, (0, -len(kinds) % BM))
    rows = sum(-(-np.where(kinds == k, last, 0).reshape(-1, BM).max(1) // BK) * BK for k in KINDS)
    patch_tiles = -(-len(tokens.patch_tokens_P) // BM)
    return int(rows.sum()) + patch_tiles * tokens.patches_PX.shape[1]


def inputs(c: Counts, width: int, table_size: int) -> int:
    """Bytes of ids, numbers, patches, distinct rows and weights, read once."""
    weights = (len(KINDS) * c.columns + (c.patch_bytes if c.patches else 0) + 1) * width
    rows = (c.distinct * width + weights) * table_size
    return rows + 4 * c.entries + 4 * c.columns * c.numbered + c.patches * c.patch_bytes


def layout(c: Counts) -> int:
    """Bytes of kinds, offsets and patch tokens."""
    return c.tokens + 4 * (c.tokens + 1) + 4 * c.patches


def forward_bytes(c: Counts, width: int, table_size: int = 2, size: int = 2) -> dict[str, float]:
    """floor: inputs and one write of the output. ours: also layout and 1/rms of every token."""
    floor = inputs(c, width, table_size) + c.tokens * width * size
    return {
        "floor": floor,
        "ours": floor + layout(c) + 4 * c.tokens,
        "gathers": c.entries * width * table_size,
        "products": c.tile_rows * width * table_size,
    }


def backward_bytes(
    c: Counts, width: int, rows: int, table_size: int = 2, size: int = 2, arch: str = "sm_90"
) -> dict[str, float]:
    """floor: inputs, one read of the output's gradient, one write of every weight's gradient.

    ours: also de, written once and read for the table and for the weights, and partial sums.
    """
    vectors = c.tokens * width * size
    weights = (len(KINDS) * c.columns + c.patch_bytes + 1) * width
    floor = inputs(c, width, table_size) + vectors + (rows * width + weights) * table_size
    chosen = configuration("prenorm", width, arch, size * 8)
    gains = -(-c.tokens // (GROUP if width <= chosen.BD else chosen.BM)) * width
    splits = -(-c.tokens // SPLIT) * len(KINDS) * c.columns
    splits += -(-c.patches // SPLIT) * c.patch_bytes
    partial = 2 * 4 * (gains + splits * width + c.chunks * width)
    again = 4 * c.columns * c.numbered + c.patches * c.patch_bytes  # inputs of the weights' sums
    read = (c.tokens + c.numbered + c.patches) * width * size
    index = 4 * (2 * c.entries + c.tokens) + 4 * (4 * c.entries + 2 * rows)
    return {
        "floor": floor,
        "ours": floor + layout(c) + 4 * c.tokens + vectors + read + again + partial + index,
        "gathers": c.entries * width * (table_size + size),
        "products": c.tile_rows * width * table_size,
    }


def control_batch(tokens: int, rows: int) -> PackedBatch:
    """Steps of an observation of 17 numbers and an action of 9, two rows in every bag: kind and
    environment, eight environments in turn."""
    batch = packed_batch([256] * (tokens // 256), rows=rows, bag=1)
    t, every = batch.tokens, torch.arange(tokens)
    ids = torch.stack([t.kinds_N.long(), 8 + every // 256 % 8], 1).flatten()
    t.bag_ids_B, t.bag_offsets_N1 = ids.int(), torch.arange(tokens + 1).int() * 2
    t.features_NF = torch.ones_like(t.features_NF)
    t.features_NF[:, 17:] = 0
    t.features_NF[t.kinds_N == ACTION, 9:] = 0
    batch.bag_order_B = torch.argsort(ids, stable=True).int()
    return batch


def main() -> None:
    """The table of docs/kernels/token_embedding.md: ldm-v0's width, bf16."""
    tokens, width, rows, lines = 32_768, 1024, 65_536, []
    batches = {
        "control": control_batch(tokens, rows),
        "any rows": packed_batch(lengths("exp 256", tokens), rows=rows, patches=256),
        "images": packed_batch(lengths("exp 256", tokens), rows=rows, patches=tokens // 2, bag=1),
    }
    for name, batch in batches.items():
        c = counts(batch, width)
        for mode, moved in (
            ("forward", forward_bytes(c, width)),
            ("backward", backward_bytes(c, width, rows)),
        ):
            line = {"batch": name, "mode": mode}
            line |= {f"{key} MB": value / 1e6 for key, value in moved.items()}
            lines.append(line | {"ratio": moved["ours"] / moved["floor"]})
    print(table(lines, tuple(lines[0])))


if __name__ == "__main__":
    main()
