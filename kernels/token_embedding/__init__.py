"""Tokens to vectors."""

from ldm.kernels.token_embedding.naive import token_embedding

__all__ = ["token_embedding"]
