"""The plain Python twin of csrc/best_fit.pyx and csrc/packer.pyx: same arguments, same results;
tests and the benchmark hold one against the other."""

from bisect import bisect_right, insort
from collections import deque

import numpy as np

from ldm.data.batch import PATCH
from ldm.data.rows import BEFORE


def best_fit(
    lengths: np.ndarray,
    bin_tokens: int,
    lookahead: int,
    order: np.ndarray,
    bin_ends: np.ndarray,
) -> int:
    """See `ldm._native.best_fit.best_fit`; here the waiting lengths are a list, bisected."""
    lengths = lengths.tolist()
    queues: list[deque[int]] = [
        deque() for _ in range(bin_tokens + 1)
    ]  # waiting segments of each length, by age
    present: list[int] = []  # lengths that wait, ascending
    taken = bytearray(len(lengths))
    placed: list[int] = []
    ends: list[int] = []
    read = oldest = 0
    while True:
        for i in range(read, min(len(lengths), len(placed) + lookahead)):
            if not queues[lengths[i]]:
                insort(present, lengths[i])
            queues[lengths[i]].append(i)
            read += 1
        if read - len(placed) < lookahead or read == len(placed):
            break
        remaining = bin_tokens
        while present and remaining >= present[0]:
            while taken[oldest]:
                oldest += 1
            if lengths[oldest] <= remaining:
                length = lengths[oldest]
            else:
                length = present[bisect_right(present, remaining) - 1]
            i = queues[length].popleft()
            if not queues[length]:
                del present[bisect_right(present, length) - 1]
            taken[i] = 1
            placed.append(i)
            remaining -= length
        ends.append(len(placed))
    order[: len(placed)] = placed
    order[len(placed) :] = [i for i in range(len(lengths)) if not taken[i]]
    bin_ends[: len(ends)] = ends
    return len(ends)


def sort_order(ids: np.ndarray, rows: int, order: np.ndarray) -> None:
    """See `ldm._native.packer.sort_order`."""
    order[:] = np.argsort(ids, kind="stable")


class Sources:
    """See `ldm._native.packer.Sources`."""

    def __init__(self, blocks):
        self.blocks = list(blocks)

    def measure(self, source_S, segment_S) -> tuple[int, int, int]:
        parts = [self._part(*pair) for pair in zip(source_S, segment_S)]
        bags, patches, labels = (
            sum(len(part[name]) for part in parts) for name in ("bags", "patches", "values")
        )
        return bags, patches, labels

    def scatter(self, source_S, segment_S, bin_ends, bin_tokens, arrays) -> tuple[int, int, int]:
        arrays["features_NG"][:] = 0
        starts, longest, used, steps = [], 0, 0, 0
        token = bag = label = patch = first = 0
        for b, end in enumerate(bin_ends):
            for source, segment in zip(source_S[first:end], segment_S[first:end]):
                part = self._part(source, segment)
                n = len(part["kinds"])
                starts.append(token)
                self._copy(part, arrays, token, bag, label, patch)
                token, used, steps = token + n, used + n, steps + int(part["steps"])
                bag, label = bag + len(part["bags"]), label + len(part["values"])
                patch, longest = patch + len(part["patches"]), max(longest, n)
            first = end
            if token > (b + 1) * bin_tokens:
                raise ValueError(f"bin {b} cannot hold its segments: {bin_tokens} tokens")
            while rest := (b + 1) * bin_tokens - token:
                rest = min(rest, longest or rest)  # no longer than a real segment
                starts.append(token)
                arrays["kinds_N"][token : token + rest] = 0
                arrays["positions_N"][token : token + rest] = np.arange(rest)
                arrays["bag_offsets_N1"][token + 1 : token + rest + 1] = bag
                token, longest = token + rest, max(longest, rest)
        arrays["bag_offsets_N1"][0] = 0
        arrays["cu_seqlens_S1"][:] = token
        arrays["cu_seqlens_S1"][: len(starts)] = starts
        return longest, used, steps

    def _part(self, source: int, segment: int) -> dict:
        block = self.blocks[source]
        cut = {k: slice(*at[segment : segment + 2].tolist()) for k, at in block.offsets.items()}
        return {
            "kinds": block.kinds_N[cut["N"]],
            "bag_counts": block.bag_counts_N[cut["N"]],
            "feature_counts": block.feature_counts_N[cut["N"]],
            "own_counts": block.own_counts_N[cut["N"]],
            "label_counts": block.label_counts_N[cut["N"]],
            "bags": block.bag_ids_B[cut["B"]],
            "features": block.features_G[cut["G"]],
            "patches": block.patches_PX[cut["P"]],
            "slots": block.slots_L[cut["L"]],
            "classes": block.classes_L[cut["L"]],
            "values": block.values_L[cut["L"]],
            "smooth": block.smooth_L[cut["L"]],
            "environment": block.environment_S[segment],
            "named": block.named_S[segment],
            "steps": block.steps_S[segment],
        }

    def _copy(self, part: dict, arrays: dict, token: int, bag: int, label: int, patch: int) -> None:
        n, tokens = len(part["kinds"]), np.arange(len(part["kinds"]))
        arrays["kinds_N"][token : token + n] = part["kinds"]
        arrays["positions_N"][token : token + n] = tokens
        arrays["bag_ids_B"][bag : bag + len(part["bags"])] = part["bags"]
        arrays["bag_offsets_N1"][token + 1 : token + n + 1] = bag + np.cumsum(part["bag_counts"])
        arrays["bag_weights_B"][bag : bag + len(part["bags"])] = _weights(part)
        rows = np.repeat(tokens, part["feature_counts"])
        first = np.cumsum(part["feature_counts"], dtype=np.int64) - part["feature_counts"]
        columns = np.arange(len(rows)) - first[rows]
        arrays["features_NG"][token + rows, columns] = part["features"]
        patches = slice(patch, patch + len(part["patches"]))
        arrays["patches_PX"][patches] = part["patches"]
        arrays["patch_tokens_P"][patches] = token + np.flatnonzero(part["kinds"] == PATCH)
        labels = slice(label, label + len(part["values"]))
        arrays["tokens_L"][labels] = token + np.repeat(tokens, part["label_counts"])
        for name in ("slots", "classes", "values", "smooth"):
            arrays[f"{name}_L"][labels] = part[name]
        arrays["environments_L"][labels] = part["environment"]
        arrays["owners_L"][labels] = (part["environment"] + 1) * part["named"]


def _weights(part: dict) -> np.ndarray:
    """Of every bag entry: 1, or the number whose own row it is."""
    weights = np.ones(len(part["bags"]), np.float32)
    counts = part["bag_counts"], part["feature_counts"], part["own_counts"]
    entry = number = 0
    for entries, numbers, own in zip(*(c.tolist() for c in counts)):
        weights[entry + BEFORE :][:own] = part["features"][number:][:own]
        entry, number = entry + entries, number + numbers
    return weights
