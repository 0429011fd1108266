"""Segments → one PackedBatch, in buffers that can be pinned; csrc/packer.pyx does the work."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ldm._native import packer
from ldm.data.batch import FEATURES, Labels, PackedBatch, Tokens
from ldm.data.embedding_plan import embedding_plan
from ldm.data.encoded import Encoded
from ldm.data.work_list import attention_tiles

Empty = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class Bins:
    """What a batch holds: segment `segment_S[i]` of block `source_S[i]`, bin after bin.

    int32 arrays; bin b ends at `ends[b]`.
    """

    source_S: np.ndarray
    segment_S: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Capacities:
    """The most that any batch of a run holds, so that shapes never change."""

    bag_entries: int
    patches: int
    labels: int
    reads: int  # tokens that labels read
    longest: int  # tokens of a segment

    def validate(self, bags: int, patches: int, labels: int) -> None:
        """Raises ValueError where a batch needs more."""
        needs = {"bag_entries": bags, "patches": patches, "labels": labels}
        for name, need in needs.items():
            if need > getattr(self, name):
                raise ValueError(
                    f"a batch has {need} {name}, the arrays were made for {getattr(self, name)}: "
                    "they hold for the steps that the loader was asked for, no further"
                )


def pack(
    blocks: list[Encoded],
    bins: Bins,
    bin_tokens: int,
    capacity: int,
    rows: int,
    empty: Empty = np.empty,
    native=packer,
    fixed: Capacities | None = None,
    multiple_of: int = 1,
) -> PackedBatch:
    """The batch of these bins, as numpy arrays.

    capacity: segments that cu_seqlens has room for, padding segments included; rows: of the table.
    The arrays over N and S have fixed sizes; those over bag entries, patches and labels are as
    long as the batch needs, or `fixed`; labels and the tokens they read are filled up to a multiple
    of `multiple_of`, for few different shapes. empty(shape, dtype): their memory, e.g. pinned.
    native: the compiled packer, or its Python twin. Raises ValueError where a bin or a capacity
    overflows.
    """
    sources = native.Sources(blocks)
    found = bags, patches, labels = sources.measure(bins.source_S, bins.segment_S)
    if fixed:
        fixed.validate(*found)
        bags, patches, labels = fixed.bag_entries, fixed.patches, fixed.labels
    labels = _up(labels, multiple_of)
    n = len(bins.ends) * bin_tokens
    patch_bytes = blocks[0].patches_PX.shape[1] if blocks else 0
    shapes: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "kinds_N": (np.uint8, (n,)),
        "bag_ids_B": (np.int32, (bags,)),
        "bag_weights_B": (np.float32, (bags,)),
        "bag_offsets_N1": (np.int32, (n + 1,)),
        "features_NG": (np.float32, (n, FEATURES)),
        "patches_PX": (np.uint8, (patches, patch_bytes)),
        "patch_tokens_P": (np.int32, (patches,)),
        "tokens_L": (np.int32, (labels,)),
        "slots_L": (np.int32, (labels,)),
        "classes_L": (np.int32, (labels,)),
        "values_L": (np.float32, (labels,)),
        "smooth_L": (np.uint8, (labels,)),
        "environments_L": (np.int32, (labels,)),
        "owners_L": (np.int32, (labels,)),
        "cu_seqlens_S1": (np.int32, (capacity + 1,)),
        "positions_N": (np.int32, (n,)),
        "bag_order_B": (np.int32, (bags,)),
    }
    arrays = {name: empty(shape, np.dtype(dtype)) for name, (dtype, shape) in shapes.items()}
    longest, used, steps = sources.scatter(
        bins.source_S, bins.segment_S, bins.ends, bin_tokens, arrays
    )
    _fill(arrays, found[0], found[1], found[2], n)
    native.sort_order(arrays["bag_ids_B"][: found[0]], rows, arrays["bag_order_B"][: found[0]])
    reads = fixed.reads if fixed else multiple_of
    arrays |= _reads(arrays["tokens_L"], arrays.pop("owners_L"), reads, empty)
    short_tiles_Q4, long_tiles_Q4 = attention_tiles(arrays["cu_seqlens_S1"], empty)
    embedding = embedding_plan(
        arrays["kinds_N"], arrays["bag_ids_B"], arrays["bag_weights_B"], arrays["bag_offsets_N1"],
        arrays["bag_order_B"], rows, fixed is not None, empty,
    )  # fmt: skip
    return PackedBatch(
        tokens=Tokens(**{name: arrays.pop(name) for name in Tokens.__dataclass_fields__}),
        labels=Labels(**{name: arrays.pop(name) for name in Labels.__dataclass_fields__}),
        **arrays,
        short_tiles_Q4=short_tiles_Q4,
        long_tiles_Q4=long_tiles_Q4,
        embedding=embedding,
        max_seqlen=fixed.longest if fixed else longest,
        label_count=found[2],
        used_tokens=used,
        transitions=steps,
    )


def _fill(arrays: dict, bags: int, patches: int, labels: int, tokens: int) -> None:
    """What stands in the rows that the batch does not need."""
    arrays["bag_ids_B"][bags:] = arrays["bag_weights_B"][bags:] = 0
    arrays["bag_order_B"][bags:] = np.arange(bags, len(arrays["bag_order_B"]))
    arrays["patches_PX"][patches:] = 0
    arrays["patch_tokens_P"][patches:] = tokens
    for name in ("slots_L", "values_L", "smooth_L", "environments_L", "owners_L"):
        arrays[name][labels:] = 0
    arrays["tokens_L"][labels:] = arrays["tokens_L"][labels - 1] if labels else 0
    arrays["classes_L"][labels:] = 1


def _reads(tokens_L: np.ndarray, owners_L: np.ndarray, multiple_of: int, empty: Empty) -> dict:
    """reads_U, owners_U and rows_L of Labels. A label that fills a capacity reads what the last one
    reads."""
    rows_L = empty(tokens_L.shape, np.dtype(np.int32))
    changes = np.diff(tokens_L, prepend=-1) != 0
    np.cumsum(changes, out=rows_L)
    rows_L -= 1
    found = {"reads_U": tokens_L[changes], "owners_U": owners_L[changes]}
    arrays = {"rows_L": rows_L}
    for name, values in found.items():
        arrays[name] = empty((_up(len(values), multiple_of),), np.dtype(np.int32))
        arrays[name][: len(values)], arrays[name][len(values) :] = values, 0
    return arrays


def _up(count: int, multiple_of: int) -> int:
    return -(-count // multiple_of) * multiple_of
