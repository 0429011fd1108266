"""The decoder: a Llama-style transformer over packed tokens.

Weights are kept in fp32 (or whatever an engine casts the module to) and cast to `compute_dtype` in
every forward pass; activations, the residual stream included, have `compute_dtype`, sums inside
norms, softmax and losses fp32.

The ranges that `record_function` names are the parts that `ldm profile` tells apart.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.profiler import record_function

from ldm.data.batch import PackedBatch, Tokens
from ldm.kernels.gated_mlp import gated_mlp
from ldm.kernels.norm_linear import norm_linear
from ldm.kernels.packed_attention import Segments, WorkList, choose, make_plan, rotary_attention
from ldm.kernels.packed_attention.dispatch import load
from ldm.kernels.rotary import rotary, rotary_table
from ldm.model.cache import KVCache, StepLayout, cached_attention, step_layout
from ldm.model.embedding import TokenEmbedding
from ldm.model.head import ActionHead
from ldm.model.memory import each_tensor, sent
from ldm.model.presets import Architecture
from ldm.model.recompute import kept

Attend = Callable[[torch.Tensor], torch.Tensor]  # fused q, k, v to attended, N × (H · D)


class Block(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x)); query, key and value share one weight."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        self.attention_norm = nn.Parameter(torch.ones(a.width))
        self.qkv = _linear((a.heads + 2 * a.kv_heads) * a.head_dim, a.width)
        self.attention_out = _linear(a.width, a.heads * a.head_dim, 2 * a.layers)
        self.ffn_norm = nn.Parameter(torch.ones(a.width))
        self.gate_up = _linear(2 * a.ffn, a.width)
        self.down = _linear(a.width, a.ffn, 2 * a.layers)

    def forward(
        self, x_ND: torch.Tensor, attend: Attend, read_U: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`attend` rotates by position and attends. With `read_U` only those tokens go on."""
        attended = attend(norm_linear(x_ND, self.attention_norm, self.qkv))
        if read_U is not None:
            x_ND, attended = x_ND.index_select(0, read_U), attended.index_select(0, read_U)
        x_ND = torch.addmm(x_ND, attended, self.attention_out.to(x_ND.dtype).t())
        return gated_mlp(x_ND, self.ffn_norm, self.gate_up, self.down)


