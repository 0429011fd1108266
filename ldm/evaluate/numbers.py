"""Figures as people read them, on the page and on the terminal."""

from collections.abc import Sequence


def number(value: float) -> str:
    """A return in at most five characters or so: 4 digits, no exponent below a million."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def span(ci: Sequence[float] | None, digits: int = 2) -> str:
    """An interval in words, empty where so few episodes have none."""
    if ci is None:
        return "no interval"
    return f"{ci[0]:.{digits}f} to {ci[1]:.{digits}f}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
