from ldm.policy.policy import Policy, digest

__all__ = ["Policy", "digest"]
