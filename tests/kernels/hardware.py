"""Triton's interpreter made to round like a GPU: tf32 products, truncated sums, ex2.approx."""

from contextlib import contextmanager
from unittest import mock

import numpy as np

STEP = 8  # terms that a tensor core adds exactly before it truncates


def as_tf32(x: np.ndarray) -> np.ndarray:
    """fp32 rounded to eleven bits, ties away from zero (cvt.rna)."""
    bits = x.astype(np.float32).view(np.uint32) + np.uint32(0x1000)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def truncated(x: np.ndarray) -> np.ndarray:
    """fp64 to fp32, towards zero."""
    near = x.astype(np.float32)
    return np.where(np.abs(near) > np.abs(x), np.nextafter(near, np.float32(0)), near)


def multiply(a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    for k in range(0, a.shape[-1], STEP):
        exact = a[..., k : k + STEP].astype(np.float64) @ b[..., k : k + STEP, :].astype(np.float64)
        acc = truncated(acc.astype(np.float64) + exact)
    return acc


def tf32_product(a: np.ndarray, b: np.ndarray, passes: int) -> np.ndarray:
    """fp32 · fp32: one product of the high halves, or the three that keep 22 bits."""
    acc = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    high_a, high_b = as_tf32(a), as_tf32(b)
    if passes == 3:
        acc = multiply(as_tf32(a - high_a), high_b, acc)
        acc = multiply(high_a, as_tf32(b - high_b), acc)
    return multiply(high_a, high_b, acc)


@contextmanager
def rounding():
    """Kernels launched inside round so: one product or three, as their `input_precision` says."""
    from triton._C.libtriton import ir
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    exactly, random = InterpreterBuilder.create_dot, np.random.default_rng(0)
    passes = {ir.INPUT_PRECISION.TF32x3: 3, ir.INPUT_PRECISION.TF32: 1}

    def create_dot(self, a, b, d, input_precision, *rest):
        finite = all(np.isfinite(x.data).all() for x in (a, b))
        if a.data.dtype != np.float32 or input_precision not in passes or not finite:
            return exactly(self, a, b, d, input_precision, *rest)
        product = tf32_product(a.data, b.data, passes[input_precision])
        return TensorHandle(product + d.data, d.dtype.scalar)

    def approximate(function):
        def create(self, x):
            exact = function(x.data.astype(np.float64))
            near = np.spacing(np.abs(exact).astype(np.float32))
            error = np.where(np.isfinite(near), near, 0) * random.uniform(-2, 2, exact.shape)
            return TensorHandle((exact + error).astype(x.data.dtype), x.dtype.scalar)

        return create

    functions = {f"create_{name}": approximate(getattr(np, name)) for name in ("exp2", "log2")}
    with mock.patch.multiple(InterpreterBuilder, create_dot=create_dot, **functions):
        yield
