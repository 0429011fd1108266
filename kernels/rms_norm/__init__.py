"""Root-mean-square normalisation."""

from ldm.kernels.rms_norm.naive import rms_norm

__all__ = ["rms_norm"]