class Decoder(nn.Module):
    """Embedding, blocks and action head. `compute_dtype` may be changed at any time.

    balance_E: weight of a label by its environment; None: all alike (ldm.train.balance).
    """

    balance_E: torch.Tensor | None

    def __init__(self, architecture: Architecture, compute_dtype: torch.dtype = torch.float32):
        super().__init__()
        self.architecture = architecture
        self.compute_dtype = compute_dtype
        self.embedding = TokenEmbedding(architecture)
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.layers))
        self.head = ActionHead(architecture)
        self.recompute = "none"  # see ldm.model.recompute
        self.register_buffer("balance_E", None, persistent=False)
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None

    def layers(self) -> Iterator[Block]:
        """The blocks in order, typed."""
        return (block for block in self.blocks if isinstance(block, Block))

    def compile_blocks(self, backend: str = "inductor") -> None:
        """From now on each block runs as torch.compile makes it, as one graph of fixed shapes.

        Plain attention, which runs where no kernel is for the card, precision or head dimension,
        is left out of the graph.
        """
        attend = choose(self.head.out.device, self.compute_dtype, self.architecture.head_dim, 1)
        for block in self.blocks:
            block.compile(fullgraph=attend is not load("plain"), dynamic=False, backend=backend)

    def forward(
        self, batch: PackedBatch[torch.Tensor], read_U: torch.Tensor | None = None
    ) -> torch.Tensor:
        """hidden_ND after the last block, before the head's norm, in `compute_dtype`.

        With `read_U` (int64 token indices) hidden_UD of those tokens alone: the last block then
        spends its output projection and feed-forward on nothing that is not read.
        """
        with record_function("ldm.attention"):
            attend = self._attention(batch)
        with record_function("ldm.embedding"):
            x_ND = self.embedding(
                batch.tokens, batch.bag_order_B, batch.embedding, self.compute_dtype
            )
        for block in self.blocks[:-1]:
            x_ND = kept(self.recompute, block, x_ND, attend)
        return kept(self.recompute, self.blocks[-1], x_ND, attend, read_U)

    def _attention(self, batch: PackedBatch[torch.Tensor]) -> Attend:
        """Rotary attention over the batch's segments, prepared once for all layers."""
        a = self.architecture
        if self.head.out.device.type == "cpu":
            sizes = (a.heads, a.kv_heads, a.head_dim)
            plan = make_plan(batch.cu_seqlens_S1, batch.max_seqlen, *sizes, self.compute_dtype)

            def attend(qkv_NO):
                with record_function("ldm.attention"):
                    return rotary_attention(qkv_NO, plan)

            return attend
        return self._dispatched_attention(batch)

    def _dispatched_attention(self, batch: PackedBatch[torch.Tensor]) -> Attend:
        """Rotary positions, then whatever `choose` finds best for this batch."""
        a = self.architecture
        tokens, longest = len(batch.positions_N), batch.max_seqlen
        tiles = WorkList(batch.short_tiles_Q4, batch.long_tiles_Q4, tokens)
        angles = self.angles(1 << (longest - 1).bit_length())  # few table sizes: each is compiled
        segments = Segments(batch.cu_seqlens_S1, batch.positions_N, longest, tiles, angles)
        device = batch.positions_N.device
        packed_attention = choose(device, self.compute_dtype, a.head_dim, longest)

        def attend(qkv_NO):
            qkv_NOZ = qkv_NO.unflatten(-1, (-1, a.head_dim))
            return packed_attention(qkv_NOZ, a.kv_heads, segments).flatten(1)

        return attend

    def _split(self, qkv_NO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        a = self.architecture
        heads = (a.heads, a.kv_heads, a.kv_heads)
        q_NHZ, k_NKZ, v_NKZ = qkv_NO.unflatten(-1, (-1, a.head_dim)).split(heads, dim=1)
        return q_NHZ, k_NKZ, v_NKZ

    def loss(self, batch: PackedBatch[torch.Tensor]) -> tuple[torch.Tensor, int, torch.Tensor]:
        """(Σ weight · cross-entropy of the labels in fp32, their count, losses_L in fp32)."""
        labels = batch.labels
        hidden_UD = self(batch, labels.reads_U)
        with record_function("ldm.loss"):
            losses_L = self.head.losses(hidden_UD, labels)
            if self.balance_E is None:
                return losses_L.sum(), batch.label_count, losses_L
            weights_L = self.balance_E.index_select(0, labels.environments_L)
            return losses_L @ weights_L.to(losses_L.dtype), batch.label_count, losses_L

    def new_cache(self, capacity: int) -> KVCache:
        """A cache without rows, for streams of up to `capacity` tokens each."""
        a, device = self.architecture, self.head.out.device
        return KVCache(a.layers, a.kv_heads, a.head_dim, capacity, self.compute_dtype, device)

    @torch.no_grad()
    def extend(
        self,
        tokens: Tokens[torch.Tensor],
        tokens_per_row: torch.Tensor,
        cache: KVCache,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Appends tokens to some rows of the cache; hidden_WD of each row's last new token.

        tokens: the new tokens, row after row. tokens_per_row: int64, at least 1 each. rows: int64
        cache rows, each once, default all in order. Same values as `forward` over whole segments.
        """
        layout = step_layout(tokens_per_row, cache, rows)
        tokens, layout = each_tensor([tokens, layout], lambda x: sent(x, cache.device))
        hidden_WD = self.read(tokens, layout, self.angles(cache.capacity))
        cache.grew(rows, tokens_per_row)
        return hidden_WD

    @torch.no_grad()
    def read(
        self,
        tokens: Tokens[torch.Tensor],
        layout: StepLayout,
        angles: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """`extend` as it runs on the device: hidden_WD of the tokens layout.last_W."""
        cos_NY, sin_NY = (t[layout.positions_N] for t in angles)
        x_ND = self.embedding(tokens, dtype=self.compute_dtype)
        for layer, block in enumerate(self.blocks):

            def attend(qkv_NO, layer=layer):
                q_NHZ, k_NKZ, v_NKZ = self._split(qkv_NO)
                q_NHZ, k_NKZ = rotary(q_NHZ, cos_NY, sin_NY), rotary(k_NKZ, cos_NY, sin_NY)
                return cached_attention(q_NHZ, k_NKZ, v_NKZ, layer, layout).flatten(1)

            read_U = layout.last_W if block is self.blocks[-1] else None
            x_ND = block(x_ND, attend, read_U)
        return x_ND

    def angles(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary table for at least `positions` positions, kept until a longer one is needed."""
        device = self.head.out.device
        known = self._angles
        if known is None or len(known[0]) < positions or known[0].device != device:
            known = self._angles = rotary_table(positions, self.architecture.head_dim, device)
        return known


def _linear(outputs: int, inputs: int, residual_branches: int = 1) -> nn.Parameter:
    """Weight of variance 1 / inputs; divided by the number of branches that add to the residual."""
    return nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs * residual_branches))


def whole_parameters(architecture: Architecture) -> int:
    """Parameters of the whole model, the table and the head among them, none of them made."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in Decoder(architecture).parameters())
