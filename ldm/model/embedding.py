"""Tokens to vectors: the hashed table, the maps of numbers and of image patches."""

import torch
from torch import nn

from ldm.data.batch import FEATURES, OBSERVATION, EmbeddingPlan, Tokens
from ldm.kernels.token_embedding import token_embedding
from ldm.model.presets import Architecture

KINDS = 2  # OBSERVATION and ACTION tokens carry numbers, and are the first kinds after PAD
assert OBSERVATION == 1

# The norm that follows makes only the sizes relative to each other matter: beside the map that all
# numbers share, what an environment owns begins as next to nothing.
TABLE_STD = 0.005
FEATURE_STD = 0.2


class TokenEmbedding(nn.Module):
    def __init__(self, architecture: Architecture):
        super().__init__()
        width = architecture.width
        self.table = nn.Parameter(torch.randn(architecture.rows, width) * TABLE_STD)
        self.features = nn.Parameter(torch.randn(KINDS, FEATURES, width) * FEATURE_STD)
        self.patch = nn.Parameter(torch.randn(architecture.patch_bytes, width) * 2 * FEATURE_STD)
        self.norm = nn.Parameter(torch.ones(width))

    def forward(
        self,
        tokens: Tokens[torch.Tensor],
        bag_order_B: torch.Tensor | None = None,
        plan: EmbeddingPlan[torch.Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """e_ND in `dtype`, by default the table's. bag_order and plan: see PackedBatch."""
        return token_embedding(
            self.table,
            self.features,
            self.patch,
            self.norm,
            tokens.kinds_N,
            tokens.bag_ids_B,
            tokens.bag_weights_B,
            tokens.bag_offsets_N1,
            tokens.features_NG,
            tokens.patches_PX,
            tokens.patch_tokens_P,
            bag_order_B,
            plan,
            dtype,
        )
