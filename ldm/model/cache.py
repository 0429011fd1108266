"""The key-value cache for acting: many rows (streams), each at its own length.

Shape suffixes: R rows of this step, N new tokens of all rows, T longest row, K most new tokens of a
row, H query heads, G key heads, D head dimension.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


class KVCache:
    """Keys and values of past tokens: [layers, rows, capacity, G, D], and lengths_R (int64)."""

    def __init__(self, sizes: tuple[int, int, int, int, int], dtype: torch.dtype, device):
        self.keys = torch.zeros(sizes, dtype=dtype, device=device)
        self.values = torch.zeros(sizes, dtype=dtype, device=device)
        self.lengths_R = torch.zeros(sizes[1], dtype=torch.int64)
        self.capacity = sizes[2]

    def restart(self, rows: torch.Tensor) -> None:
        """Forgets all tokens of `rows` (int64 indices or a bool mask); positions begin at 0."""
        self.lengths_R[rows] = 0


@dataclass
class StepLayout:
    """Where the new tokens of one `extend` go; computed once for all layers."""

    rows_R: torch.Tensor  # cache rows
    all_rows: bool  # they are every row of the cache, in order
    places_N: torch.Tensor  # of each token, among rows × capacity
    positions_N: torch.Tensor
    slots_N: torch.Tensor  # its place in the padded R × K
    last_R: torch.Tensor  # the last token of each row
    most: int  # K
    longest: int  # T
    mask_R1KT: torch.Tensor  # what each padded query may see


def step_layout(
    counts_R: torch.Tensor, cache: KVCache, rows_R: torch.Tensor | None = None
) -> StepLayout:
    """Raises ValueError where a row would grow over the cache's capacity."""
    all_rows = rows_R is None
    rows_R = torch.arange(len(cache.lengths_R)) if all_rows else rows_R
    before_R = cache.lengths_R[rows_R]
    most, longest = int(counts_R.max()), int((before_R + counts_R).max())
    if longest > cache.capacity:
        raise ValueError(
            f"a row would hold {longest} tokens, the cache has room for {cache.capacity}: "
            "restart the row and extend it by the tokens it should keep"
        )
    ends_R = counts_R.cumsum(0)
    of_N = torch.arange(len(rows_R)).repeat_interleave(counts_R)
    step_N = torch.arange(int(ends_R[-1])) - (ends_R - counts_R)[of_N]
    seen_RK = before_R[:, None] + torch.arange(most)
    mask_RKT = torch.arange(longest) <= seen_RK[..., None]
    positions_N, device = before_R[of_N] + step_N, cache.keys.device
    return StepLayout(
        rows_R=rows_R,
        all_rows=all_rows,
        places_N=(rows_R[of_N] * cache.capacity + positions_N).to(device),
        positions_N=positions_N.to(device),
        slots_N=(of_N * most + step_N).to(device),
        last_R=(ends_R - 1).to(device),
        most=most,
        longest=longest,
        mask_R1KT=mask_RKT[:, None].to(device),
    )


def cached_attention(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    cache: KVCache,
    layer: int,
    layout: StepLayout,
) -> torch.Tensor:
    """Stores the new keys and values, then attends to all of each row so far; shape N H D."""
    keys, values = cache.keys[layer], cache.values[layer]  # [rows, capacity, G, D]
    keys.flatten(0, 1).index_copy_(0, layout.places_N, k_NGD)
    values.flatten(0, 1).index_copy_(0, layout.places_N, v_NGD)
    if not layout.all_rows:
        keys, values = keys[layout.rows_R], values[layout.rows_R]
    rows, groups = len(layout.rows_R), k_NGD.shape[1]
    heads, dim = q_NHD.shape[1:]
    padded = q_NHD.new_zeros(rows * layout.most, heads, dim)
    padded[layout.slots_N] = q_NHD
    out = F.scaled_dot_product_attention(
        padded.view(rows, layout.most, heads, dim).transpose(1, 2),
        keys[:, : layout.longest].transpose(1, 2),
        values[:, : layout.longest].transpose(1, 2),
        attn_mask=layout.mask_R1KT,
        enable_gqa=heads != groups,
    )
    return out.transpose(1, 2).reshape(rows * layout.most, heads, dim)[layout.slots_N]
