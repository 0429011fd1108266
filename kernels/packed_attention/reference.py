"""Causal attention within packed segments: the definition, one segment at a time."""

from collections.abc import Sequence
from itertools import pairwise

import torch


def packed_attention(
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    cu_seqlens: Sequence[int],
    window: int = 0,
) -> torch.Tensor:
    """softmax(q kᵀ / √Z) v over the tokens of the same segment up to each token, shape N H Z.

    cu_seqlens: ascending starts of the segments and N. window: a token sees so many, itself
    included; 0: all before it.
    """
    heads, key_heads, dim = q_NHZ.shape[1], k_NKZ.shape[1], q_NHZ.shape[2]
    k_NHZ = k_NKZ.repeat_interleave(heads // key_heads, 1)
    v_NHZ = v_NKZ.repeat_interleave(heads // key_heads, 1)
    pieces = []
    for first, last in pairwise(cu_seqlens):
        rows_T = torch.arange(last - first, device=q_NHZ.device)
        seen_TT = rows_T[None, :] <= rows_T[:, None]
        if window:
            seen_TT &= rows_T[None, :] > rows_T[:, None] - window
        q_HTZ, k_HTZ, v_HTZ = (x[first:last].transpose(0, 1) for x in (q_NHZ, k_NHZ, v_NHZ))
        scores_HTT = q_HTZ @ k_HTZ.transpose(1, 2) * dim**-0.5
        weights_HTT = scores_HTT.masked_fill(~seen_TT, float("-inf")).softmax(-1)
        pieces.append((weights_HTT @ v_HTZ).transpose(0, 1))
    return torch.cat(pieces)
