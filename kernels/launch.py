"""Launching Triton kernels from inside a `torch.library.triton_op`."""

import os

import torch
import triton
import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensor
from torch.library import wrap_triton

from ldm.kernels.architectures import require_supported_triton

require_supported_triton(triton.__version__)
# a · b + c in one instruction, as Triton up to 3.9 does unasked; Inductor's compilers inherit it.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
INTERPRETED = triton.knobs.runtime.interpret
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def launch(kernel, grid: int, warps: int, stages: int, *arguments, **constants) -> None:
    """Runs `grid` programs; the first argument is a tensor."""
    if INTERPRETED:
        first = arguments[0]
        if not (isinstance(first, FakeTensor) or first.is_meta):  # those ask for shapes only
            kernel[(grid,)](*arguments, **constants)
        return
    wrap_triton(kernel)[(grid,)](*arguments, **constants, num_warps=warps, num_stages=stages)


def precision(*dtypes: torch.dtype) -> str:
    """Of matrix products: three of tf32 where all is fp32, which keep its accuracy; nothing that
    sixteen bits would ask about."""
    return "tf32x3" if all(dtype == torch.float32 for dtype in dtypes) else "tf32"


@triton.jit
def single(x):
    """A scalar argument as fp32: Inductor passes Python floats as fp64, and what meets them in a
    kernel would become fp64, accumulators too."""
    return tl.full([], x, tl.float32)
