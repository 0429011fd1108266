"""Which version of an operation runs on a device, for operations that ship one Triton version."""

from functools import cache
from importlib.util import find_spec

import torch

from ldm.kernels.architectures import ours_run


def choose(device: torch.device, dtype: torch.dtype) -> str:
    """ "cpu", "fused" on every GPU that our kernels run on, or "plain"."""
    if device.type == "cpu":
        return "cpu"
    ours = dtype != torch.float64 and there("triton") and ours_run(architecture(device))
    return "fused" if ours else "plain"


def architecture(device: torch.device) -> str:
    """As in "sm_90"; "cpu" where it is no GPU, "hip" where it is none of NVIDIA's."""
    if device.type != "cuda":
        return "cpu"
    if torch.version.hip:
        return "hip"
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def there(module: str) -> bool:
    """Whether a module is installed; nothing is imported but its parents."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
