"""Packed attention as others ship it: flash-attn 2, 3 and 4, and PyTorch's own varlen.

Nothing is imported before it is asked for. All take bf16 and fp16 on CUDA, and mask nothing but the
future within a segment. Sources: github.com/Dao-AILab/flash-attention, torch.nn.attention.varlen.
"""

import inspect
from collections.abc import Callable
from importlib import import_module

import torch

FLASH_MODULES = {
    "flash-attn-2": "flash_attn",
    "flash-attn-3": "flash_attn_interface",
    "flash-attn-4": "flash_attn.cute",
}


def flash_attention(name: str, deterministic: bool = True) -> Callable:
    """attend(q, k, v, segments) of one flash-attn. Raises ImportError where it is not installed.

    deterministic: the backward adds up in a fixed order, which costs it time.
    """
    function = import_module(FLASH_MODULES[name]).flash_attn_varlen_func

    def attend(q_NHZ, k_NKZ, v_NKZ, segments) -> torch.Tensor:
        starts, longest = segments.cu_seqlens_S1, segments.max_seqlen
        out = function(
            q_NHZ, k_NKZ, v_NKZ, cu_seqlens_q=starts, cu_seqlens_k=starts, max_seqlen_q=longest,
            max_seqlen_k=longest, causal=True, deterministic=deterministic,
        )  # fmt: skip
        return out[0] if isinstance(out, tuple) else out

    return attend


def torch_varlen() -> Callable:
    """attend(q, k, v, segments) by torch.nn.attention.varlen, torch ≥ 2.10.

    Its backward is repeatable under torch.use_deterministic_algorithms. Raises ImportError.
    """
    function = import_module("torch.nn.attention.varlen").varlen_attn
    known = inspect.signature(function).parameters
    causal = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}

    def attend(q_NHZ, k_NKZ, v_NKZ, segments) -> torch.Tensor:
        options = dict(causal)
        if q_NHZ.shape[1] != k_NKZ.shape[1] and "enable_gqa" in known:
            options["enable_gqa"] = True
        starts, longest = segments.cu_seqlens_S1, segments.max_seqlen
        return function(q_NHZ, k_NKZ, v_NKZ, starts, starts, longest, longest, **options)

    return attend
