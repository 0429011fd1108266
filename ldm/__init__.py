"""A large decision model: one transformer that acts in many environments, and the trainer that makes it."""

__version__ = "0.1.0"
