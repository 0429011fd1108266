"""The cost model of the token embedding: bytes that anyone must move, and bytes that ours moves.

    python -m ldm.bench.embedding_cost [MIX…]      MIX: folders that `ldm mix` wrote

Bytes of memory, not of caches: every distinct table row and every weight counts once in each mode,
and so does what is written and read again while less than CACHE bytes are in use; beyond that every
write and read counts. What is asked of the caches stands beside it: `gathers`, a row for every bag
entry, and `products`, a weight for every tile that multiplies with it. `live` is what must stay in
the cache for the figures to hold, and `small` what ours moves where it does not.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ldm._native.layout import TILE, tiles_a_window
from ldm.bench.lengths import lengths
from ldm.bench.measure import exact
from ldm.bench.rows import table
from ldm.bench.scale import sized
from ldm.bench.synthetic import PATCH_BYTES, packed_batch, plan_of
from ldm.data.batch import ACTION, OBSERVATION, PATCH, PATCH_CHANNELS, PackedBatch, Tokens
from ldm.kernels.token_embedding.configurations import (
    GROUP,
    configuration,
    number_sums,
    patch_sums,
)
from ldm.kernels.tuned import columns

KINDS = (OBSERVATION, ACTION)
CACHE = 32e6  # of the 40 MB of an A100 and the 50 MB of an H100 or H200
TOKENS, ROWS, WIDTH = sized((32_768, 65_536, 1024), (256, 4096, 64))


@dataclass(frozen=True)
class Counts:
    """What a batch holds: tokens, those with numbers, distinct rows, weight rows that the tiles of
    the forward read; and of its plan: windows, the most patches of one, windows with patches,
    whether pieces wait for all windows, pieces, those that write slots or read them, slots, those
    that are added up at the end."""

    tokens: int
    numbered: int
    columns: int
    entries: int
    distinct: int
    patches: int
    patch_bytes: int
    tile_rows: int
    window: int
    windows: int
    patches_a_window: int
    patch_windows: int
    whole: bool
    pieces: int
    slotted: int
    added: int
    slots: int
    summed: int


def counts(batch: PackedBatch, width: int, arch: str = "sm_90") -> Counts:
    t, plan = batch.tokens, batch.embedding
    chosen = configuration("forward", columns(width), arch, 16)
    pieces = plan.pieces_Q4[: plan.windows_V1[-1]]
    patches_V = np.bincount(t.patch_tokens_P[t.patch_tokens_P < len(t.kinds_N)] // plan.window)
    return Counts(
        tokens=len(t.kinds_N),
        numbered=int(sum((t.kinds_N == k).sum() for k in KINDS)),
        columns=t.features_NG.shape[1],
        entries=int(t.bag_offsets_N1[-1]),
        distinct=len(np.unique(t.bag_ids_B)),
        patches=int((t.kinds_N == PATCH).sum()),
        patch_bytes=t.patches_PX.shape[1],
        tile_rows=_tile_rows(t, plan.tiles_QM, chosen.BM, chosen.BK),
        window=plan.window,
        windows=len(plan.groups_VI),
        patches_a_window=int(patches_V.max(initial=0)),
        patch_windows=int((patches_V > 0).sum()),
        whole=len(plan.windows_V1) - 1 < len(plan.groups_VI),
        pieces=len(pieces),
        slotted=int((pieces[:, 3] < 0).sum()),
        added=int(((pieces[:, 2] > 0) & (pieces[:, 2] % 2 == 1)).sum()),
        slots=plan.slots,
        summed=int(plan.rows_R2[:, 1].clip(min=0).sum()),
    )


def _tile_rows(tokens: Tokens, tiles_QM, BM: int, BK: int) -> int:
    """Rows of a weight that the tiles load: up to the last number in the tile, or all."""
    numbers, kinds = tokens.features_NG.numpy(), tokens.kinds_N.numpy()
    last = np.where(numbers != 0, np.arange(1, numbers.shape[1] + 1), 0).max(1)
    last = -(-np.where(np.isin(kinds, KINDS), last, 0) // BK) * BK
    last[kinds == PATCH] = tokens.patches_PX.shape[1]
    return int(np.append(last, 0)[tiles_QM.reshape(-1, BM)].max(1).sum())


def inputs(c: Counts, width: int, table_size: int) -> int:
    """Bytes of ids and their weights, numbers, patches, distinct rows and weights, read once."""
    weights = (len(KINDS) * c.columns + (c.patch_bytes if c.patches else 0) + 1) * width
    rows = (c.distinct * width + weights) * table_size
    return rows + 8 * c.entries + 4 * c.columns * c.numbered + c.patches * c.patch_bytes


def layout(c: Counts) -> int:
    """Bytes of offsets, of the plan's tiles, and of 1/rms of every token."""
    return 4 * (c.tokens + 1) + 4 * TILE * c.windows * _capacity(c) + 4 * c.tokens


