"""A part whose kernels have one fault each that the gate must find, for test_launched.py."""

import torch
import triton
import triton.language as tl
from torch.library import triton_op, wrap_triton

SIZE = 32_768  # 256 numbers for each of 128 threads


@triton.jit
def double_kernel(p_x, p_y, scale, n: tl.constexpr):
    """The scalar as the caller passes it: fp64 under Inductor."""
    o = tl.arange(0, n)
    tl.store(p_y + o, (tl.load(p_x + o) * scale).to(p_y.dtype.element_ty))


@triton.jit
def loaded(p_x, o):
    return tl.load(p_x + o).to(tl.int64), o


@triton.jit
def misread_kernel(p_x, p_y, scale, n: tl.constexpr):
    """A helper gives a loaded value and an index that an address depends on."""
    b, o = loaded(p_x, tl.arange(0, n))
    tl.store(p_y + o, (b * scale.to(tl.float32)).to(p_y.dtype.element_ty))


@triton.jit
def spilling_kernel(p_x, p_y, scale, n: tl.constexpr):
    """256 numbers a thread are alive until all are summed: more than it has registers."""
    o = tl.arange(0, n)
    b_x = tl.load(p_x + o) * scale.to(tl.float32)
    tl.store(p_y + o, b_x * tl.sum(b_x, 0))


def _operator(name: str, kernel, size: int):
    @triton_op(f"ldm_faulty::{name}", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty_like(x)
        wrap_triton(kernel)[(1,)](x, y, 0.1, n=size)
        return y

    operator.register_autograd(lambda ctx, grad: grad, setup_context=lambda ctx, inputs, output: 0)
    return operator


OPERATORS = [
    _operator("double", double_kernel, 64),
    _operator("misread", misread_kernel, 64),
    _operator("spilling", spilling_kernel, SIZE),
]


def faulty(lengths: list[int]):
    """One graph of three kernels with one fault each: a process takes ten seconds to start."""

    def function(x):
        for operator in OPERATORS:
            x = operator(x)
        return x

    compiled = torch.compile(function, fullgraph=True)
    return compiled, lambda _: (torch.empty(1, SIZE, requires_grad=True),)
