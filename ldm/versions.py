"""What a result was made with."""

from importlib.metadata import version

import ldm


def versions(*packages: str) -> dict[str, str]:
    """Ours under "ldm" (whatever pip calls it), then those of installed distributions."""
    return {"ldm": ldm.__version__} | {name: version(name) for name in packages}
