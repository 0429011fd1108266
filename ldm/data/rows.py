"""Rows of tokens with one layout, and how bags and numbers are laid out in them."""

from dataclasses import dataclass

import numpy as np

from ldm.data.batch import FEATURES, PATCH, Tokens


@dataclass
class Rows:
    """R rows of K tokens, all rows with one layout; what both token formats are made from."""

    kinds_K: np.ndarray  # uint8
    ids_RW: np.ndarray  # int32, bags side by side; -1 is no entry
    bag_widths_K: np.ndarray  # int64, columns of `ids_RW` a token has
    features_RG: np.ndarray  # float32, features side by side
    feature_widths_K: np.ndarray  # int64
    patches_RPX: np.ndarray  # uint8

    def join(self, other: "Rows") -> "Rows":
        """Each row's tokens, then those of `other`."""
        return Rows(
            np.concatenate([self.kinds_K, other.kinds_K]),
            np.concatenate([self.ids_RW, other.ids_RW], 1),
            np.concatenate([self.bag_widths_K, other.bag_widths_K]),
            np.concatenate([self.features_RG, other.features_RG], 1),
            np.concatenate([self.feature_widths_K, other.feature_widths_K]),
            np.concatenate([self.patches_RPX, other.patches_RPX], 1),
        )

    def bags(self) -> tuple[np.ndarray, np.ndarray]:
        """(entries of every token int64 (R × K,), their ids int32), row-major."""
        present = self.ids_RW >= 0
        if present.all():
            return np.tile(self.bag_widths_K, len(self.ids_RW)), self.ids_RW.reshape(-1)
        starts = np.cumsum(self.bag_widths_K) - self.bag_widths_K
        counts = np.add.reduceat(present, starts, axis=1, dtype=np.int64)
        return counts.reshape(-1), self.ids_RW[present]

    def tokens(self) -> Tokens:
        rows, k = len(self.ids_RW), len(self.kinds_K)
        counts, ids = self.bags()
        offsets = np.zeros(rows * k + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        features = np.zeros((rows, k, FEATURES), np.float32)
        start = 0
        for token in np.flatnonzero(self.feature_widths_K):
            width = self.feature_widths_K[token]
            features[:, token, :width] = self.features_RG[:, start : start + width]
            start += width
        patches = np.flatnonzero(self.kinds_K == PATCH)
        return Tokens(
            kinds_N=np.tile(self.kinds_K, rows),
            bag_ids_B=ids,
            bag_offsets_N1=offsets,
            features_NF=features.reshape(rows * k, FEATURES),
            patches_PX=self.patches_RPX.reshape(-1, self.patches_RPX.shape[-1]),
            patch_tokens_P=(np.arange(rows)[:, None] * k + patches).reshape(-1).astype(np.int32),
        )


def spread(numbers: int, tokens: int) -> np.ndarray:
    """How many of `numbers` each of `tokens` tokens carries: FEATURES until none are left."""
    return np.clip(numbers - FEATURES * np.arange(tokens), 0, FEATURES)


def side_by_side(bags: list[list], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Bags of scalars, columns (R,) and blocks (R, w) → ids int32 (R, W) and the width of each."""
    blocks, widths = [], []
    for bag in bags:
        parts = [part if np.ndim(part) == 2 else np.reshape(part, (-1, 1)) for part in bag]
        widths.append(sum(part.shape[1] for part in parts))
        blocks += [np.broadcast_to(part, (rows, part.shape[1])) for part in parts]
    return np.concatenate(blocks, 1, dtype=np.int32, casting="unsafe"), np.array(widths, np.int64)
