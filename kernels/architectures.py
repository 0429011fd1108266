"""Which GPUs and which Triton the kernels are held to, and what runs on a card outside the table.

`python -m ldm.bench.matrix` compiles every configuration for every row, with every Triton
(docs/kernels/matrix.md). A card outside the table takes the configurations of its nearest
architecture, after one check that they compile for it without stack and fit.
"""

import logging
import re
from dataclasses import dataclass
from functools import cache

log = logging.getLogger("ldm.kernels")


@dataclass(frozen=True)
class Architecture:
    """shared: bytes that a block may ask for (CUDA C programming guide, technical specifications).
    matrix: its matrix instruction, in machine code."""

    shared: int
    matrix: str


ARCHITECTURES = {
    "sm_80": Architecture(163 * 1024, "HMMA"),
    "sm_89": Architecture(99 * 1024, "HMMA"),
    "sm_90": Architecture(227 * 1024, "HGMMA"),
    "sm_100": Architecture(227 * 1024, "HMMA"),  # UTCHMMA
    "sm_120": Architecture(99 * 1024, "HMMA"),
}
TRITON = ("3.6", "3.7", "3.8", "3.9")


def capability(arch: str) -> int:
    """As Triton takes it: 90 for "sm_90"."""
    return int(arch.removeprefix("sm_"))


def nearest(arch: str) -> str | None:
    """The row of the table whose configurations run on `arch`: itself, else the newest of its
    family that is not newer, else the oldest; None where bf16 has no matrix unit, or on no NVIDIA.

    A family shares its matrix instructions and shared memory: 8.0 and 8.7, 8.6 and 8.9, 9, 10 and
    11, 12.
    """
    if arch in ARCHITECTURES:
        return arch
    if not re.fullmatch(r"sm_\d+", arch) or capability(arch) < 80:
        return None
    family = {86: "sm_89", 87: "sm_80"}.get(capability(arch))
    older = [name for name in ARCHITECTURES if capability(name) < capability(arch)]
    return family or max(older, key=capability)


def ours_run(arch: str) -> bool:
    """Whether our kernels run on `arch`: in the table, or near enough. Told once where not, or
    where they run by another's configurations."""
    return _checked(arch)


# What torch.compiler.assume_constant_result sets; the decorator imports the whole compiler, 1.5
# CPU seconds of every process that acts.
ours_run._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _checked(arch: str) -> bool:
    if arch in ARCHITECTURES:
        return True
    like = nearest(arch)
    if like is None:
        log.warning(f"{arch}: plain PyTorch, several times slower; our kernels need sm_80 or newer")
        return False
    from ldm.kernels.ahead_of_time import faults

    found = faults(like, arch, shared_memory())
    unfit = [fault for fault in found if "shared memory" in fault or "compile" in fault]
    if unfit:
        log.warning(f"{arch}: plain PyTorch, several times slower; as {like} it has {unfit}")
        return False
    spilled = f", which spill there: slower, and right: {found}" if found else ", without stack"
    (log.warning if found else log.info)(f"{arch}: our kernels as on {like}{spilled}")
    return True


def shared_memory() -> int:
    """Bytes that a block may ask for on the GPU that is there, as Triton is told."""
    from triton.runtime import driver

    device = driver.active.get_current_device()
    return driver.active.utils.get_device_properties(device)["max_shared_mem"]


def require_supported_triton(version: str) -> None:
    """Raises ImportError for a Triton that no configuration was compiled with."""
    if ".".join(version.split(".")[:2]) not in TRITON:
        raise ImportError(
            f"Triton {version}: our kernels are compiled and checked with {', '.join(TRITON)} "
            f'(docs/kernels/matrix.md); install one of them: pip install "triton~={TRITON[-1]}.0"'
        )
