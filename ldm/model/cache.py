"""The key-value cache for acting: many rows (streams), each at its own length."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


class KVCache:
    """Keys and values of past tokens: [layers, rows, capacity, G, D], and lengths_W (int64)."""

    def __init__(self, sizes: tuple[int, int, int, int, int], dtype: torch.dtype, device):
        self.keys = torch.zeros(sizes, dtype=dtype, device=device)
        self.values = torch.zeros(sizes, dtype=dtype, device=device)
        self.lengths_W = torch.zeros(sizes[1], dtype=torch.int64)
        self.capacity = sizes[2]

    def restart(self, rows: torch.Tensor) -> None:
        """Forgets all tokens of `rows` (int64 indices or a bool mask); positions begin at 0."""
        self.lengths_W[rows] = 0


@dataclass
class StepLayout:
    """Where the new tokens of one `extend` go; computed once for all layers."""

    rows_W: torch.Tensor  # cache rows
    all_rows: bool  # they are every row of the cache, in order
    places_N: torch.Tensor  # of each token, among rows × capacity
    positions_N: torch.Tensor
    slots_N: torch.Tensor  # its place in the padded R × K
    last_W: torch.Tensor  # the last token of each row
    most: int  # K
    longest: int  # T
    mask_W1TT: torch.Tensor  # what each padded query may see


def step_layout(
    counts_W: torch.Tensor, cache: KVCache, rows_W: torch.Tensor | None = None
) -> StepLayout:
    """Raises ValueError where a row would grow over the cache's capacity."""
    all_rows = rows_W is None
    if rows_W is None:
        rows_W = torch.arange(len(cache.lengths_W))
    before_W = cache.lengths_W[rows_W]
    most, longest = int(counts_W.max()), int((before_W + counts_W).max())
    if longest > cache.capacity:
        raise ValueError(
            f"a row would hold {longest} tokens, the cache has room for {cache.capacity}: "
            "restart the row and extend it by the tokens it should keep"
        )
    ends_W = counts_W.cumsum(0)
    of_N = torch.arange(len(rows_W)).repeat_interleave(counts_W)
    step_N = torch.arange(int(ends_W[-1])) - (ends_W - counts_W)[of_N]
    seen_WT = before_W[:, None] + torch.arange(most)
    mask_WTT = torch.arange(longest) <= seen_WT[..., None]
    positions_N, device = before_W[of_N] + step_N, cache.keys.device
    return StepLayout(
        rows_W=rows_W,
        all_rows=all_rows,
        places_N=(rows_W[of_N] * cache.capacity + positions_N).to(device),
        positions_N=positions_N.to(device),
        slots_N=(of_N * most + step_N).to(device),
        last_W=(ends_W - 1).to(device),
        most=most,
        longest=longest,
        mask_W1TT=mask_WTT[:, None].to(device),
    )


def cached_attention(
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    cache: KVCache,
    layer: int,
    layout: StepLayout,
) -> torch.Tensor:
    """Stores the new keys and values, then attends to all of each row so far; shape N H D."""
    keys, values = cache.keys[layer], cache.values[layer]  # [rows, capacity, G, D]
    keys.flatten(0, 1).index_copy_(0, layout.places_N, k_NKZ)
    values.flatten(0, 1).index_copy_(0, layout.places_N, v_NKZ)
    if not layout.all_rows:
        keys, values = keys[layout.rows_W], values[layout.rows_W]
    rows, groups = len(layout.rows_W), k_NKZ.shape[1]
    heads, dim = q_NHZ.shape[1:]
    padded = q_NHZ.new_zeros(rows * layout.most, heads, dim)
    padded[layout.slots_N] = q_NHZ
    out = F.scaled_dot_product_attention(
        padded.view(rows, layout.most, heads, dim).transpose(1, 2),
        keys[:, : layout.longest].transpose(1, 2),
        values[:, : layout.longest].transpose(1, 2),
        attn_mask=layout.mask_W1TT,
        enable_gqa=heads != groups,
    )
    return out.transpose(1, 2).reshape(rows * layout.most, heads, dim)[layout.slots_N]
