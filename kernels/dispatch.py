"""Which version of an operation runs on a device, for operations that ship one Triton version."""

from functools import cache
from importlib.util import find_spec

import torch

COMPILED_FOR = ("sm_80", "sm_90")  # the architectures that tests compile every configuration for


def choose(device: torch.device, dtype: torch.dtype) -> str:
    """ "cpu", "fused" on GPUs whose configurations the tests compile, or "plain"."""
    if device.type == "cpu":
        return "cpu"
    known = dtype != torch.float64 and architecture(device) in COMPILED_FOR
    return "fused" if known and there("triton") else "plain"


def architecture(device: torch.device) -> str:
    """As in "sm_90"; "cpu" where it is no GPU."""
    if device.type != "cuda":
        return "cpu"
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def there(module: str) -> bool:
    """Whether a module is installed; nothing is imported but its parents."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
