"""The token embedding: the definition, one token at a time."""

import torch

from ldm.kernels.rms_norm.reference import rms_norm


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
) -> torch.Tensor:
    """e_ND = RMSNorm(Σ_j weight_j · table[bag_ids_j] + features · W_kind + patch · W_patch), in the
    table's dtype."""
    patch_of = dict(zip(patch_tokens_P.tolist(), patches_PX.double()))
    rows = []
    for i, kind in enumerate(kinds_N.tolist()):
        e_D = torch.zeros_like(norm_D)
        for j in range(bag_offsets_N1[i], bag_offsets_N1[i + 1]):
            e_D = e_D + bag_weights_B[j].to(e_D.dtype) * table_RD[bag_ids_B[j]]
        if 1 <= kind <= len(features_IGD):
            e_D = e_D + features_NG[i].to(e_D.dtype) @ features_IGD[kind - 1]
        if i in patch_of:
            scaled_X = (2 * patch_of[i] / 255 - 1) / len(patch_XD) ** 0.5
            e_D = e_D + scaled_X.to(e_D.dtype) @ patch_XD
        rows.append(rms_norm(e_D, norm_D))
    # Every weight has a gradient, even where there is no patch or no bag.
    return torch.stack(rows) + 0 * (patch_XD.sum() + table_RD.sum() + features_IGD.sum())
