"""Rotary positions and causal attention within segments, arranged for CPU.

The segments of a batch are padded once per batch (a `Plan`), in pieces that stay in cache; per
layer a piece is gathered head by head, turned, and multiplied in batches. Probabilities are kept
for the backward. The scale 1 / √D is part of the query's rotary table.

Shape suffixes: N tokens, X columns of the fused query, key and value, H query heads, G key heads,
M = H + 2 G, D head dimension, P padded tokens, S segments of a piece, T padded length.
"""

from dataclasses import dataclass

import torch

from ldm.kernels.packed_attention.naive import length_buckets
from ldm.kernels.rotary.naive import rotary_table

PIECE = 4096  # padded tokens


@dataclass
class Piece:
    """Equally padded segments."""

    index_P: torch.Tensor  # int64, the token at each padded place; repeats where not valid
    valid_P1: torch.Tensor | None  # 1 or 0, None where all are 1
    segments: int
    length: int

    @property
    def places(self) -> int:
        return self.segments * self.length


@dataclass
class Plan:
    """How the segments of one batch are padded; the same for all layers."""

    pieces: list[Piece]
    place_N: torch.Tensor  # int64, the padded place of every token, pieces end to end
    cos_M1TD: dict[int, torch.Tensor]  # by padded length; queries carry the scale
    sin_M1TD: dict[int, torch.Tensor]  # the first half negated
    mask_TT: dict[int, torch.Tensor]  # 0 or −∞
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def places(self) -> int:
        return sum(piece.places for piece in self.pieces)


