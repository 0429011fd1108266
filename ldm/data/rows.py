"""Rows of tokens with one layout, and how bags and numbers are laid out in them."""

from dataclasses import dataclass

import numpy as np

from ldm.data.batch import FEATURES, PATCH, Tokens


@dataclass
class Rows:
    """R rows of K tokens, all rows with one layout; what both token formats are made from."""

    kinds_M: np.ndarray  # uint8
    ids_WB: np.ndarray  # int32, bags side by side; -1 is no entry
    bag_widths_M: np.ndarray  # int64, columns of `ids_WB` a token has
    features_WG: np.ndarray  # float32, features side by side
    feature_widths_M: np.ndarray  # int64
    patches_WPX: np.ndarray  # uint8

    def join(self, other: "Rows") -> "Rows":
        """Each row's tokens, then those of `other`."""
        return Rows(
            np.concatenate([self.kinds_M, other.kinds_M]),
            np.concatenate([self.ids_WB, other.ids_WB], 1),
            np.concatenate([self.bag_widths_M, other.bag_widths_M]),
            np.concatenate([self.features_WG, other.features_WG], 1),
            np.concatenate([self.feature_widths_M, other.feature_widths_M]),
            np.concatenate([self.patches_WPX, other.patches_WPX], 1),
        )

    def bags(self) -> tuple[np.ndarray, np.ndarray]:
        """(entries of every token int64 (R × K,), their ids int32), row-major."""
        present = self.ids_WB >= 0
        if present.all():
            return np.tile(self.bag_widths_M, len(self.ids_WB)), self.ids_WB.reshape(-1)
        starts = np.cumsum(self.bag_widths_M) - self.bag_widths_M
        counts = np.add.reduceat(present, starts, axis=1, dtype=np.int64)
        return counts.reshape(-1), self.ids_WB[present]

    def tokens(self) -> Tokens[np.ndarray]:
        rows, k = len(self.ids_WB), len(self.kinds_M)
        counts, ids = self.bags()
        offsets = np.zeros(rows * k + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        features = np.zeros((rows, k, FEATURES), np.float32)
        start = 0
        for token in np.flatnonzero(self.feature_widths_M):
            width = self.feature_widths_M[token]
            features[:, token, :width] = self.features_WG[:, start : start + width]
            start += width
        patches = np.flatnonzero(self.kinds_M == PATCH)
        return Tokens(
            kinds_N=np.tile(self.kinds_M, rows),
            bag_ids_B=ids,
            bag_offsets_N1=offsets,
            features_NG=features.reshape(rows * k, FEATURES),
            patches_PX=self.patches_WPX.reshape(-1, self.patches_WPX.shape[-1]),
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
