"""The token embedding in plain PyTorch: a weighted bag of table rows, a linear map of numbers."""

import torch
import torch.nn.functional as F

from ldm.kernels.rms_norm.plain import rms_norm


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
    table's dtype.

    Token i owns bag_ids[offsets[i] : offsets[i + 1]], which may be empty. Kind k ≥ 1 uses
    features_IGD[k − 1]; kinds 0 and above I use none. Patch bytes become [−1, 1] and are divided by
    √X, so that a patch is as large as its bytes' root mean square.
    """
    # Entries past the last offset, of no token, get a bag of their own.
    offsets = torch.cat([bag_offsets_N1, bag_offsets_N1.new_full((1,), len(bag_ids_B))])
    e_ND = F.embedding_bag(
        bag_ids_B,
        table_RD,
        offsets,
        mode="sum",
        include_last_offset=True,
        per_sample_weights=bag_weights_B.to(table_RD.dtype),
    )[:-1]
    for kind in range(1, features_IGD.shape[0] + 1):
        index = (kinds_N == kind).nonzero().squeeze(1)
        e_ND = e_ND.index_add(0, index, features_NG[index].to(e_ND.dtype) @ features_IGD[kind - 1])
    real = patch_tokens_P < len(e_ND)
    patches_PX, patch_tokens_P = patches_PX[real], patch_tokens_P[real]
    scaled_PX = (patches_PX.to(e_ND.dtype) / 127.5 - 1) * patches_PX.shape[1] ** -0.5
    e_ND = e_ND.index_add(0, patch_tokens_P.long(), scaled_PX @ patch_XD)
    return rms_norm(e_ND, norm_D)
