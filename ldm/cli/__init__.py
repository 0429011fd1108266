"""The command line."""

from ldm.cli.command import dispatch, main

__all__ = ["dispatch", "main"]
