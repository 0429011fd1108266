"""Packed batches made up from a seed, with every awkward case the loader may hand over."""

import numpy as np
import torch

from ldm.data.batch import (
    ACTION,
    FEATURES,
    OBSERVATION,
    PAD,
    PATCH,
    PATCH_CHANNELS,
    EmbeddingPlan,
    Labels,
    PackedBatch,
    Tokens,
)
from ldm.data.embedding_plan import embedding_plan
from ldm.data.work_list import attention_tiles

PATCH_BYTES = 8 * 8 * PATCH_CHANNELS


def packed_batch(
    lengths,
    seed: int = 0,
    rows: int = 512,
    bag: int = 4,
    components: int = 1,
    classes: int = 7,
    patches: int = 0,
    empty_segments: int = 2,
    pad: int = 0,
    owners: int = 1,
) -> PackedBatch:
    """Segments of `lengths` tokens, observation and action in turn, then `pad` PAD tokens.

    Every observation is read by `components` labels, alternately smooth and not. The first
    `patches` action tokens become PATCH tokens. Bags hold 0 to 2 × bag − 1 ids; half of them weigh
    1, the others any number. What is read is of any of `owners` owners.
    """
    random = np.random.default_rng(seed)
    lengths = [*lengths, pad] if pad else list(lengths)
    positions = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    kinds = np.where(positions % 2 == 0, OBSERVATION, ACTION).astype(np.uint8)
    kinds[len(kinds) - pad :] = PAD
    patch_tokens = np.flatnonzero(kinds == ACTION)[:patches].astype(np.int32)
    kinds[patch_tokens] = PATCH
    tokens = _tokens(random, kinds, patch_tokens, rows, bag)
    starts = np.concatenate([[0], np.cumsum(lengths), [len(kinds)] * empty_segments])
    short_tiles_Q4, long_tiles_Q4 = attention_tiles(starts.astype(np.int32))
    order = np.argsort(tokens.bag_ids_B, kind="stable").astype(np.int32)
    batch = PackedBatch(
        tokens=tokens,
        labels=_labels(random, np.flatnonzero(kinds == OBSERVATION), components, classes, owners),
        cu_seqlens_S1=starts.astype(np.int32),
        positions_N=positions,
        bag_order_B=order,
        short_tiles_Q4=short_tiles_Q4,
        long_tiles_Q4=long_tiles_Q4,
        embedding=plan_of(tokens, order, rows),
        max_seqlen=max(lengths),
        label_count=components * int((kinds == OBSERVATION).sum()),
        used_tokens=len(kinds) - pad,
        transitions=int((kinds == OBSERVATION).sum()),
    )
    return batch.to("cpu")


def plan_of(tokens: Tokens, order: np.ndarray, rows: int) -> EmbeddingPlan:
    """The plan of tokens as numpy arrays."""
    bag = tokens.bag_ids_B, tokens.bag_weights_B, tokens.bag_offsets_N1
    return embedding_plan(tokens.kinds_N, *bag, order, rows)


def _tokens(random, kinds, patch_tokens, rows, bag) -> Tokens:
    counts = random.integers(0, 2 * bag, len(kinds)) if bag else np.zeros(len(kinds), int)
    counts[kinds == PAD] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    weights = random.standard_normal(offsets[-1])
    features = random.standard_normal((len(kinds), FEATURES)).astype(np.float32)
    features[(kinds != OBSERVATION) & (kinds != ACTION)] = 0
    features[:, 8:] = 0
    return Tokens(
        kinds_N=kinds,
        bag_ids_B=random.integers(0, rows, offsets[-1]).astype(np.int32),
        bag_weights_B=np.where(random.random(offsets[-1]) < 0.5, 1, weights).astype(np.float32),
        bag_offsets_N1=offsets,
        features_NG=features,
        patches_PX=random.integers(0, 256, (len(patch_tokens), PATCH_BYTES)).astype(np.uint8),
        patch_tokens_P=patch_tokens,
    )


def _labels(random, read, components, classes, owners) -> Labels:
    tokens = np.repeat(read, components).astype(np.int32)
    slots = np.tile(np.arange(components), len(read)).astype(np.int32)
    smooth = slots % 2
    counts = (classes + slots).astype(np.int32)
    values = random.uniform(0, counts - 1)
    return Labels(
        tokens_L=tokens,
        reads_U=read.astype(np.int32),
        owners_U=(np.arange(len(read)) % owners).astype(np.int32),
        rows_L=np.repeat(np.arange(len(read)), components).astype(np.int32),
        slots_L=slots,
        classes_L=counts,
        values_L=np.where(smooth, values, values.round()).astype(np.float32),
        smooth_L=smooth.astype(np.uint8),
        environments_L=np.zeros(len(tokens), np.int32),
    )


def segment_lengths(tokens: int, context: int, bin_tokens: int, seed: int = 0) -> list[int]:
    """Lengths that fill bins exactly: half of the segments full, half of any even length."""
    random = np.random.default_rng(seed)
    lengths = []
    for _ in range(tokens // bin_tokens):
        left = bin_tokens
        while left:
            full = random.random() < 0.5
            length = context if full else 2 * int(random.integers(1, context // 2 + 1))
            lengths.append(min(length, left))
            left -= lengths[-1]
    return lengths


def slice_tokens(tokens: Tokens, index) -> Tokens:
    """The tokens at `index` (int64), in that order, as if they were alone."""
    offsets = tokens.bag_offsets_N1.long()
    counts = (offsets[1:] - offsets[:-1])[index]
    entries = [torch.arange(offsets[i], offsets[i + 1]) for i in index.tolist()]
    entries = torch.cat(entries)
    place = {int(t): n for n, t in enumerate(tokens.patch_tokens_P)}
    found = [(n, place[t]) for n, t in enumerate(index.tolist()) if t in place]
    return Tokens(
        kinds_N=tokens.kinds_N[index],
        bag_ids_B=tokens.bag_ids_B[entries],
        bag_weights_B=tokens.bag_weights_B[entries],
        bag_offsets_N1=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).int(),
        features_NG=tokens.features_NG[index],
        patches_PX=tokens.patches_PX[[p for _, p in found]],
        patch_tokens_P=torch.tensor([n for n, _ in found], dtype=torch.int32),
    )
