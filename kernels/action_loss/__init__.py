"""The action head's logits and loss."""

from ldm.kernels.action_loss.naive import action_logits, action_loss

__all__ = ["action_logits", "action_loss"]
