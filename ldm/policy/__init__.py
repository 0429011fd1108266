from ldm.policy.policy import Policy, digest, load

__all__ = ["Policy", "digest", "load"]
