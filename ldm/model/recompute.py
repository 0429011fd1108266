"""What a block keeps for its backward pass, and what it computes again there.

"none": keeps all. "selective": keeps matrix products and attention, which are the time, and
computes norms, rotations and activations again. "full": keeps the block's input alone, for about a
third more time (Chen et al., arXiv 1604.06174).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default}


def kept(recompute: str, block: Callable, *inputs):
    """block(*inputs), its backward as `recompute` says."""
    if recompute == "none" or not torch.is_grad_enabled():
        return block(*inputs)
    options: dict[str, Any] = {"use_reentrant": False}
    if recompute == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(block, *inputs, preserve_rng_state=False, **options)  # nothing is random


def _policy(context, operation, *args, **kwargs) -> CheckpointPolicy:
    keep = operation in PRODUCTS or "attention" in str(operation)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
