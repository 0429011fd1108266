"""The key-value cache for acting: many rows (streams), each at its own length.

Rows that are extended together, by about equally many tokens a step, share a slab and are attended
to in one call: a stream of one token a step is not padded to one of a hundred, and nothing is
computed for rows that wait. A slab holds as many tokens a row as its longest row needs, in pages;
it grows by doubling and never past the capacity.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

PAGE = 64  # tokens


class Slab:
    """keys, values: for each layer [slots, tokens, G, D]."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device):
        empty = torch.zeros(0, PAGE, kv_heads, head_dim, dtype=dtype, device=device)
        self.keys, self.values = [empty] * layers, [empty] * layers
        self.ids: list[int] = []  # row of each slot, whether it is in use or not
        self.free: list[int] = []  # rows that were given back
        self.version = 0  # rises when keys and values move

    @property
    def tokens(self) -> int:
        return self.keys[0].shape[1]

    def hold(self, slots: int, tokens: int) -> None:
        """Makes room; what is there stays. Layer by layer: only one is ever there twice."""
        for kept in (self.keys, self.values):
            for layer, old in enumerate(kept):
                if old.shape[0] < slots or old.shape[1] < tokens:
                    sizes = max(slots, old.shape[0]), max(tokens, old.shape[1])
                    new = old.new_zeros(*sizes, *old.shape[2:])
                    new[: old.shape[0], : old.shape[1]] = old
                    kept[layer] = new
                    self.version += 1

    def drop(self) -> None:
        """Lets go of all memory; slots keep their numbers."""
        for kept in (self.keys, self.values):
            kept[:] = [old.new_zeros(0, PAGE, *old.shape[2:]) for old in kept]
        self.version += 1


class KVCache:
    """Rows of at most `capacity` tokens; lengths_W (int64) counts them, for all rows ever taken."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, capacity: int, dtype, device):
        self._sizes = layers, kv_heads, head_dim, dtype, device
        self.capacity, self.device = capacity, device
        self.slabs: dict[int, Slab] = {}
        self.lengths_W = torch.zeros(0, dtype=torch.int64)
        self.slab_W = torch.zeros(0, dtype=torch.int64)  # key of each row's slab
        self.slot_W = torch.zeros(0, dtype=torch.int64)

    def take(self, rows: int, tokens_per_step: int = 1, group: int = 0) -> torch.Tensor:
        """`rows` empty rows (int64), for streams of that many tokens a step. group: of the rows
        that are extended together."""
        key = (group << 8) + (tokens_per_step - 1).bit_length()
        slab = self.slabs.setdefault(key, Slab(*self._sizes))
        reused, slab.free = slab.free[:rows], slab.free[rows:]
        count, before = len(self.lengths_W), len(slab.ids)
        new = torch.arange(rows - len(reused))
        slab.ids += (count + new).tolist()
        slots = slab.keys[0].shape[0]
        if len(slab.ids) > slots:
            slab.hold(max(len(slab.ids), slots * 3 // 2), PAGE)
        self.lengths_W = torch.cat([self.lengths_W, torch.zeros_like(new)])
        self.slab_W = torch.cat([self.slab_W, torch.full_like(new, key)])
        self.slot_W = torch.cat([self.slot_W, before + new])
        taken = torch.cat([torch.tensor(reused, dtype=torch.int64), count + new])
        self.restart(taken)
        return taken

    def give_back(self, rows: torch.Tensor) -> None:
        """Their slots are for others; a slab that nobody uses lets go of its memory."""
        for row in rows.tolist():
            self.slabs[int(self.slab_W[row])].free.append(row)
        for slab in self.slabs.values():
            if len(slab.free) == len(slab.ids):
                slab.drop()

    def restart(self, rows: torch.Tensor) -> None:
        """Forgets all tokens of `rows` (int64 indices or a bool mask); positions begin at 0."""
        self.lengths_W[rows] = 0

    def grew(self, rows: torch.Tensor | None, counts_W: torch.Tensor) -> None:
        """`rows` (None: all) hold so many tokens more."""
        if rows is None:
            self.lengths_W += counts_W
        else:
            self.lengths_W[rows] += counts_W

    def bytes(self) -> int:
        """What keys and values take."""
        arrays = [a for slab in self.slabs.values() for a in (*slab.keys, *slab.values)]
        return sum(array.nbytes for array in arrays)


@dataclass
class Part:
    """The new tokens of one slab; computed once for all layers."""

    slab: Slab
    tokens_N: torch.Tensor | None  # which of the call's tokens; None: all
    slots_W: torch.Tensor | None  # which slots attend; None: all, in order
    rows: int
    places_N: torch.Tensor  # of each token, among slots × tokens
    padded_N: torch.Tensor  # its place in rows × most
    most: int  # K, new tokens of a row
    longest: int  # T, tokens of a row
    mask_W1TT: torch.Tensor  # what each padded query may see


@dataclass
class StepLayout:
    """Where the new tokens of one `extend` go."""

    positions_N: torch.Tensor
    last_W: torch.Tensor  # the last token of each row
    parts: list[Part]


def step_layout(
    counts_W: torch.Tensor, cache: KVCache, rows_W: torch.Tensor | None = None
) -> StepLayout:
    """On the host. Raises ValueError where a row would grow over the cache's capacity."""
    rows_W = torch.arange(len(cache.lengths_W)) if rows_W is None else rows_W
    before_W = cache.lengths_W[rows_W]
    if (longest := int((before_W + counts_W).max())) > cache.capacity:
        raise ValueError(
            f"a row would hold {longest} tokens, the cache has room for {cache.capacity}: "
            "restart the row and extend it by the tokens it should keep"
        )
    ends_W = counts_W.cumsum(0)
    of_N = torch.from_numpy(np.repeat(np.arange(len(rows_W)), counts_W.numpy()))
    step_N = torch.arange(len(of_N)) - (ends_W - counts_W)[of_N]
    slab_W = cache.slab_W[rows_W]
    keys = slab_W.unique().tolist()
    parts = []
    for key in keys:
        mine_W = None if len(keys) == 1 else slab_W == key
        parts.append(_part(cache, cache.slabs[key], mine_W, rows_W, counts_W, of_N, step_N))
    return StepLayout(before_W[of_N] + step_N, ends_W - 1, parts)


