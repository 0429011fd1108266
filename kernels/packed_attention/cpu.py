"""Rotary positions and causal attention within segments, arranged for CPU.

The segments of a batch are padded once per batch (a `Plan`), in pieces that stay in cache; per
layer a piece is gathered head by head, rotated, and multiplied in batches that write their results
side by side, so that one gather brings them back. Probabilities are kept for the backward. The
scale 1 / √Z is part of the query's rotary table.
"""

from dataclasses import dataclass

import torch

from ldm.kernels.packed_attention.plain import length_buckets
from ldm.kernels.rotary.plain import rotary_table

PIECE = 4096  # padded tokens
SIZES = 16  # pieces of one length come in so many sizes: products of a new shape take preparing


@dataclass
class Piece:
    """Equally padded segments."""

    index_N: torch.Tensor  # int64, the token at each padded place; repeats where not valid
    valid_N1: torch.Tensor | None  # 1 or 0, None where all are 1
    segments: int
    length: int

    @property
    def places(self) -> int:
        return self.segments * self.length

    def rows(self, heads: int) -> torch.Tensor:
        """int64 [heads · P]: rows of the piece, head by head, among those of N tokens × heads."""
        return (self.index_N * heads + torch.arange(heads)[:, None]).flatten()


@dataclass
class Plan:
    """How the segments of one batch are padded; the same for all layers."""

    pieces: list[Piece]
    cos_H1TZ: dict[int, torch.Tensor]  # by padded length; queries carry the scale
    sin_H1TZ: dict[int, torch.Tensor]  # the first half negated
    mask_TT: dict[int, torch.Tensor]  # 0 or −∞
    heads: int
    kv_heads: int
    head_dim: int
    rows_q: list[torch.Tensor]  # of each piece, for its query heads
    rows_qkv: list[torch.Tensor]  # and for all
    back_q: torch.Tensor  # int64 [N · H], where the pieces, head by head, have every token's heads
    back_qkv: torch.Tensor  # int64 [N · M]

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
    pieces, before = [], 0
    # of every token: padded places of the pieces before, of its own, and its place in that
    place_3N = torch.empty(3, int(cu_seqlens_S1[-1]), dtype=torch.int64)
    tables: tuple[dict, dict, dict] = ({}, {}, {})
    for index_ST, valid_ST in length_buckets(cu_seqlens_S1, max_seqlen):
        length = index_ST.shape[1]
        _add_tables(tables, length, heads, kv_heads, head_dim, dtype)
        rows = max(1, PIECE // length)
        multiple_of = max(1, rows // SIZES)
        for index, valid in zip(index_ST.split(rows), valid_ST.split(rows)):
            index, valid = _fill(index, valid, -len(index) % multiple_of)
            local = valid.nonzero().squeeze(1)
            tokens = index.index_select(0, local)
            place_3N[0, tokens], place_3N[1, tokens], place_3N[2, tokens] = (
                before,
                len(index),
                local,
            )
            before += len(index)
            mask = None if len(local) == len(index) else valid[:, None].to(dtype)
            pieces.append(Piece(index, mask, len(index) // length, length))
    every = heads + 2 * kv_heads
    rows_q, rows_qkv = ([piece.rows(h) for piece in pieces] for h in (heads, every))
    back_q, back_qkv = (_back(place_3N, h) for h in (heads, every))
    cos_H1TZ, sin_H1TZ, mask_TT = tables
    return Plan(
        pieces, cos_H1TZ, sin_H1TZ, mask_TT, heads, kv_heads, head_dim, rows_q, rows_qkv,
        back_q, back_qkv,
    )  # fmt: skip


def _fill(index_ST, valid_ST, more: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both flat, with `more` segments that nobody reads."""
    index, valid = index_ST.flatten(), valid_ST.flatten()
    if not more:
        return index, valid
    nobody = index.new_zeros(more * index_ST.shape[1])
    return torch.cat((index, nobody)), torch.cat((valid, nobody.bool()))


def _back(place_3N: torch.Tensor, heads: int) -> torch.Tensor:
    before_N1, size_N1, local_N1 = place_3N[..., None]
    return (heads * before_N1 + torch.arange(heads) * size_N1 + local_N1).flatten()


def _add_tables(tables, length: int, heads: int, kv_heads: int, head_dim: int, dtype) -> None:
    cos_H1TZ, sin_H1TZ, mask_TT = tables
    cos_TY, sin_TY = (t.double() for t in rotary_table(length, head_dim))
    scale_H = torch.ones(heads + kv_heads, 1, 1, 1, dtype=torch.float64)
    scale_H[:heads] = head_dim**-0.5
    cos_H1TZ[length] = (scale_H * torch.cat((cos_TY, cos_TY), -1)).to(dtype)
    sin_H1TZ[length] = (scale_H * torch.cat((-sin_TY, sin_TY), -1)).to(dtype)
    hidden_TT = torch.ones(length, length, dtype=torch.bool).triu(1)
    mask_TT[length] = torch.zeros(length, length, dtype=dtype).masked_fill_(
        hidden_TT, float("-inf")
    )


def _swap(x: torch.Tensor) -> torch.Tensor:
    """The halves of the last dimension exchanged."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((second, first), dim=-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv_NO, plan):
        rotated = plan.heads + plan.kv_heads
        rows_NZ = qkv_NO.view(-1, plan.head_dim)
        out_NZ = qkv_NO.new_empty(plan.places * plan.heads, plan.head_dim)
        parts, saved = _parts(out_NZ, plan, plan.heads), []
        for piece, rows, out in zip(plan.pieces, plan.rows_qkv, parts):
            x_HSTZ = _heads_first(rows_NZ.index_select(0, rows), piece)
            cos, sin = plan.cos_H1TZ[piece.length], plan.sin_H1TZ[piece.length]
            qk = x_HSTZ[:rotated]
            qk = torch.mul(qk, cos).addcmul_(_swap(qk), sin)
            q, k, v = _split(qk, x_HSTZ[rotated:], plan)
            weights = torch.bmm(q, k.transpose(1, 2)).add_(plan.mask_TT[piece.length])
            torch.softmax(weights, -1, out=weights)
            torch.bmm(weights, v, out=out.view_as(q))
            saved += [q, k, v, weights]
        ctx.save_for_backward(*saved)
        ctx.plan = plan
        return out_NZ.index_select(0, plan.back_q).view(len(qkv_NO), -1)

    @staticmethod
    def backward(ctx, grad_NO):
        plan, saved = ctx.plan, iter(ctx.saved_tensors)
        rotated, heads = plan.heads + plan.kv_heads, plan.heads + 2 * plan.kv_heads
        rows_NZ = grad_NO.reshape(-1, plan.head_dim)
        grads_NZ = grad_NO.new_empty(plan.places * heads, plan.head_dim)
        parts = _parts(grads_NZ, plan, heads)
        for piece, rows, out in zip(plan.pieces, plan.rows_q, parts):
            grad_HSTZ = _heads_first(rows_NZ.index_select(0, rows), piece)
            if piece.valid_N1 is not None:
                grad_HSTZ.flatten(1, 2).mul_(piece.valid_N1)
            grad = grad_HSTZ.flatten(0, 1)
            q, k, v, weights = (next(saved) for _ in range(4))
            out_HSTZ = _heads_first(out, piece)
            grad_q, grad_k, grad_v = out_HSTZ.split((plan.heads, plan.kv_heads, plan.kv_heads))
            _product(weights.transpose(1, 2), grad, grad_v)
            grad_weights = torch.bmm(grad, v.transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            _product(grad_scores, k, grad_q)
            _product(grad_scores.transpose(1, 2), q, grad_k)
            grad_qk = out_HSTZ[:rotated]
            cos, sin = plan.cos_H1TZ[piece.length], plan.sin_H1TZ[piece.length]
            swapped = _swap(grad_qk)
            grad_qk.mul_(cos).addcmul_(swapped, sin, value=-1)
        return grads_NZ.index_select(0, plan.back_qkv).view(len(grad_NO), -1), None


def _parts(x_NZ: torch.Tensor, plan: Plan, heads: int) -> tuple[torch.Tensor, ...]:
    """The rows of each piece."""
    return x_NZ.split([piece.places * heads for piece in plan.pieces])


def _heads_first(x_NZ: torch.Tensor, piece: Piece) -> torch.Tensor:
    """Rows of a piece as [heads, S, T, Z]."""
    return x_NZ.view(-1, piece.segments, piece.length, x_NZ.shape[-1])


def _split(rotated, v, plan):
    """q, k, v as [H · S, T, Z], key heads repeated for the query heads that share them."""
    q, k = rotated[: plan.heads], rotated[plan.heads :]
    repeats = plan.heads // plan.kv_heads
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


def _product(a: torch.Tensor, b: torch.Tensor, out_KSTZ: torch.Tensor) -> None:
    """a · b by query head, summed over those that share one of the heads of `out`."""
    if len(a) == out_KSTZ.shape[0] * out_KSTZ.shape[1]:
        torch.bmm(a, b, out=out_KSTZ.flatten(0, 1))
    else:
        by_head = torch.bmm(a, b).view(out_KSTZ.shape[0], -1, *out_KSTZ.shape[1:])
        torch.sum(by_head, 1, out=out_KSTZ)


def rotary_attention(qkv_NO: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Attended values N × (H · Z) of the fused qkv; positions count from 0 in every segment."""
    return _Attention.apply(qkv_NO, plan)
