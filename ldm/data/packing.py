"""Segments → one PackedBatch, in buffers that can be pinned; csrc/packer.pyx does the work."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ldm._native import packer
from ldm.data.batch import FEATURES, Labels, PackedBatch, Tokens
from ldm.data.encoded import Encoded
from ldm.data.tiles import attention_tiles

Empty = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class Bins:
    """What a batch holds: segment `segment_S[i]` of block `source_S[i]`, bin after bin.

    int32 arrays; bin b ends at `ends[b]`.
    """

    source_S: np.ndarray
    segment_S: np.ndarray
    ends: np.ndarray


def pack(
    blocks: list[Encoded],
    bins: Bins,
    bin_tokens: int,
    capacity: int,
    rows: int,
    empty: Empty = np.empty,
    native=packer,
) -> PackedBatch:
    """The batch of these bins, as numpy arrays.

    capacity: segments that cu_seqlens has room for, padding segments included; rows: of the table.
    The arrays over N and S have fixed sizes; those over bag entries, patches and labels are as
    long as the batch needs. empty(shape, dtype): where they come from, e.g. pinned memory.
    native: the compiled packer, or its Python twin. Raises ValueError where a bin overflows.
    """
    sources = native.Sources(blocks)
    bags, patches, labels = sources.measure(bins.source_S, bins.segment_S)
    n = len(bins.ends) * bin_tokens
    patch_bytes = blocks[0].patches_PX.shape[1] if blocks else 0
    shapes = {
        "kinds_N": (np.uint8, n),
        "bag_ids_B": (np.int32, bags),
        "bag_offsets_N1": (np.int32, n + 1),
        "features_NF": (np.float32, n, FEATURES),
        "patches_PX": (np.uint8, patches, patch_bytes),
        "patch_tokens_P": (np.int32, patches),
        "tokens_L": (np.int32, labels),
        "slots_L": (np.int32, labels),
        "classes_L": (np.int32, labels),
        "values_L": (np.float32, labels),
        "smooth_L": (np.uint8, labels),
        "environments_L": (np.int32, labels),
        "cu_seqlens_S1": (np.int32, capacity + 1),
        "positions_N": (np.int32, n),
        "bag_order_B": (np.int32, bags),
    }
    arrays = {name: empty(shape, np.dtype(dtype)) for name, (dtype, *shape) in shapes.items()}
    longest, used, steps = sources.scatter(
        bins.source_S, bins.segment_S, bins.ends, bin_tokens, arrays
    )
    native.sort_order(arrays["bag_ids_B"], rows, arrays["bag_order_B"])
    short_tiles_C4, long_tiles_C4 = attention_tiles(arrays["cu_seqlens_S1"], empty)
    return PackedBatch(
        tokens=Tokens(**{name: arrays.pop(name) for name in Tokens.__dataclass_fields__}),
        labels=Labels(**{name: arrays.pop(name) for name in Labels.__dataclass_fields__}),
        **arrays,
        short_tiles_C4=short_tiles_C4,
        long_tiles_C4=long_tiles_C4,
        max_seqlen=longest,
        used_tokens=used,
        transitions=steps,
    )
