"""What the data side hands to the model: tokens, and tokens packed into bins with their labels.

Arrays are numpy where the packer fills them, and torch once `to()` moved them.
"""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

FEATURES = 64  # numbers a token carries at most
PAD, OBSERVATION, ACTION, PATCH = 0, 1, 2, 3  # token kinds
PATCH_CHANNELS = 4  # of an image patch: X = patch × patch × PATCH_CHANNELS bytes
SLOTS = 256  # action components have their gate rows here: continuous from 0, discrete from 128
FIRST_DISCRETE_SLOT = 128


Array = TypeVar("Array", np.ndarray, "torch.Tensor")


def _move(value, device, non_blocking: bool):
    """A dataclass, array or number with every array a torch tensor on `device`."""
    import torch

    if is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: _move(getattr(value, f.name), device, non_blocking) for f in fields(value)}
        return replace(value, **moved)
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    return value.to(device, non_blocking=non_blocking) if torch.is_tensor(value) else value


@dataclass
class Tokens(Generic[Array]):
    """N tokens as bags and numbers: e = RMSNorm(Σ_j weight_j · E[bag_ids_j] + W_kind · features).

    A PATCH token's numbers are its row of `patches` (uint8, height × width × PATCH_CHANNELS of one
    patch, missing channels zero); its `features` row is zero.
    """

    kinds_N: Array  # uint8
    bag_ids_B: Array  # int32, rows of the table
    bag_weights_B: Array  # float32: 1 of symbols, the number itself of an environment's own numbers
    bag_offsets_N1: Array  # int32, token i owns bag_ids[offsets[i]:offsets[i + 1]]
    features_NG: Array  # float32
    patches_PX: Array  # uint8
    patch_tokens_P: Array  # int32, the token each patch belongs to, ascending; N of no token

    def to(self, device="cpu", non_blocking: bool = True) -> "Tokens[torch.Tensor]":
        """The same with every array a torch tensor on `device`."""
        return _move(self, device, non_blocking)


@dataclass
class Labels(Generic[Array]):
    """One row for every action component that is read from some token.

    `slot` names the component (gate row). The target is class `value` of `classes`; where
    `smooth`, `value` is a fractional bin coordinate in [0, classes - 1] and the target a Gaussian
    of σ = 1 bin around it.

    Rows past `PackedBatch.label_count` fill a fixed capacity: they ask for the only class of one,
    so that their loss and gradient are exactly zero, of an environment after the last.
    """

    tokens_L: Array  # int32, ascending
    reads_U: Array  # int32, the tokens that labels read, each once, ascending; zeros past the last
    owners_U: Array  # int32, whose gain and bias the head takes: environment + 1, 0 nobody's
    rows_L: Array  # int32, ascending: label l reads token reads[rows[l]]
    slots_L: Array  # int32
    classes_L: Array  # int32
    values_L: Array  # float32
    smooth_L: Array  # uint8
    environments_L: Array  # int32, index into the manifest's environments, for their own losses


@dataclass
class EmbeddingPlan(Generic[Array]):
    """Which program embeds which tokens, and who sums which gradients, as in
    `ldm.kernels.token_embedding.embedding_plan.EmbeddingPlan`, whose fields these are."""

    tiles_QM: Array  # int32
    groups_VI: Array  # int32
    tokens_B: Array  # int32
    weights_B: Array  # float32
    pieces_Q4: Array  # int32
    windows_V1: Array  # int32
    rows_R2: Array  # int32
    window: int
    slots: int


@dataclass
class PackedBatch(Generic[Array]):
    """`bins` bins of `bin_tokens` tokens, N = bins × bin_tokens, bin after bin.

    Segments never straddle a bin; the unused tail of a bin is PAD tokens in padding segments of
    their own, no longer than the real ones (so that cu_seqlens covers all N and stays ascending).

    Packed to fixed capacities, every array has the same shape in every batch. Then bag entries past
    the last offset belong to no token, patches past the last have token N, and `max_seqlen` is the
    longest that any batch may hold.
    """

    tokens: Tokens[Array]
    labels: Labels[Array]
    cu_seqlens_S1: Array  # int32, starts of the segments, then N up to a fixed length (empty ones)
    positions_N: Array  # int32, position within the segment
    bag_order_B: Array  # int32, stable order that sorts bag_ids (for the embedding's backward)
    short_tiles_Q4: Array  # int32, attention work list of the short segments (ldm.data.work_list)
    long_tiles_Q4: Array  # int32, and of the long ones
    max_seqlen: int  # longest segment, or a bound; a host integer
    label_count: int  # labels that are not there to fill a capacity
    used_tokens: int  # tokens that are not PAD
    transitions: int  # environment steps in the batch
    embedding: EmbeddingPlan[Array] | None = None  # for GPUs, which make one where there is none

    def to(self, device="cpu", non_blocking: bool = True) -> "PackedBatch[torch.Tensor]":
        """The same with every array a torch tensor on `device`."""
        return _move(self, device, non_blocking)
