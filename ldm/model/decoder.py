"""The decoder: a Llama-style transformer over packed tokens.

Weights are kept in fp32 (or whatever an engine casts the module to) and cast to `compute_dtype` in
every forward pass; activations, the residual stream included, have `compute_dtype`, sums inside
norms, softmax and losses fp32.

Shape suffixes: N tokens, D width, H query heads, G key heads, L labels, S segments, R rows of a
cache.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ldm.data.batch import PackedBatch, Tokens
from ldm.kernels.packed_attention import packed_attention
from ldm.kernels.rms_norm import rms_norm
from ldm.kernels.rotary import rotary, rotary_table
from ldm.kernels.swiglu import swiglu
from ldm.model.cache import KVCache, cached_attention, step_layout
from ldm.model.embedding import TokenEmbedding
from ldm.model.head import ActionHead
from ldm.model.presets import Architecture


class Block(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x)); query, key and value share one weight."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        self.heads, self.kv_heads, self.head_dim = a.heads, a.kv_heads, a.head_dim
        self.attention_norm = nn.Parameter(torch.ones(a.width))
        self.qkv = _linear((a.heads + 2 * a.kv_heads) * a.head_dim, a.width)
        self.attention_out = _linear(a.width, a.heads * a.head_dim, 2 * a.layers)
        self.ffn_norm = nn.Parameter(torch.ones(a.width))
        self.gate_up = _linear(2 * a.ffn, a.width)
        self.down = _linear(a.width, a.ffn, 2 * a.layers)

    def forward(self, x_ND: torch.Tensor, attend) -> torch.Tensor:
        """`attend(q_NHD, k_NGD, v_NGD)` turns by position and attends."""
        qkv = self._project(rms_norm(x_ND, self.attention_norm), self.qkv)
        qkv = qkv.unflatten(-1, (-1, self.head_dim))
        attended = attend(*qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1))
        x_ND = x_ND + self._project(attended.flatten(1), self.attention_out)
        inner = swiglu(self._project(rms_norm(x_ND, self.ffn_norm), self.gate_up))
        return x_ND + self._project(inner, self.down)

    @staticmethod
    def _project(x: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
        return F.linear(x, weight.to(x.dtype))


class Decoder(nn.Module):
    """Embedding, blocks and action head. `compute_dtype` may be changed at any time."""

    def __init__(self, architecture: Architecture, compute_dtype: torch.dtype = torch.float32):
        super().__init__()
        self.architecture = architecture
        self.compute_dtype = compute_dtype
        self.embedding = TokenEmbedding(architecture)
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.layers))
        self.head = ActionHead(architecture)
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """hidden_ND after the last block, before the head's norm, in `compute_dtype`."""
        positions_N = batch.positions_N.long()
        cos_NC, sin_NC = (t[positions_N] for t in self.angles(batch.max_seqlen))

        def attend(q_NHD, k_NGD, v_NGD):
            q_NHD, k_NGD = rotary(q_NHD, cos_NC, sin_NC), rotary(k_NGD, cos_NC, sin_NC)
            return packed_attention(q_NHD, k_NGD, v_NGD, batch.cu_seqlens_S1, batch.max_seqlen)

        x_ND = self.embedding(batch.tokens).to(self.compute_dtype)
        for block in self.blocks:
            x_ND = block(x_ND, attend)
        return x_ND

    def loss(self, batch: PackedBatch) -> tuple[torch.Tensor, int, torch.Tensor]:
        """(sum of the labels' cross-entropies in fp32, their count, losses_L in fp32)."""
        tokens_L = batch.labels.tokens_L.long()
        rows_U, rows_L = torch.unique_consecutive(tokens_L, return_inverse=True)
        losses_L = self.head.losses(self(batch)[rows_U], rows_L, batch.labels)
        return losses_L.sum(), len(losses_L), losses_L

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for `rows` streams of up to `capacity` tokens."""
        a = self.architecture
        sizes = (a.layers, rows, a.kv_heads, capacity, a.head_dim)
        return KVCache(sizes, self.compute_dtype, self.head.out.device)

    @torch.no_grad()
    def extend(
        self,
        tokens: Tokens,
        tokens_per_row: torch.Tensor,
        cache: KVCache,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Appends tokens to some rows of the cache; hidden_RD of each row's last new token.

        tokens: the new tokens, row after row. tokens_per_row: int64, at least 1 each. rows: int64
        cache rows, each once, default all in order. Same values as `forward` over whole segments.
        """
        layout = step_layout(tokens_per_row, cache, rows)
        cos_NC, sin_NC = (t[layout.positions_N] for t in self.angles(cache.capacity))
        x_ND = self.embedding(tokens).to(self.compute_dtype)
        for layer, block in enumerate(self.blocks):

            def attend(q_NHD, k_NGD, v_NGD, layer=layer):
                q_NHD, k_NGD = rotary(q_NHD, cos_NC, sin_NC), rotary(k_NGD, cos_NC, sin_NC)
                return cached_attention(q_NHD, k_NGD, v_NGD, cache, layer, layout)

            x_ND = block(x_ND, attend)
        cache.lengths_R[layout.rows_R] += tokens_per_row
        return x_ND[layout.last_R]

    def angles(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary table for at least `positions` positions, kept until a longer one is needed."""
        device = self.head.out.device
        known = self._angles
        if known is None or len(known[0]) < positions or known[0].device != device:
            self._angles = rotary_table(positions, self.architecture.head_dim, device)
        return self._angles


def _linear(outputs: int, inputs: int, residual_branches: int = 1) -> nn.Parameter:
    """Weight of variance 1 / inputs; divided by the number of branches that add to the residual."""
    return nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs * residual_branches))
