"""Packages whose own __init__ imports more than their environments need (learners, pictures)."""

import importlib.util
import sys
import types


def bare(name: str) -> None:
    """Lets `import name.module` work without running name/__init__.py: an empty package stands in
    for it. Raises ImportError where it is not installed."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"no package {name}")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package
