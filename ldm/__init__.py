"""A large decision model: one transformer that acts in many environments, and its trainer."""

import os

__version__ = "0.1.0"

# Waiting OpenMP threads sleep instead of spinning: docs/decisions/0001-threads-that-sleep.md.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