def _part(cache: KVCache, slab: Slab, mine_W, rows_W, counts_W, of_N, step_N) -> Part:
    """`mine_W`: which of the call's rows are in `slab`; None: all."""
    tokens_N = None
    if mine_W is not None:
        tokens_N = mine_W[of_N].nonzero().squeeze(1)
        of_N, step_N = (mine_W.cumsum(0) - 1)[of_N[tokens_N]], step_N[tokens_N]
        rows_W, counts_W = rows_W[mine_W], counts_W[mine_W]
    slots_W, before_W = cache.slot_W[rows_W], cache.lengths_W[rows_W]
    most, longest = int(counts_W.max()), int((before_W + counts_W).max())
    if longest > slab.tokens:
        pages = -(-max(longest, 2 * slab.tokens) // PAGE)
        slab.hold(len(slab.ids), min(pages * PAGE, max(cache.capacity, longest)))
    places_N = slots_W[of_N] * slab.tokens + before_W[of_N] + step_N
    # Few absent rows are computed along, and not read: leaving them out would copy all others.
    whole = 2 * len(slots_W) >= len(slab.ids)
    if whole:
        before_W = cache.lengths_W[torch.tensor(slab.ids)]
        padded_N = slots_W[of_N] * most + step_N
    else:
        padded_N = of_N * most + step_N
    seen_WT = before_W[:, None] + torch.arange(most)
    mask_WTT = torch.arange(longest) <= seen_WT[..., None]
    return Part(
        slab=slab,
        tokens_N=tokens_N,
        slots_W=None if whole else slots_W,
        rows=len(before_W),
        places_N=places_N,
        padded_N=padded_N,
        most=most,
        longest=longest,
        mask_W1TT=mask_WTT[:, None],
    )


def cached_attention(
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    layer: int,
    layout: StepLayout,
) -> torch.Tensor:
    """Stores the new keys and values, then attends to all of each row so far; shape N H D."""
    if layout.parts[0].tokens_N is None:
        return _attend(q_NHZ, k_NKZ, v_NKZ, layer, layout.parts[0])
    out = torch.empty_like(q_NHZ)
    for part in layout.parts:
        assert part.tokens_N is not None
        q, k, v = (x.index_select(0, part.tokens_N) for x in (q_NHZ, k_NKZ, v_NKZ))
        out.index_copy_(0, part.tokens_N, _attend(q, k, v, layer, part))
    return out


def _attend(q_NHZ, k_NKZ, v_NKZ, layer: int, part: Part) -> torch.Tensor:
    keys, values = part.slab.keys[layer], part.slab.values[layer]  # [slots, tokens, G, D]
    keys.flatten(0, 1).index_copy_(0, part.places_N, k_NKZ)
    values.flatten(0, 1).index_copy_(0, part.places_N, v_NKZ)
    if part.slots_W is None:
        chosen = slice(part.rows), slice(part.longest)
        keys, values = keys[chosen], values[chosen]
    else:
        keys, values = (x[:, : part.longest].index_select(0, part.slots_W) for x in (keys, values))
    heads, dim = q_NHZ.shape[1:]
    padded = q_NHZ.new_zeros(part.rows * part.most, heads, dim)
    padded[part.padded_N] = q_NHZ
    out = F.scaled_dot_product_attention(
        padded.view(part.rows, part.most, heads, dim).transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=part.mask_W1TT,
        enable_gqa=heads != k_NKZ.shape[1],
    )
    return out.transpose(1, 2).reshape(part.rows * part.most, heads, dim)[part.padded_N]