def make_plan(
    cu_seqlens_S1: torch.Tensor,
    max_seqlen: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
) -> Plan:
    """cu_seqlens: int32, ascending, ends with the token count; empty segments are allowed."""
    pieces, total = [], 0
    place_N = torch.empty(int(cu_seqlens_S1[-1]), dtype=torch.int64)
    plan = Plan(pieces, place_N, {}, {}, {}, heads, kv_heads, head_dim)
    for index_BT, valid_BT in length_buckets(cu_seqlens_S1, max_seqlen):
        length = index_BT.shape[1]
        _add_tables(plan, length, head_dim, dtype)
        rows = max(1, PIECE // length)
        for index, valid in zip(index_BT.split(rows), valid_BT.split(rows)):
            index, valid = index.flatten(), valid.flatten()
            place_N[index[valid]] = total + valid.nonzero().squeeze(1)
            total += len(index)
            mask = None if valid.all() else valid[:, None].to(dtype)
            pieces.append(Piece(index, mask, len(index) // length, length))
    return plan


def _add_tables(plan: Plan, length: int, head_dim: int, dtype: torch.dtype) -> None:
    cos_TC, sin_TC = (t.double() for t in rotary_table(length, head_dim))
    scale_M = torch.ones(plan.heads + plan.kv_heads, 1, 1, 1, dtype=torch.float64)
    scale_M[: plan.heads] = head_dim**-0.5
    plan.cos_M1TD[length] = (scale_M * torch.cat((cos_TC, cos_TC), -1)).to(dtype)
    plan.sin_M1TD[length] = (scale_M * torch.cat((-sin_TC, sin_TC), -1)).to(dtype)
    hidden_TT = torch.ones(length, length, dtype=torch.bool).triu(1)
    plan.mask_TT[length] = torch.zeros(length, length, dtype=dtype).masked_fill_(
        hidden_TT, float("-inf")
    )


def _swap(x: torch.Tensor) -> torch.Tensor:
    """The halves of the last dimension exchanged."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((second, first), dim=-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv_NX, plan):
        turned_heads = plan.heads + plan.kv_heads
        out_PX = qkv_NX.new_empty(plan.places, plan.heads * plan.head_dim)
        saved = []
        for piece, out in zip(plan.pieces, out_PX.split([p.places for p in plan.pieces])):
            x_MSTD = _gather_heads(qkv_NX, piece, turned_heads + plan.kv_heads)
            qk = x_MSTD[:turned_heads]
            cos, sin = plan.cos_M1TD[piece.length], plan.sin_M1TD[piece.length]
            turned = torch.mul(qk, cos).addcmul_(_swap(qk), sin)
            q, k, v = _split(turned, x_MSTD[turned_heads:], plan)
            weights = torch.bmm(q, k.transpose(1, 2)).add_(plan.mask_TT[piece.length])
            torch.softmax(weights, -1, out=weights)
            _tokens_first(out, piece, torch.bmm(weights, v).unflatten(0, (plan.heads, -1)))
            saved += [q, k, v, weights]
        ctx.save_for_backward(*saved)
        ctx.plan = plan
        return out_PX.index_select(0, plan.place_N)

    @staticmethod
    def backward(ctx, grad_NX):
        plan, saved = ctx.plan, iter(ctx.saved_tensors)
        heads = plan.heads + 2 * plan.kv_heads
        grad_PX = grad_NX.new_empty(plan.places, heads * plan.head_dim)
        for piece, out in zip(plan.pieces, grad_PX.split([p.places for p in plan.pieces])):
            grad = _gather_heads(grad_NX, piece, plan.heads, zero=True).flatten(0, 1)
            q, k, v, weights = (next(saved) for _ in range(4))
            grad_v = torch.bmm(weights.transpose(1, 2), grad).unflatten(0, (plan.heads, -1))
            grad_weights = torch.bmm(grad, v.transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_q = torch.bmm(grad_scores, k).unflatten(0, (plan.heads, -1))
            grad_k = torch.bmm(grad_scores.transpose(1, 2), q).unflatten(0, (plan.heads, -1))
            grad_qk = torch.cat((grad_q, _ungroup(grad_k, plan)))
            cos, sin = plan.cos_M1TD[piece.length], plan.sin_M1TD[piece.length]
            grad_qk = torch.mul(grad_qk, cos).addcmul_(_swap(grad_qk), sin, value=-1)
            _tokens_first(out, piece, grad_qk, _ungroup(grad_v, plan))
        return grad_PX.index_select(0, plan.place_N), None


def _tokens_first(out_PX: torch.Tensor, piece: Piece, *parts_MSTD: torch.Tensor) -> None:
    """Writes heads-first parts side by side into the columns of a piece's padded places."""
    dim = parts_MSTD[0].shape[-1]
    columns_STMD = out_PX.view(piece.segments, piece.length, -1, dim)
    sizes = [len(part) for part in parts_MSTD]
    for columns, part in zip(columns_STMD.split(sizes, 2), parts_MSTD):
        columns.copy_(part.permute(1, 2, 0, 3))


def _gather_heads(x_NX: torch.Tensor, piece: Piece, heads: int, zero: bool = False) -> torch.Tensor:
    """A piece of the tokens, heads first, contiguous: [heads, S, T, D]; padding zeroed if asked."""
    x_PX = x_NX.index_select(0, piece.index_P)
    if zero and piece.valid_P1 is not None:
        x_PX.mul_(piece.valid_P1)
    return x_PX.view(piece.segments, piece.length, heads, -1).permute(2, 0, 1, 3).contiguous()


def _split(turned, v, plan):
    """q, k, v as [H · S, T, D], key heads repeated for the query heads that share them."""
    q, k = turned[: plan.heads], turned[plan.heads :]
    repeats = plan.heads // plan.kv_heads
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


def _ungroup(grad_HSTD: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Sums over the query heads that share a key head."""
    if plan.heads == plan.kv_heads:
        return grad_HSTD
    return grad_HSTD.unflatten(0, (plan.kv_heads, -1)).sum(1)


def rotary_attention(qkv_NX: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Attended values N × (H · D) of the fused qkv; positions count from 0 in every segment."""
    return _Attention.apply(qkv_NX, plan)
