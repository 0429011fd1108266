"""What a GPU can do at most: the ceilings that speeds are held against.

bf16 without sparsity and bandwidth are NVIDIA's data sheets. `matmul` and `copy` are what was
measured there by one large bf16 matrix product and one large copy (bytes read and written).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Roof:
    """FLOP/s and bytes/s."""

    name: str
    bf16: float
    bandwidth: float
    matmul: float | None = None
    copy: float | None = None

    def seconds(self, flops: float, bytes: float) -> float:
        """No kernel of that work can be faster: the slower of arithmetic and memory."""
        arithmetic = flops / (self.matmul or self.bf16)
        return max(arithmetic, bytes / (self.copy or self.bandwidth))


H200 = Roof("H200", 989e12, 4.8e12, matmul=790e12, copy=4.3e12)
H100 = Roof("H100", 989e12, 3.35e12, matmul=798e12, copy=3.0e12)  # as published, not measured by us
PRODUCTS = 640e12  # FLOP/s that a step's matrix products reach on either: estimated
REACHED = 0.92  # share of `copy` that long kernels reach
ROOFS = (
    H200,
    Roof("H100 NVL", 835e12, 3.9e12),
    Roof("H100 PCIe", 756e12, 2.0e12),
    H100,
    Roof("A100-SXM4-80GB", 312e12, 2.039e12),
    Roof("A100", 312e12, 1.555e12),
)


def roof(device: str) -> Roof | None:
    """Of the GPU whose name contains one of the names above; the first wins."""
    return next((r for r in ROOFS if r.name in device), None)
