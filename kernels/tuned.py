"""Which block sizes each kernel runs with: what was measured to be faster, else a default.

`<operation>/configurations.json` holds rows {"arch", "triton", "kernel", "size", "bits", then the
fields of the operation's Configuration}: what was faster (`python -m ldm.bench.tune kernels`), or
has no stack where the default has some (`python -m ldm.bench.matrix --mend`). Both flip between
Triton versions, so a row holds for one major and minor version. What launches choose is compiled
for all of `architectures.py`, and refused where it spills: with the installed Triton by
`tests/kernels/test_ahead_of_time.py`, with all of them by the matrix.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from ldm.kernels.architectures import nearest

KEY = ("arch", "triton", "kernel", "size", "bits")
OLDEST = "sm_80"  # for the interpreter and for what is asked to run elsewhere


class Tuned:
    """The configurations of one operation; called, the one of a launch.

    make: its dataclass. default(kernel, size, arch, bits): what runs where nothing was tuned. size:
    what the operation keys by, a head dimension or `columns`; bits of an element.
    """

    def __init__(self, operation: str, make: type, default: Callable):
        self.operation, self.make, self.default = operation, make, default
        self.rows = {_key(row): self._configuration(row) for row in read(operation)}

    def __call__(self, kernel: str, size: int, arch: str, bits: int):
        """The configuration of a kernel; `arch` as in "sm_90"."""
        found = self.rows.get((arch, triton_version(), kernel, size, bits))
        return found or self.default(kernel, size, nearest(arch) or OLDEST, bits)

    def use(self, kernel: str, size: int, arch: str, bits: int, chosen) -> dict:
        """Makes launches of this process take `chosen`; the row that says so for good."""
        key = (arch, triton_version(), kernel, size, bits)
        self.rows[key] = chosen
        return dict(zip(KEY, key, strict=True)) | asdict(chosen)

    def _configuration(self, row: dict):
        return self.make(**{name: value for name, value in row.items() if name not in KEY})


def path(operation: str) -> Path:
    return Path(__file__).parent / operation / "configurations.json"


def read(operation: str) -> list[dict]:
    return json.loads(path(operation).read_text())


def _key(row: dict) -> tuple:
    return tuple(row[name] for name in KEY)


def columns(width: int) -> int:
    """What widths are keyed by: the power of two that holds them, at least 64."""
    return max(1 << (width - 1).bit_length(), 64)


@cache
def triton_version() -> str:
    """Major and minor."""
    import triton

    return ".".join(triton.__version__.split(".")[:2])
