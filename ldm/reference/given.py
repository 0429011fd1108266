"""A user's own policies as references: `[reference.policies]`, environment → where it comes from.

    "acme/Lock" = "sb3:lock.zip"          what stable-baselines3 saved (sb3_zip.py): no code in it
                                          runs
    "acme/Lock" = "acme.policies:largest" a function from one observation to one action, both as
                                          the environment has them; or a class, of which every
                                          episode gets an instance that is called step by step
    "acme/Lock" = "data"                  none: what recorded data earned (recorded.py)

A function is code of the user's: that its name stands in the recipe says that it is trusted. It is
keyed by its source; a zip's weights are copied into the run.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ldm.data.atomic import replacing
from ldm.data.sealed import checksum, read_sealed, write_sealed
from ldm.envs import own, source, spaces
from ldm.envs.installed import require_module
from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.errors import LdmError, machine_error
from ldm.reference import sb3_zip

SCHEMA = 1
SB3, DATA = "sb3:", "data"
FACTS, WEIGHTS = "policy.json", "policy.safetensors"  # beside the card


def digest(policy: str) -> str:
    """SHA-256 of what a policy is made of; empty of none, and of data. Raises LdmError where it is
    not there, cannot be read, or is none of the three."""
    if policy in ("", DATA):
        return ""
    if policy.startswith(SB3):
        path = Path(policy.removeprefix(SB3))
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LdmError(
                f'reference.policies: "{policy}": {error.strerror}; expected a zip that '
                "stable-baselines3 saved, found from the recipe"
            ) from None
    module, _, _ = _parts(policy)
    top = module.partition(".")[0]
    return source.of_modules((top,)) or checksum([policy, own.versions_of(top)])


def _parts(policy: str) -> tuple[str, str, str]:
    module, colon, name = policy.partition(":")
    if not (colon and name.isidentifier() and all(p.isidentifier() for p in module.split("."))):
        raise LdmError(
            f'reference.policies: "{policy}": expected "sb3:file.zip", "my.module:function" or '
            f'"{DATA}"'
        )
    return module, colon, name


def function(policy: str) -> Any:
    """What "my.module:function" names. Raises LdmError where it is not there, whatever importing it
    raises; MachineError where a package lacks."""
    module, _, name = _parts(policy)
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        if machine := machine_error(error):
            raise machine from error
        raise LdmError(
            f'reference.policies: "{policy}" raised {type(error).__name__}: {error}'
        ) from error
    if not callable(found):
        raise LdmError(f'reference.policies: "{policy}" is {type(found).__name__}, not callable')
    return found


def require(policy: str) -> None:
    """Raises LdmError for what cannot be a reference, before anything runs."""
    digest(policy)
    if policy.startswith(SB3):
        sb3_zip.read(Path(policy.removeprefix(SB3)))
        require_module("stable_baselines3")  # whose own network it becomes
    elif policy not in ("", DATA):
        function(policy)


class FunctionActor:
    """Calls a user's function, or one instance an episode of a user's class, stream by stream."""

    def __init__(self, id: str, made: Callable, observation: spaces.Tree, action: spaces.Tree):
        self.id, self._made = id, made
        self.memoryless = inspect.isfunction(made)
        self._observation, self._action = observation, action
        self._players: list[Callable] = []

    def act(self, timestep: TimeStep) -> Arrays:
        if len(self._players) != len(timestep.started):
            self._players = [self._player() for _ in timestep.started]
        rows = []
        for i, started in enumerate(timestep.started):
            if started:
                self._players[i] = self._player()
            seen = spaces.unflatten(self._observation, [part[i] for part in timestep.observation])
            rows.append(spaces.flatten(self._action, self._players[i](seen)))
        return [np.stack(leaf) for leaf in zip(*rows)]

    def _player(self) -> Any:
        return self._made() if inspect.isclass(self._made) else self._made


def keep(
    policy: str, home: Path, observation: spaces.Tree, action: spaces.Tree
) -> tuple[Actor, dict]:
    """The policy in an environment of these spaces, and what its card says; `home` gets what makes
    it act again. Raises LdmError."""
    hashed = digest(policy)
    home.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "observation": spaces.to_json(observation),
        "action": spaces.to_json(action),
    }
    if policy.startswith(SB3):
        path = Path(policy.removeprefix(SB3))
        facts["id"] = f"{SB3}{path.name}@{hashed[:12]}"
        saved = sb3_zip.read(path)
        with replacing(home / WEIGHTS) as temporary:
            save_file(saved.tensors, temporary)
        facts |= {"sb3": saved.options, "weights": _sha256(home / WEIGHTS)}
    else:
        facts |= {"id": f"{policy}@{hashed[:12]}", "function": policy, "sha256": hashed}
    write_sealed(home / FACTS, facts)
    said = {"id": facts["id"], "kind": "given", "hosted": None, "sha256": hashed}
    return load(home), said


def load(home: Path) -> Actor:
    """The policy that `keep` left. Raises LdmError where a file of it was changed or lost, or the
    function's source was."""
    again = f'delete {home} and run "ldm reference" again'
    facts = read_sealed(home / FACTS, SCHEMA, again)
    trees = [spaces.from_json(facts[role]) for role in ("observation", "action")]
    if "function" in facts:
        if digest(facts["function"]) != facts["sha256"]:
            raise LdmError(f"{facts['function']} has changed since its card was made; {again}")
        return FunctionActor(facts["id"], function(facts["function"]), *trees)
    path = home / WEIGHTS
    try:
        if _sha256(path) != facts["weights"]:
            raise LdmError(f"{path} is not the file that its card was made with; {again}")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LdmError(f"{path}: {error}; {again}") from None
    return sb3_zip.build(facts["id"], sb3_zip.Saved(tensors, facts["sb3"]), *trees)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