def _capacity(c: Counts) -> int:
    return tiles_a_window(c.window, len(KINDS))


def forward_bytes(c: Counts, width: int, table_size: int = 2, size: int = 2) -> dict[str, float]:
    """floor: inputs and one write of the output. ours: also the layout."""
    floor = inputs(c, width, table_size) + c.tokens * width * size
    return {
        "floor": floor,
        "ours": floor + layout(c),
        "live": 0,
        "small": floor + layout(c),
        "gathers": c.entries * width * table_size,
        "products": c.tile_rows * width * table_size,
    }


def backward_bytes(
    c: Counts, width: int, rows: int, table_size: int = 2, size: int = 2
) -> dict[str, float]:
    """floor: inputs, one read of the output's gradient, one write of every weight's gradient.

    ours: also the layout, the plan's pieces, the fp32 sums and de. Where one window of de, its
    numbers and patches and all sums stay in the cache, what is written is so once, when it leaves,
    and the slots that are added up are read once, after the zeros of other rows. Else every
    window's are. Where pieces wait for all windows, de of all tokens is written and read once.
    """
    vectors = c.tokens * width * size
    weights = (len(KINDS) * c.columns + c.patch_bytes + 1) * width
    floor = inputs(c, width, table_size) + vectors + (rows * width + weights) * table_size
    numbers = number_sums(c.patch_bytes if c.patches else 0) * len(KINDS) * c.columns
    gains = _capacity(c) * TILE // GROUP
    patches = patch_sums(c.patch_bytes) * c.patch_bytes if c.patches else 0
    sums = 4 * width * (gains + numbers + patches)
    scratch = min(c.window, c.tokens) * width * size
    live = scratch + sums + (0 if c.whole else 4 * width * c.slots)
    live += 4 * c.columns * c.window + c.patches_a_window * c.patch_bytes
    waiting = 4 * width * (c.slotted + c.added + c.summed)
    cached = sums + (2 * vectors + waiting if c.whole else scratch)
    cached += 0 if c.whole else 4 * width * (c.slots + c.summed)
    small = 2 * vectors + (c.numbered + c.patches) * width * size + waiting
    small += 4 * c.columns * c.numbered + c.patches * c.patch_bytes
    small += 8 * width * (c.windows * (gains + numbers) + c.patch_windows * patches)
    index = layout(c) + 8 * c.entries + 16 * c.pieces + 8 * rows
    return {
        "floor": floor,
        "ours": floor + index + (cached if live <= CACHE else small),
        "live": live,
        "small": floor + index + small,
        "gathers": c.entries * width * (table_size + size),
        "products": c.tile_rows * width * table_size,
    }


def with_bags(batch: PackedBatch, bags: list[np.ndarray], rows: int) -> PackedBatch:
    """The batch with these bags, token by token."""
    t = batch.tokens
    t.bag_ids_B = torch.from_numpy(np.concatenate(bags).astype(np.int32))
    t.bag_weights_B = torch.ones(len(t.bag_ids_B))
    ends = np.cumsum([0, *map(len, bags)])
    t.bag_offsets_N1 = torch.from_numpy(ends.astype(np.int32))
    batch.bag_order_B = torch.argsort(t.bag_ids_B, stable=True).int()
    t_numpy = Tokens(**{name: x.numpy() for name, x in vars(t).items()})
    return replace(batch, embedding=plan_of(t_numpy, batch.bag_order_B.numpy(), rows)).to("cpu")


