from ldm.policy.folder import digest
from ldm.policy.policy import Policy, load

__all__ = ["Policy", "digest", "load"]
