"""The errors a user can mend, and the nearest right name for a wrong one."""

import difflib
from collections.abc import Iterable

DISTRIBUTION = "large-decision-model"  # what pip knows us by; pyproject.toml says the same


class LdmError(Exception):
    """Bad input from outside: says what was expected, what came, where, and what to do next."""


def install(extra: str) -> str:
    """The command that installs what `extra` holds."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def nearest(name: str, known: Iterable[str]) -> str:
    """`' (nearest: "x")'` for the known name closest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f' (nearest: "{matches[0]}")' if matches else ""
