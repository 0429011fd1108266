"""Rows of tokens with one layout, and how bags and numbers are laid out in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ldm.data.batch import FEATURES, PATCH, Tokens

BEFORE = 2  # rows of a bag before those of numbers: of the token's kind, of the identity


@dataclass
class Rows:
    """R rows of K tokens, all rows with one layout; what both token formats are made from."""

    kinds_M: np.ndarray  # uint8
    ids_WB: np.ndarray  # int32, bags side by side; -1 is no entry
    bag_widths_M: np.ndarray  # int64, columns of `ids_WB` a token has
    own_G: np.ndarray  # int64, the column of `ids_WB` with the own row of each feature
    features_WG: np.ndarray  # float32, features side by side
    feature_widths_M: np.ndarray  # int64
    patches_WPX: np.ndarray  # uint8

    def join(self, other: "Rows") -> "Rows":
        """Each row's tokens, then those of `other`."""
        return Rows(
            np.concatenate([self.kinds_M, other.kinds_M]),
            np.concatenate([self.ids_WB, other.ids_WB], 1),
            np.concatenate([self.bag_widths_M, other.bag_widths_M]),
            np.concatenate([self.own_G, other.own_G + self.ids_WB.shape[1]]),
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

    def own_counts(self) -> np.ndarray:
        """Own rows of numbers in the bag of every token, uint8 (R × K,): all or none."""
        first_M = np.cumsum(self.feature_widths_M) - self.feature_widths_M
        shown = np.zeros((len(self.ids_WB), len(self.kinds_M)), np.uint8)
        some = np.flatnonzero(self.feature_widths_M)
        named = self.ids_WB[:, self.own_G[first_M[some]]] >= 0
        shown[:, some] = named * self.feature_widths_M[some].astype(np.uint8)
        return shown.reshape(-1)

    def weights(self) -> np.ndarray:
        """Of the entries that `bags` gives, float32."""
        weights_WB = np.ones(self.ids_WB.shape, np.float32)
        weights_WB[:, self.own_G] = self.features_WG
        present = self.ids_WB >= 0
        return weights_WB.reshape(-1) if present.all() else weights_WB[present]

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
            bag_weights_B=self.weights(),
            bag_offsets_N1=offsets,
            features_NG=features.reshape(rows * k, FEATURES),
            patches_PX=self.patches_WPX.reshape(-1, self.patches_WPX.shape[-1]),
            patch_tokens_P=(np.arange(rows)[:, None] * k + patches).reshape(-1).astype(np.int32),
        )


class Bags:
    """The bags of rows with one layout: every token has a row of its own, the identity's, the own
    rows of its numbers, then `symbols_M` columns; the last token takes words besides.

    numbers_M: how many numbers each token has; own_G: their rows, which go where the identity goes.
    """

    def __init__(
        self,
        rows_M: list[int],
        numbers_M: list[int],
        symbols_M: list[int],
        identity: int,
        own_G: np.ndarray,
    ):
        self.widths_M = BEFORE + np.array(numbers_M, np.int64) + np.array(symbols_M, np.int64)
        starts = np.cumsum(self.widths_M) - self.widths_M
        firsts = starts + BEFORE
        self.own_G = _ranges(firsts, firsts + numbers_M)
        self.symbols = _ranges(firsts + numbers_M, starts + self.widths_M)
        self.template_B = np.full(self.widths_M.sum(), -1, np.int32)
        self.template_B[starts] = rows_M
        self.template_B[starts + 1] = identity
        self.template_B[self.own_G] = own_G
        self.named = np.concatenate([starts + 1, self.own_G])

    def fill(
        self, rows: int, symbols_WC: np.ndarray | None, identity=True, words: Sequence = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 (rows, B), width of each bag). identity: for all rows, or bool (rows,);
        words: int32 (rows, any), -1 is no entry."""
        ids_WB = np.repeat(self.template_B[None], rows, 0)
        if identity is not True:
            shown = np.reshape(identity, (-1, 1))
            ids_WB[:, self.named] = np.where(shown, self.template_B[self.named], -1)
        if symbols_WC is not None:
            ids_WB[:, self.symbols] = symbols_WC
        if not len(words):
            return ids_WB, self.widths_M
        widths_M = self.widths_M.copy()
        widths_M[-1] += sum(part.shape[1] for part in words)
        return np.concatenate([ids_WB, *words], 1), widths_M


def _ranges(starts, ends) -> np.ndarray:
    """Every range one after another, int64."""
    return np.concatenate([np.arange(s, e) for s, e in zip(starts, ends)], dtype=np.int64)


def repeated(array: np.ndarray, times: int) -> np.ndarray:
    """A 1-D array, that often end to end; np.tile takes four times as long for a short one."""
    return np.repeat(array[None], times, 0).reshape(-1)


def spread(numbers: int, tokens: int, each: int = FEATURES) -> np.ndarray:
    """How many of `numbers` each of `tokens` tokens carries: `each` until none are left."""
    return np.clip(numbers - each * np.arange(tokens), 0, each)
