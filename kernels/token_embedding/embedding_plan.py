"""Which program embeds which tokens, and who sums which gradients: made once a batch on the CPU.

Tokens are cut into windows, so that the backward can write the gradient of one window to scratch
memory that a cache holds, and sum it from there before the next window overwrites it.

    tiles   TILE tokens of one kind each, −1 where there is none; kind after kind in every window
    pieces  of the bag entries sorted by row: at most PIECE entries of one row and one window

A row owns `slots`, fp32 sums in memory, as many as its longest run has pieces: the first piece of
every run is added to the first slot, window after window, the second to the second. Where that is
one slot the last piece writes the row, and where that piece is the only one there is no slot; other
rows' slots are added up at the end. Where rows hardly repeat within windows, runs are cut by rows
alone, and what they sum stays in memory until all windows are done.

Sizes of tiles and groups depend on the token count and the window alone.
`ldm._native.embedding_plan` is the fast builder; this one is its twin, and what runs where the
packer made none.
"""

from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from ldm._native.layout import PIECE, TILE, WINDOW, tiles_a_window


@dataclass(frozen=True)
class EmbeddingPlan:
    """Q tiles or pieces; the letters are those of CONTRIBUTING.md."""

    tiles_QM: torch.Tensor  # int32, tokens; Q = V × tiles_a_window
    groups_VI: torch.Tensor  # int32: first tile of kinds 0 … I + 1, their end, patches before
    tokens_B: torch.Tensor  # int32, the token of every entry in the order of the rows
    weights_B: torch.Tensor  # float32, its weight
    pieces_Q4: torch.Tensor  # int32: entries from, to, 2 × slot + whether added or −1, row or −1
    windows_V1: torch.Tensor  # int32, first piece of every window; of all of them, if two numbers
    rows_R2: torch.Tensor  # int32: first slot, slots (−1: a piece writes it)
    window: int
    slots: int

    def to(self, device, non_blocking: bool = True) -> "EmbeddingPlan":
        move = lambda x: x.to(device, non_blocking=non_blocking)
        return EmbeddingPlan(
            move(self.tiles_QM), move(self.groups_VI), move(self.tokens_B), move(self.weights_B),
            move(self.pieces_Q4), move(self.windows_V1), move(self.rows_R2), self.window,
            self.slots,
        )  # fmt: skip


def tiles(kinds_N: torch.Tensor, kinds: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tiles_QM, groups_VI) on the device of `kinds_N`, without waiting for it.

    Kinds above I + 1 count as 0, tokens without numbers.
    """
    tokens, groups = len(kinds_N), kinds + 2
    windows, capacity = -(-tokens // window), tiles_a_window(window, kinds)
    device = kinds_N.device
    every_N = torch.arange(tokens, dtype=torch.int64, device=device)
    kind_N = torch.where(kinds_N < groups, kinds_N, 0).long()
    key_N = every_N // window * groups + kind_N
    order_N = torch.argsort(key_N, stable=True)
    counts = torch.zeros(windows * groups, dtype=torch.int64, device=device).index_add_(
        0, key_N, torch.ones_like(key_N)
    )
    before = counts.cumsum(0) - counts
    counts_VI = counts.view(windows, groups)
    starts_VI = torch.zeros(windows, groups + 1, dtype=torch.int64, device=device)
    starts_VI[:, 1:] = ((counts_VI + TILE - 1) // TILE).cumsum(1)
    patches_V = counts_VI[:, -1:].cumsum(0) - counts_VI[:, -1:]
    key_N = key_N[order_N]
    first_N = (key_N // groups * capacity + starts_VI[:, :-1].flatten()[key_N]) * TILE
    tiles_QM = torch.full((windows * capacity * TILE,), -1, dtype=torch.int32, device=kind_N.device)
    tiles_QM[first_N + every_N - before[key_N]] = order_N.int()
    return tiles_QM.view(-1, TILE), torch.cat([starts_VI, patches_V], 1).int()


def build(
    kinds_N: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_weights_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    bag_order_B: torch.Tensor,
    rows: int,
    kinds: int,
    window: int = WINDOW,
) -> EmbeddingPlan:
    """The plan of a batch on the CPU. bag_order: the stable order that sorts bag_ids; entries past
    the last offset belong to no token and are left out. window: tokens, a multiple of TILE."""
    tokens, entries = len(kinds_N), int(bag_offsets_N1[-1])
    window = max(min(window, tokens), 1)
    order = bag_order_B[bag_order_B < entries].long()
    token_B = torch.arange(tokens).repeat_interleave(bag_offsets_N1.diff().long())[order]
    row_B, span = bag_ids_B[order].long(), window
    starts = _runs(row_B, token_B // span)
    if len(starts) > tokens:  # sums in memory would cost more than the gradient itself
        span = max(tokens, 1)
        starts = _runs(row_B, token_B // span)
    pieces_Q4, rows_R2, slots = _pieces(starts, row_B, rows)
    of_Q = token_B[pieces_Q4[:, 0]] // span
    by_window = torch.argsort(of_Q, stable=True)
    windows_V1 = torch.searchsorted(of_Q[by_window], torch.arange(-(-tokens // span) + 1))
    tokens_B = torch.zeros(len(bag_ids_B), dtype=torch.int32)
    tokens_B[:entries] = token_B.int()
    weights_B = torch.zeros(len(bag_ids_B))
    weights_B[:entries] = bag_weights_B[order]
    arrays = (tokens_B, weights_B, pieces_Q4[by_window].int(), windows_V1.int(), rows_R2.int())
    return EmbeddingPlan(*tiles(kinds_N, kinds, window), *arrays, window, slots)


def _runs(row_B: torch.Tensor, window_B: torch.Tensor) -> torch.Tensor:
    """Where a run of one row and one window begins."""
    changes = (row_B.diff() != 0) | (window_B.diff() != 0)
    return torch.cat([torch.zeros(min(len(row_B), 1)).long(), changes.nonzero().squeeze(1) + 1])


def _pieces(starts: torch.Tensor, row_B: torch.Tensor, rows: int):
    """(pieces in the order of rows and windows, rows_R2, number of slots)."""
    runs = list(pairwise([*starts.tolist(), len(row_B)]))
    row_of_run = row_B[starts].tolist()
    pieces, rows_R2, slots = [], torch.zeros(rows, 2, dtype=torch.int64), 0
    for row, of_row in groupby(zip(row_of_run, runs), key=lambda pair: pair[0]):
        spans, written = [span for _, span in of_row], 0
        most = max(-(-(end - start) // PIECE) for start, end in spans)
        for start, end in spans:
            for i, at in enumerate(range(start, end, PIECE)):
                slot = 2 * (slots + i) + (i < written)
                pieces.append((at, min(at + PIECE, end), slot, -1))
            written = max(written, i + 1)
        rows_R2[row] = torch.tensor([slots, most if most > 1 else -1])
        if most == 1:
            alone = len(spans) == 1
            pieces[-1] = (*pieces[-1][:2], -1 if alone else pieces[-1][2], row)
            slots -= alone
        slots += most
    return torch.tensor(pieces, dtype=torch.int64).view(-1, 4), rows_R2, slots
