"""A model's folder, read and checked at the door: what it is like, its weights, what it knows."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ldm.config import TokenConfig, build
from ldm.data import facts
from ldm.data.batch import PATCH_CHANNELS
from ldm.data.door import read_json, require
from ldm.data.entry import check_spaces
from ldm.data.manifest import MANIFEST_BYTES
from ldm.data.sealed import read_sealed
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.presets import Architecture

WEIGHTS, CONFIG, ENVIRONMENTS = "model.safetensors", "config.json", "environments.json"
SCHEMA = 2  # of state.json
STATE = "state.json"  # of the training run, sealed; a model that was given away may lack it
FILES = (WEIGHTS, CONFIG, ENVIRONMENTS, STATE)
OTHER = "take another checkpoint"
POSITIVE = ("rows", "patch", "image_patches", "context", "action_bins")


def read_state(folder: Path) -> dict:
    """state.json, {} where there is none. Raises LdmError where it was changed, or a file beside it
    is not the one it names."""
    path = folder / STATE
    if not path.exists():
        return {}
    state = read_sealed(path, SCHEMA, OTHER)
    files = (WEIGHTS, CONFIG, ENVIRONMENTS)
    form = {"step": int, "files": dict.fromkeys(files, str)}
    try:
        require(state, form, STATE)
    except ValueError as error:
        raise LdmError(f"{path}: {error}; {OTHER}") from None
    for name in files:
        if sha256(folder / name) != state["files"][name]:
            raise LdmError(f"{folder / name} has another SHA-256 than {STATE} says; {OTHER}")
    return state


def read_config(folder: Path) -> tuple[Architecture, TokenConfig]:
    """What a model in `folder` is like. Raises LdmError where its config.json is broken."""
    path = folder / CONFIG
    config = _read_json(path)
    try:
        require(config, {"architecture": dict, "tokens": dict}, CONFIG)
        architecture = build(Architecture, config["architecture"], str(path))
        tokens = build(TokenConfig, config["tokens"], str(path))
        for name in POSITIVE:
            require(getattr(tokens, name), lambda n: n > 0, f"tokens.{name}")
        if tokens.rows > architecture.rows or tokens.action_bins > architecture.classes:
            raise ValueError("tokens have more rows or classes than the architecture")
        if tokens.patch**2 * PATCH_CHANNELS != architecture.patch_bytes:
            raise ValueError("patches are of another size than the architecture's")
    except ValueError as error:
        raise LdmError(f"{path}: {error}; {OTHER}") from None
    except LdmError as error:
        raise LdmError(f"{path}: {error}") from None
    return architecture, tokens


def read_environments(path: Path, owners: int) -> dict[str, dict]:
    """Entries by id. Raises LdmError where one is malformed, or its owner is none of the head's
    `owners` rows."""
    entries = _read_json(path)
    try:
        require(entries, [dict], ENVIRONMENTS)
        for number, entry in enumerate(entries):
            check_spaces(entry, f"[{number}]")
    except ValueError as error:
        raise LdmError(f"{path}: {error}; {OTHER}") from None
    for entry in entries:
        if (owner := facts.of(entry)["owner"]) >= owners:
            raise LdmError(
                f"{path}: facts.owner of {entry['id']} is {owner}, expected below {owners}, the "
                f"rows of the head; {OTHER}"
            )
    return {entry["id"]: entry for entry in entries}


def digest(folder: str | Path) -> str:
    """SHA-256 of a checkpoint's weights. Raises LdmError where there are none."""
    return sha256(Path(folder) / WEIGHTS)


def sha256(path: Path) -> str:
    """Of a file of a model. Raises LdmError where it is missing."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise LdmError(f"{path} cannot be read ({error.strerror}); {OTHER}") from error


def _read_json(path: Path):
    if not path.exists():
        raise _missing(path)
    return read_json(path, OTHER, MANIFEST_BYTES)


def _missing(path: Path) -> LdmError:
    return LdmError(
        f"no model in {path.parent}: {path.name} is missing; expected a folder with {WEIGHTS}, "
        f'{CONFIG} and {ENVIRONMENTS}, as "ldm train" leaves in runs/<recipe>/train/model'
    )


def read_weights(architecture: Architecture, path: Path) -> Decoder:
    """The model whose weights a file holds, in fp32 whatever the file's precision. Raises LdmError
    where it is not whole, or of another architecture."""
    try:
        weights = load_file(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except (SafetensorError, OSError) as error:
        raise LdmError(f"{path} is not a whole safetensors file ({error})") from error
    with torch.device("meta"):
        model = Decoder(architecture)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    if wrong:
        name = wrong[0]
        raise LdmError(
            f"{path} is of another architecture than {CONFIG} beside it: {name} is "
            f"{found.get(name, 'absent')}, expected {expected.get(name, 'absent')} "
            f"({len(wrong)} tensors differ); take both files from one checkpoint"
        )
    if kinds := sorted({str(w.dtype) for w in weights.values() if not w.dtype.is_floating_point}):
        raise LdmError(f"{path} holds tensors of {', '.join(kinds)}, expected floating point")
    model.load_state_dict({name: w.float() for name, w in weights.items()}, assign=True)
    return model
