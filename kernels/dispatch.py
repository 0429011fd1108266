"""Which version of an operation runs on a device, for operations that ship one Triton version."""

from functools import cache
from importlib.util import find_spec

import torch

COMPILED_FOR = ("sm_80", "sm_90")  # the architectures that tests compile every configuration for


def choose(device: torch.device, dtype: torch.dtype) -> str:
    """ "cpu", "fused" on GPUs whose configurations the tests compile, or "naive"."""
    if device.type == "cpu":
        return "cpu"
    known = dtype != torch.float64 and architecture(device) in COMPILED_FOR
    return "fused" if known and _has_triton() else "naive"


def architecture(device: torch.device) -> str:
    """As in "sm_90"."""
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
