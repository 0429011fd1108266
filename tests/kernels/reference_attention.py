"""Attention a student would write: one segment at a time, one mask."""

from itertools import pairwise

import torch


def attention(q_NHD, k_NGD, v_NGD, cu_seqlens, window=0):
    heads, groups, dim = q_NHD.shape[1], k_NGD.shape[1], q_NHD.shape[2]
    k_NHD = k_NGD.repeat_interleave(heads // groups, 1)
    v_NHD = v_NGD.repeat_interleave(heads // groups, 1)
    pieces = []
    for first, last in pairwise(cu_seqlens):
        rows = torch.arange(last - first, device=q_NHD.device)
        seen = rows[None, :] <= rows[:, None]
        if window:
            seen &= rows[None, :] > rows[:, None] - window
        q, k, v = (x[first:last].transpose(0, 1) for x in (q_NHD, k_NHD, v_NHD))
        scores = (q @ k.transpose(1, 2) * dim**-0.5).masked_fill(~seen, float("-inf"))
        pieces.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(pieces)
