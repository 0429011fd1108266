"""Rows of tokens with one layout, and how bags and numbers are laid out in them."""

from collections.abc import Sequence
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
            return repeated(self.bag_widths_M, len(self.ids_WB)), self.ids_WB.reshape(-1)
        starts = np.cumsum(self.bag_widths_M) - self.bag_widths_M
        counts = np.add.reduceat(present, starts, axis=1, dtype=np.int64)
        return counts.reshape(-1), self.ids_WB[present]

    def tokens(self) -> Tokens[np.ndarray]:
        rows, k = len(self.ids_WB), len(self.kinds_M)
        counts, ids = self.bags()
        offsets = np.zeros(rows * k + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        features, start = np.zeros((rows, k, FEATURES), np.float32), 0
        for token, width in enumerate(self.feature_widths_M.tolist()):
            if width:
                features[:, token, :width] = self.features_WG[:, start : start + width]
                start += width
        patches = np.flatnonzero(self.kinds_M == PATCH)
        return Tokens(
            kinds_N=repeated(self.kinds_M, rows),
            bag_ids_B=ids,
            bag_offsets_N1=offsets,
            features_NG=features.reshape(rows * k, FEATURES),
            patches_PX=self.patches_WPX.reshape(-1, self.patches_WPX.shape[-1]),
            patch_tokens_P=(np.arange(rows)[:, None] * k + patches).reshape(-1).astype(np.int32),
        )


class Bags:
    """The bags of rows with one layout: every token has a row of its own and the identity's, then
    `symbols_M` columns; the last token takes words besides."""

    def __init__(self, rows_M: list[int], symbols_M: list[int], identity: int):
        self.identity = identity
        self.widths_M = 2 + np.array(symbols_M, np.int64)
        starts = np.cumsum(self.widths_M) - self.widths_M
        self.template_B = np.full(self.widths_M.sum(), -1, np.int32)
        self.template_B[starts] = rows_M
        self.template_B[starts + 1] = identity
        self.identities = starts + 1
        places = [np.arange(s + 2, s + w) for s, w in zip(starts, self.widths_M)]
        self.symbols = np.concatenate(places)

    def fill(
        self, rows: int, symbols_WC: np.ndarray | None, identity=True, words: Sequence = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 (rows, B), width of each bag). identity: for all rows, or bool (rows,);
        words: int32 (rows, any), -1 is no entry."""
        ids_WB = np.repeat(self.template_B[None], rows, 0)
        if identity is not True:
            shown = np.where(identity, self.identity, -1)
            ids_WB[:, self.identities] = np.reshape(shown, (-1, 1))
        if symbols_WC is not None:
            ids_WB[:, self.symbols] = symbols_WC
        if not len(words):
            return ids_WB, self.widths_M
        widths_M = self.widths_M.copy()
        widths_M[-1] += sum(part.shape[1] for part in words)
        return np.concatenate([ids_WB, *words], 1), widths_M


def repeated(array: np.ndarray, times: int) -> np.ndarray:
    """A 1-D array, that often end to end; np.tile takes four times as long for a short one."""
    return np.repeat(array[None], times, 0).reshape(-1)


def spread(numbers: int, tokens: int, each: int = FEATURES) -> np.ndarray:
    """How many of `numbers` each of `tokens` tokens carries: `each` until none are left."""
    return np.clip(numbers - each * np.arange(tokens), 0, each)