def control_batch(tokens: int, rows: int) -> PackedBatch:
    """Steps of an observation of 17 numbers and an action of 9, in every bag a row of kind, of
    environment and of each number, eight environments in turn."""
    batch = packed_batch([256] * (tokens // 256), rows=rows, bag=0)
    t = batch.tokens
    t.features_NG = torch.ones_like(t.features_NG)
    t.features_NG[:, 17:] = 0
    t.features_NG[t.kinds_N == ACTION, 9:] = 0
    kinds = t.kinds_N.numpy()
    first, counts = 16 + 32 * (np.arange(tokens) // 256 % 8), np.where(kinds == ACTION, 9, 17)
    first += np.where(kinds == ACTION, 17, 0)
    bags = [
        np.array([k, 8 + i // 256 % 8, *range(f, f + n)])
        for i, (k, f, n) in enumerate(zip(kinds, first, counts))
    ]
    return with_bags(batch, bags, rows)


def image_batch(
    tokens: int, rows: int, part: int = 2, patch_bytes: int = PATCH_BYTES
) -> PackedBatch:
    """One in `part` tokens is a patch, with rows of its place (one of 100) and environment."""
    batch = packed_batch([256] * (tokens // 256), rows=rows, bag=0, patches=tokens // part)
    t = batch.tokens
    t.patches_PX = torch.zeros(len(t.patches_PX), patch_bytes, dtype=torch.uint8)
    places = np.where(t.kinds_N.numpy() == PATCH, 16 + np.arange(tokens) // 2 % 100, 1)
    return with_bags(batch, [np.array([p, 8 + i // 256 % 8]) for i, p in enumerate(places)], rows)


def frame_batch(tokens: int, rows: int) -> PackedBatch:
    """One token in six is a patch of 28 × 28 × 4, as in the quick start's mix."""
    return image_batch(tokens, rows, 6, 28 * 28 * PATCH_CHANNELS)


def grid_batch(tokens: int, rows: int) -> PackedBatch:
    """Observations of 20 symbols, each of one of 100 components with a few likely values, of eight
    environments in turn: about 2,000 rows in use, 11 to a token."""
    batch = packed_batch([256] * (tokens // 256), rows=rows, bag=0)
    batch.tokens.features_NG[:] = 0
    random, bags = np.random.default_rng(0), []
    for i, kind in enumerate(batch.tokens.kinds_N.tolist()):
        environment = i // 256 % 8
        symbols = np.empty(0, int)
        if kind == OBSERVATION:
            components = random.permutation(100)[:20]
            values = np.minimum(random.geometric(0.6, 20) - 1, 3)
            symbols = 16 + (environment * 100 + components) * 4 + values
        bags.append(np.concatenate([[kind, 8 + environment], symbols]))
    return with_bags(batch, bags, rows)


def recorded_batch(mix: Path, tokens: int) -> tuple[PackedBatch, int]:
    """(bins of a mix in the training order until they hold `tokens` tokens, rows of its table)."""
    from ldm.data.loader import Loader
    from ldm.data.manifest import read_manifest

    rows, parts = read_manifest(mix, "mix")["settings"]["tokens"]["rows"], []
    loader = Loader(mix)
    while sum(len(part.tokens.kinds_N) for part in parts) < tokens:
        parts.append(next(loader))
    loader.close()
    found, bags = [part.tokens for part in parts], []
    for t in found:
        bags += np.split(t.bag_ids_B.numpy(), t.bag_offsets_N1.numpy()[1:-1])
    joined = {
        name: torch.cat([getattr(t, name) for t in found])
        for name in ("kinds_N", "features_NG", "patches_PX")
    }
    places = (joined["kinds_N"] == PATCH).nonzero().squeeze(1).int()
    none = torch.zeros(0, dtype=torch.int32)
    unknown = dict.fromkeys(("bag_ids_B", "bag_weights_B", "bag_offsets_N1"), none)
    whole = Tokens(**unknown, patch_tokens_P=places, **joined)
    return with_bags(replace(parts[0], tokens=whole), bags, rows), rows


def lines(name: str, batch: PackedBatch, rows: int) -> list[dict]:
    """The table's rows of a batch: ldm-v0's width, bf16."""
    c = counts(batch, WIDTH)
    found = []
    for mode, moved in (
        ("forward", forward_bytes(c, WIDTH)),
        ("backward", backward_bytes(c, WIDTH, rows)),
    ):
        line = {"batch": name, "tokens": c.tokens, "rows in use": c.distinct, "mode": mode}
        line |= {f"{key} MB": value / 1e6 for key, value in moved.items()}
        found.append(line | {"ratio": moved["ours"] / moved["floor"]})
    return found


def batches() -> dict[str, PackedBatch]:
    scattered = packed_batch(lengths("exp 256", TOKENS), rows=ROWS, patches=sized(256, 8))
    return {
        "control": control_batch(TOKENS, ROWS),
        "images": image_batch(TOKENS, ROWS),
        "frames": frame_batch(TOKENS, ROWS),
        "grids": grid_batch(TOKENS, ROWS),
        "any rows": scattered,
    }


def synthetic_lines() -> list[dict]:
    return [line for name, batch in batches().items() for line in lines(name, batch, ROWS)]


def measure(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """The table of synthetic batches as rows of results."""
    found = synthetic_lines()
    notes(table(found, tuple(found[0])))
    for line in found:
        shape = f"{line['batch']}, {TOKENS} tokens, width {WIDTH}, {ROWS} rows, bf16"
        row = {"op": "token_embedding", "mode": line["mode"], "shape": shape}
        row |= {"metric": "MB counted", "device": "any", "file": "ahead-of-time"}
        for provider in ("floor", "ours"):
            yield row | {"provider": provider} | exact(line[f"{provider} MB"])


def main(mixes: list[str]) -> None:
    """The table of docs/kernels/token_embedding.md."""
    found = synthetic_lines()
    for mix in mixes:
        batch, rows = recorded_batch(Path(mix), TOKENS)
        found += lines(Path(mix).parent.name, batch, rows)
    print(table(found, tuple(found[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
