"""The cost model of packed attention: what must be computed and moved, and what tiles waste.

FLOPs are flash-attention's count for causal attention: two products of 2·L²·D, halved, per head,
so 2·D·Σ L²; the backward has five products for two: 2.5 times that. Bytes are one read of every
input and one write of every output. Both are what any implementation needs, not what ours does.
"""

from itertools import accumulate

from ldm._native.layout import SHORT
from ldm.kernels.packed_attention.configurations import Configuration, default
from ldm.kernels.packed_attention.work_list import build
from ldm.train.roofs import Roof

# forward tiles, query rows × keys, of peers at head dimension 64 and causal (their sources)
PEER_TILES = {"FA-2 128×128": (128, 128), "FA-3 192×128": (192, 128)}


def flops(lengths: list[int], heads: int, dim: int, mode: str) -> float:
    """`mode`: forward, backward or both."""
    forward = 2 * heads * dim * sum(n * n for n in lengths)
    return forward * {"forward": 1, "backward": 2.5, "both": 3.5}[mode]


def bytes_moved(
    lengths: list[int], heads: int, key_heads: int, dim: int, mode: str, size: int = 2
) -> float:
    """forward: q, k, v → o, log-sum-exp. backward: q, k, v, o, do, log-sum-exp → dq, dk, dv."""
    tokens = sum(lengths)
    q, kv, lse = tokens * heads * dim * size, tokens * key_heads * dim * size, tokens * heads * 4
    forward, backward = 2 * q + 2 * kv + lse, 4 * q + 4 * kv + lse
    return {"forward": forward, "backward": backward, "both": forward + backward}[mode]


def useful(lengths: list[int]) -> int:
    """Pairs of a token and one that it sees."""
    return sum(n * (n + 1) // 2 for n in lengths)


def tile_share(lengths: list[int], rows: int, keys: int) -> float:
    """Useful share of the pairs computed where every segment is tiled by itself."""
    area = 0
    for n in lengths:
        for start in range(0, n, rows):
            blocks = -(-min(start + rows, n) // keys)  # up to the diagonal of the last row
            area += rows * keys * blocks
    return useful(lengths) / area


def our_tile_share(lengths: list[int], short: Configuration, long: Configuration) -> float:
    """The same for the work list: `short` and `long` are the forward's configurations."""
    work = build([0, *accumulate(lengths)])
    area = 0
    for start, end, *_ in work.short_Q4.tolist():
        for row in range(start, end, short.BM):
            stop = min(row + short.BM, end)
            blocks = -(-(row - start) // short.BN) + -(-(stop - row) // short.BN)
            area += short.BM * short.BN * blocks
    for start, end, first, _ in work.long_Q4.tolist():
        for row in range(start, end, long.BM):
            stop = min(row + long.BM, end)
            blocks = -(-(row - first) // long.BN) + -(-(stop - row) // long.BN)
            area += long.BM * long.BN * blocks
    return useful(lengths) / area


def model(
    name: str, lengths: list[int], heads: int, key_heads: int, dim: int, mode: str, roof: Roof
) -> dict:
    """One line of the table: work, shares and the roof of one distribution on one GPU."""
    work = flops(lengths, heads, dim, mode)
    moved = bytes_moved(lengths, heads, key_heads, dim, mode)
    arch = "sm_80" if roof.name.startswith("A100") else "sm_90"
    tiles = [default(f"forward_{kind}", dim, arch, 16) for kind in ("short", "long")]
    floor = roof.seconds(work, moved)
    short = sum(n for n in lengths if n <= SHORT) / sum(lengths)
    line = {
        "lengths": name, "mode": mode, "head dim": dim, "segments": len(lengths),
        "GFLOP": work / 1e9, "MB": moved / 1e6, "floor us": floor * 1e6,
        "roof TFLOP/s": work / floor / 1e12, "short share": short,
        "ours": our_tile_share(lengths, *tiles),
    }  # fmt: skip
    return line | {peer: tile_share(lengths, *tile) for peer, tile in PEER_TILES.items()}
