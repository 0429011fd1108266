"""Parts with one fault each that the gate must find, for test_launched.py."""

import torch
import triton
import triton.language as tl
from torch.library import triton_op, wrap_triton


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
    """A gather within a block of registers: a stack, whatever the size."""
    o = tl.arange(0, n)
    b_x = tl.load(p_x + o[:, None] * n + o[None, :])
    for _ in range(4):
        b_x = tl.dot(b_x, b_x, input_precision="ieee") * scale.to(tl.float32)
    tl.store(p_y + o[:, None] * n + o[None, :], b_x)


def _part(name: str, kernel, size: int):
    @triton_op(f"ldm_faulty::{name}", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty_like(x)
        wrap_triton(kernel)[(1,)](x, y, 0.1, n=size)
        return y

    operator.register_autograd(lambda ctx, grad: grad, setup_context=lambda ctx, inputs, output: 0)

    def part(lengths: list[int]):
        function = torch.compile(lambda x: operator(x), fullgraph=True)
        rows = size if kernel is spilling_kernel else 1
        return function, lambda _: (torch.empty(rows, size, requires_grad=True),)

    return part


double = _part("double", double_kernel, 64)
misread = _part("misread", misread_kernel, 64)
spilling = _part("spilling", spilling_kernel, 128)
