"""What a step must compute, and what the device could: the two sides of MFU."""

import torch

from ldm.data.batch import PAD
from ldm.train.roofs import roof


def peak_flops(device_name: str, precision: str) -> float | None:
    """The device's bf16 peak in FLOP/s; None where it is unknown or `precision` is not "bf16"."""
    if precision != "bf16":
        return None
    found = roof(device_name)
    return found.bf16 if found else None


def matmul_sizes(architecture) -> dict[str, int]:
    """What step_flops needs of an ldm.model.presets.Architecture.

    Counted are the matrices of the blocks, which every token passes; the embedding and the head,
    which only labelled tokens pass, are left out: MFU is rather too low than too high.
    """
    norms = (2 * architecture.layers + 1) * architecture.width
    return {
        "matmul_parameters": architecture.block_parameters - norms,
        "layers": architecture.layers,
        "attention_width": architecture.heads * architecture.head_dim,
    }


def step_flops(
    matmul_parameters: int, layers: int, attention_width: int, tokens: float, squares: float
) -> float:
    """Model FLOPs, forward and backward, of `tokens` tokens in segments with Σ length² = `squares`.

    F/token = 6·N_matmul + 6·layers·d_attn·L_eff with L_eff = ΣL²/ΣL: each weight is used in one
    multiply-add forward and two backward; causal scores and values cost 2·L·d forward, thrice
    with the backward (the PaLM appendix B count, halved for the causal mask). Padding never counts.
    """
    return 6 * matmul_parameters * tokens + 6 * layers * attention_width * squares


def segment_squares(batch) -> int:
    """Σ length² over the segments of a batch on the CPU that are not padding."""
    starts = torch.as_tensor(batch.cu_seqlens_S1).long()
    lengths = starts.diff()
    kinds = torch.as_tensor(batch.tokens.kinds_N)
    real = (lengths > 0) & (kinds[starts[:-1].clamp(max=len(kinds) - 1)] != PAD)
    return int((lengths[real] ** 2).sum())
