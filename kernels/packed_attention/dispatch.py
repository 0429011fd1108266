"""Who computes packed attention: ours in Triton, flash-attn, PyTorch's varlen, or plain PyTorch.

`dispatch.json` holds what was measured: rows {"arch", "head_dim", "bits", "longer_than",
"provider"}, written by `python -m ldm.bench.tune dispatch`. A row holds for batches whose longest
segment is longer than `longer_than` tokens; of the rows that hold, the one with the largest
`longer_than` whose provider is installed wins. Where no row holds: ours, for head dimensions that
we have, then varlen, then plain PyTorch, which waits for the device and is told of.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from ldm.kernels.architectures import ours_run
from ldm.kernels.dispatch import architecture, there
from ldm.kernels.packed_attention import peers, plain
from ldm.kernels.packed_attention.configurations import HEAD_DIMS
from ldm.kernels.packed_attention.work_list import WorkList
from ldm.kernels.rotary import rotary

VARIABLE = "LDM_ATTENTION"  # the environment variable that overrides the choice
PROVIDERS = ("fused", *peers.FLASH_MODULES, "varlen", "plain")

log = logging.getLogger("ldm.kernels")


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the segments of a batch lie, in every form that some provider needs.

    All tensors on the device of q; max_seqlen: the longest segment, a host integer. With `angles`,
    the table of `rotary_table` for at least max_seqlen positions, attention rotates q and k by it.
    """

    cu_seqlens_S1: torch.Tensor  # int32, ascending, ends with the token count
    positions_N: torch.Tensor  # int32
    max_seqlen: int
    work_list: WorkList
    angles: tuple[torch.Tensor, torch.Tensor] | None = None

    # cos_NY, sin_NY of every token, for providers that do not rotate: gathered once for all layers
    angles_N: tuple[torch.Tensor, torch.Tensor] | None = field(init=False, default=None)

    def __post_init__(self):
        if self.angles is not None:
            angles_N = tuple(table.index_select(0, self.positions_N) for table in self.angles)
            object.__setattr__(self, "angles_N", angles_N)


# (qkv_NOZ of query, key and value heads, key heads, segments) → attended N H Z
Attend = Callable[[torch.Tensor, int, Segments], torch.Tensor]


def packed_attention(
    q_NHZ: torch.Tensor,
    k_NKZ: torch.Tensor,
    v_NKZ: torch.Tensor,
    segments: Segments,
    provider: str | None = None,
) -> torch.Tensor:
    """softmax(q kᵀ / √Z) v over the tokens of the same segment up to each token, shape N H Z.

    q and k are rotated before by `segments.angles`, if any. H is a multiple of K. `provider`: one
    of PROVIDERS, else LDM_ATTENTION, else as measured. Copies q, k and v together: a model that has
    them as one projection calls what `choose` gives.
    """
    attend = choose(q_NHZ.device, q_NHZ.dtype, q_NHZ.shape[2], segments.max_seqlen, provider)
    return attend(torch.cat([q_NHZ, k_NKZ, v_NKZ], dim=1), k_NKZ.shape[1], segments)


def choose(
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    max_seqlen: int,
    provider: str | None = None,
) -> Attend:
    """The function that attends. Raises ValueError for a provider that is unknown or not there."""
    arch = architecture(device)
    requested = provider or os.environ.get(VARIABLE)
    if requested:
        if requested not in PROVIDERS:
            raise ValueError(f'packed attention: expected one of {PROVIDERS}, got "{requested}"')
        name, why = requested, "requested"
    else:
        name, why = best(arch, dtype, head_dim, max_seqlen)
    try:
        attend = load(name)
    except ImportError as error:
        raise ValueError(f'packed attention: "{name}" is not installed here: {error}') from error
    slow = name == "plain" and arch != "cpu"
    _log_once(
        f"packed attention: {name} ({why}; {arch}, {dtype}, head dimension {head_dim})",
        logging.WARNING if slow else logging.INFO,
    )
    return attend


def best(
    arch: str, dtype: torch.dtype, head_dim: int, max_seqlen: int, rows: list[dict] | None = None
) -> tuple[str, str]:
    """(provider, why) for an architecture; rows: those of dispatch.json unless given."""
    if arch == "cpu":
        return "plain", "CPU"
    key = {"arch": arch, "head_dim": head_dim, "bits": dtype.itemsize * 8}
    found = [
        row
        for row in (measured() if rows is None else rows)
        if key.items() <= row.items() and row["longer_than"] < max_seqlen
    ]
    for row in sorted(found, key=lambda row: -row["longer_than"]):
        if installed(row["provider"]):
            return row["provider"], f"measured, segments over {row['longer_than']}"
    if head_dim in HEAD_DIMS and installed("fused") and ours_run(arch):
        return "fused", "default"
    if dtype.itemsize == 2 and installed("varlen"):
        return "varlen", "default"
    return "plain", "default"


@cache
def measured() -> list[dict]:
    """The rows of dispatch.json."""
    return json.loads((Path(__file__).parent / "dispatch.json").read_text())


def installed(provider: str) -> bool:
    """Whether its module is there."""
    modules = peers.FLASH_MODULES | {"fused": "triton", "varlen": "torch.nn.attention.varlen"}
    return provider not in modules or there(modules[provider])


@cache
def load(provider: str) -> Attend:
    """The provider's function. Raises ImportError where it is not installed."""
    if provider == "fused":
        from ldm.kernels.packed_attention import fused

        return lambda qkv, key_heads, s: fused.fused_attention(
            qkv, key_heads, s.positions_N, s.work_list, angles=s.angles
        )
    if provider == "plain":  # its shapes depend on lengths that it reads: nothing to compile
        return torch.compiler.disable(
            apart(lambda q, k, v, s: plain.packed_attention(q, k, v, s.cu_seqlens_S1, s.max_seqlen))
        )
    if provider == "varlen":
        return apart(peers.torch_varlen())
    return apart(peers.flash_attention(provider))


def apart(attend: Callable) -> Attend:
    """For a provider attend(q, k, v, segments) that knows no angles: rotates in a pass before."""

    def rotate_and_attend(qkv_NOZ, key_heads: int, segments: Segments) -> torch.Tensor:
        heads = (qkv_NOZ.shape[1] - 2 * key_heads, key_heads, key_heads)
        q_NHZ, k_NKZ, v_NKZ = qkv_NOZ.split(heads, dim=1)
        if segments.angles_N is not None:
            q_NHZ, k_NKZ = (rotary(x, *segments.angles_N) for x in (q_NHZ, k_NKZ))
        return attend(q_NHZ, k_NKZ, v_NKZ, segments)

    return rotate_and_attend


@cache
def _log_once(line: str, level: int = logging.INFO) -> None:
    log.log(level, line)
