"""Tokens to vectors."""

import torch

from ldm.kernels.dispatch import choose
from ldm.kernels.token_embedding import cpu, plain


def token_embedding(
    table_RD: torch.Tensor,
    features_IGD: torch.Tensor,
    patch_XD: torch.Tensor,
    norm_D: torch.Tensor,
    kinds_N: torch.Tensor,
    bag_ids_B: torch.Tensor,
    bag_weights_B: torch.Tensor,
    bag_offsets_N1: torch.Tensor,
    features_NG: torch.Tensor,
    patches_PX: torch.Tensor,
    patch_tokens_P: torch.Tensor,
    bag_order_B: torch.Tensor | None = None,
    plan=None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """e_ND = RMSNorm(Σ_j weight_j · table[bag_ids_j] + features · W_kind + patch · W_patch).

    Token i owns entries offsets[i] up to offsets[i + 1] of bag_ids and of their weights, perhaps
    none. Kind k ≥ 1 uses features_IGD[k − 1]; kinds 0 and above I use none. patch_tokens: exactly
    the tokens of kind I + 1, ascending. Patch bytes become [−1, 1] and are divided by √X, so that a
    patch is as large as its bytes' root mean square. bag_order: the stable order that sorts
    bag_ids, for CPUs; plan: the `EmbeddingPlan` of this batch, for GPUs; each is made where it is
    needed and not given. dtype: of the result, the table's unless given. Every weight gets a
    gradient, even the patch map of a batch without patches: ranks must reduce the same set of
    gradients.
    """
    weights = (table_RD, features_IGD, patch_XD, norm_D)
    bags = (kinds_N, bag_ids_B, bag_weights_B, bag_offsets_N1)
    numbers = (features_NG, patches_PX, patch_tokens_P)
    version = choose(table_RD.device, table_RD.dtype)
    if version == "fused":
        from ldm.kernels.token_embedding import fused

        return fused.token_embedding(*weights, *bags, *numbers, plan, dtype)
    if version == "cpu":
        e_ND = cpu.token_embedding(*weights, *bags, *numbers, bag_order_B, dtype)
    else:
        e_ND = plain.token_embedding(*weights, *bags, *numbers)
    return e_ND if dtype is None else e_ND.to(dtype)


__all__ = ["token_embedding"]
