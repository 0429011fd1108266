"""A large decision model: one transformer that acts in many environments, and its trainer.

    load, Policy            a trained model, and what it can do
    make, EnvSpec, TimeStep any environment of the catalogue behind one vector interface
    Recipe, load_recipe     every setting of a run
    Decoder                 the model, a torch module
    Loader, PackedBatch     what it is trained on
    LdmError                what a user can mend

Names are loaded when they are first used: `import ldm` loads neither torch nor a simulator.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ldm.config import Recipe, load_recipe
    from ldm.data.batch import PackedBatch
    from ldm.data.loader import Loader
    from ldm.envs.interface import TimeStep
    from ldm.envs.make import make
    from ldm.envs.spec import EnvSpec
    from ldm.errors import LdmError
    from ldm.model.decoder import Decoder
    from ldm.policy.policy import Policy, load

__version__ = "0.1.0"

# Waiting OpenMP threads sleep instead of spinning: docs/decisions/0001-threads-that-sleep.md.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "Decoder": "ldm.model.decoder",
    "EnvSpec": "ldm.envs.spec",
    "LdmError": "ldm.errors",
    "Loader": "ldm.data.loader",
    "PackedBatch": "ldm.data.batch",
    "Policy": "ldm.policy.policy",
    "Recipe": "ldm.config",
    "TimeStep": "ldm.envs.interface",
    "load": "ldm.policy.policy",
    "load_recipe": "ldm.config",
    "make": "ldm.envs.make",
}

__all__ = [
    "Decoder",
    "EnvSpec",
    "LdmError",
    "Loader",
    "PackedBatch",
    "Policy",
    "Recipe",
    "TimeStep",
    "load",
    "load_recipe",
    "make",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
