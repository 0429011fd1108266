"""What the data side hands to the model: tokens, and tokens packed into bins with their labels.

Arrays are numpy when the packer fills them and torch once `to()` moved them, field by field.
"""

from dataclasses import dataclass, fields, replace

FEATURES = 64  # numbers a token carries at most
PAD, OBSERVATION, ACTION, PATCH = 0, 1, 2, 3  # token kinds
PATCH_CHANNELS = 4  # of an image patch: X = patch × patch × PATCH_CHANNELS bytes
SLOTS = 256  # action components have their gate rows here: continuous from 0, discrete from 128
FIRST_DISCRETE_SLOT = 128


class _Arrays:
    def to(self, device="cpu", non_blocking: bool = True):
        """The same with every array a torch tensor on `device`."""
        import torch

        def move(value):
            if isinstance(value, _Arrays):
                return value.to(device, non_blocking)
            if hasattr(value, "__array__") and not isinstance(value, torch.Tensor):
                value = torch.from_numpy(value)
            if isinstance(value, torch.Tensor):
                return value.to(device, non_blocking=non_blocking)
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})


@dataclass
class Tokens(_Arrays):
    """N tokens as bags and numbers: e = RMSNorm(Σ_j E[bag_ids_j] + W_kind · features).

    A PATCH token's numbers are its row of `patches` (uint8, height × width × PATCH_CHANNELS of one
    patch, missing channels zero); its `features` row is zero.
    """

    kinds_N: object  # uint8
    bag_ids_B: object  # int32, rows of the table
    bag_offsets_N1: object  # int32, token i owns bag_ids[offsets[i]:offsets[i + 1]]
    features_NG: object  # float32
    patches_PX: object  # uint8
    patch_tokens_P: object  # int32, the token each patch belongs to, ascending; N of no token


@dataclass
class Labels(_Arrays):
    """One row for every action component that is read from some token.

    `slot` names the component (gate row). The target is class `value` of `classes`; where
    `smooth`, `value` is a fractional bin coordinate in [0, classes - 1] and the target a Gaussian
    of σ = 1 bin around it.

    Rows past `PackedBatch.label_count` fill a fixed capacity: they ask for the only class of one,
    so that their loss and gradient are exactly zero, of an environment after the last.
    """

    tokens_L: object  # int32, ascending
    reads_U: object  # int32, the tokens that labels read, each once, ascending; zeros past the last
    rows_L: object  # int32, ascending: label l reads token reads[rows[l]]
    slots_L: object  # int32
    classes_L: object  # int32
    values_L: object  # float32
    smooth_L: object  # uint8
    environments_L: object  # int32, index into the manifest's environments, for their own losses


@dataclass
class EmbeddingPlan(_Arrays):
    """Which program embeds which tokens, and who sums which gradients, as in
    `ldm.kernels.token_embedding.embedding_plan.EmbeddingPlan`, whose fields these are."""

    tiles_QM: object  # int32
    groups_VI: object  # int32
    tokens_B: object  # int32
    pieces_Q4: object  # int32
    windows_V1: object  # int32
    rows_R2: object  # int32
    window: int
    slots: int


@dataclass
class PackedBatch(_Arrays):
    """`bins` bins of `bin_tokens` tokens, N = bins × bin_tokens, bin after bin.

    Segments never straddle a bin; the unused tail of a bin is PAD tokens in padding segments of
    their own, no longer than the real ones (so that cu_seqlens covers all N and stays ascending).

    Packed to fixed capacities, every array has the same shape in every batch. Then bag entries past
    the last offset belong to no token, patches past the last have token N, and `max_seqlen` is the
    longest that any batch may hold.
    """

    tokens: Tokens
    labels: Labels
    cu_seqlens_S1: object  # int32, starts of the segments, then N up to a fixed length (empty ones)
    positions_N: object  # int32, position within the segment
    bag_order_B: object  # int32, stable order that sorts bag_ids (for the embedding's backward)
    short_tiles_Q4: object  # int32, attention work list of the short segments (ldm.data.work_list)
    long_tiles_Q4: object  # int32, and of the long ones
    max_seqlen: int  # longest segment, or a bound; a host integer
    label_count: int  # labels that are not there to fill a capacity
    used_tokens: int  # tokens that are not PAD
    transitions: int  # environment steps in the batch
    embedding: EmbeddingPlan | None = None  # for GPUs, which make one where there is none
