"""What a manifest says of an environment, checked: fields, spaces, statistics, shards."""

import math
from pathlib import PurePosixPath

import numpy as np

from ldm.config import MixConfig, TokenConfig, build
from ldm.data.door import COUNTS, require
from ldm.data.facts import DECODE
from ldm.data.levels import MOST
from ldm.data.statistics import LEVELS
from ldm.envs import spaces
from ldm.recipe_check import check_numbers

LARGEST = 1 << 32  # values of one leaf at most


def _sha256(value) -> bool:
    """a SHA-256 in 64 hexadecimal digits"""
    return type(value) is str and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _inside(value) -> bool:
    """a path inside the folder"""
    path = PurePosixPath(value if type(value) is str else "/")
    return (
        not path.is_absolute() and ".." not in path.parts and bool(path.name) and "\0" not in value
    )


def _some(value) -> bool:
    """a count from 1 below 2^63"""
    return type(value) is int and 0 < value < COUNTS


FILE = {"name": _inside, "sha256": _sha256, "bytes": int}
SHARD = FILE | {"transitions": int, "episodes": int}
ENTRY = {
    **dict.fromkeys(("id", "domain", "base_task", "licence", "policy"), str),
    **dict.fromkeys(("hidden_state_spans_episodes", "held_out"), bool),
    **dict.fromkeys(("transitions", "episodes"), int),
    "versions": dict,
    "card": (dict, None),
    "observation": dict,
    "action": dict,
    "statistics": {"observation": list, "action": list, "reward": dict},
    "shards": [SHARD],
}
MIXED = FILE | {"index_sha256": _sha256}
MIXED |= dict.fromkeys(("tokens", "transitions", "largest"), int)
MIXED |= dict.fromkeys(("segments", "blocks", "shortest"), _some)
MIX = {
    "settings": {"seed": int, "tokens": dict, "mix": dict},
    "streams": [[MIXED]],
    "shortest": _some,
}
NUMBERS = ("mean", "std", "min", "max")


def check_settings(found: dict) -> None:
    """Raises LdmError where what a mix was made with is nothing that a recipe may ask for."""
    tokens = build(TokenConfig, found["tokens"], "settings.tokens")
    mix = build(MixConfig, found["mix"], "settings.mix")
    numbers = {f"tokens.{name}": value for name, value in vars(tokens).items()}
    numbers |= {f"mix.{name}": value for name, value in vars(mix).items()}
    check_numbers({"seed": found["seed"], **numbers}, "settings")


def check_entry(entry, where: str) -> None:
    """Raises ValueError naming the field that is not what an entry has."""
    require(entry, ENTRY, where)
    check_spaces(entry, where)


def check_spaces(entry, where: str) -> None:
    """Raises ValueError where the spaces of an entry, or what its statistics say of their leaves,
    are not what an entry has: all that a codec is made from."""
    known = {"observation": list, "action": list, "reward": dict}
    require(entry, {"id": str, "observation": dict, "action": dict, "statistics": known}, where)
    for role in ("observation", "action"):
        try:
            leaves = spaces.leaves(spaces.from_json(entry[role]))
            for leaf in leaves:
                check_leaf(leaf)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"{where}.{role}: {error}") from None
        known = entry["statistics"][role]
        if len(known) != len(leaves):
            raise ValueError(f"{where}.statistics.{role}: expected {len(leaves)} leaves")
        for i, (leaf, values) in enumerate(zip(leaves, known)):
            if leaf.kind == spaces.CONTINUOUS:
                _check_numbers(values, leaf.size, f"{where}.statistics.{role}[{i}]")
    if "memoryless" in entry:
        require(entry["memoryless"], bool, f"{where}.memoryless")
    if "facts" in entry:
        _check_facts(entry, where)
    reward = dict.fromkeys(("std", "min", "max"), float)
    require(entry["statistics"]["reward"], reward, f"{where}.statistics.reward")


def _check_facts(entry: dict, where: str) -> None:
    """Raises ValueError where what was decided does not fit the spaces."""
    known, where = entry["facts"], f"{where}.facts"
    form = {
        "low": [float],
        "high": [float],
        "boards": [int],
        "levels": [([float], None)],
        "owner": int,
        "decode": [DECODE],
        "fidelity": [dict],
    }
    if "own_actions" in known:
        form["own_actions"] = bool
    require(known, form, where)
    observation, action = (
        spaces.leaves(spaces.from_json(entry[role])) for role in ("observation", "action")
    )
    numbers = sum(leaf.size for leaf in action if leaf.kind == spaces.CONTINUOUS)
    sizes = {"low": numbers, "high": numbers, "decode": sum(leaf.size for leaf in action)}
    for name, size in sizes.items():
        if len(known[name]) != size:
            raise ValueError(f"{where}.{name}: expected {size}, got {len(known[name])}")
    if any(low >= high for low, high in zip(known["low"], known["high"])):
        raise ValueError(f"{where}.low: expected numbers below those of high")
    seen = sum(leaf.size for leaf in observation if leaf.kind == spaces.CONTINUOUS)
    if known["levels"] and len(known["levels"]) != seen:
        raise ValueError(f"{where}.levels: expected {seen} or none, got {len(known['levels'])}")
    for c, values in enumerate(known["levels"]):
        if values is not None and not 0 < len(set(values)) == len(values) <= MOST:
            raise ValueError(f"{where}.levels[{c}]: expected 1 to {MOST} different values")
    images = [i for i, leaf in enumerate(observation) if leaf.kind == spaces.IMAGE]
    if not set(known["boards"]) <= set(images):
        raise ValueError(f"{where}.boards: expected some of the images {images}")


def _check_numbers(values, size: int, where: str) -> None:
    require(values, dict.fromkeys(NUMBERS, list), where)
    named = {name: values[name] for name in NUMBERS}
    if "quantiles" in values:
        require(values["quantiles"], [list], f"{where}.quantiles")
        if len(values["quantiles"]) != len(LEVELS):
            raise ValueError(f"{where}.quantiles: expected {len(LEVELS)} rows")
        named |= {f"quantiles[{i}]": row for i, row in enumerate(values["quantiles"])}
    for name, numbers in named.items():
        array = np.asarray(numbers)
        if array.shape != (size,) or (size and array.dtype.kind not in "fi"):
            raise ValueError(f"{where}.{name}: expected {size} numbers")
        if not np.isfinite(array.astype(np.float64)).all():
            raise ValueError(f"{where}.{name}: expected finite numbers")


def check_leaf(leaf: spaces.Leaf) -> None:
    """Raises ValueError where a leaf contradicts itself."""
    texts = (leaf.path, leaf.source, leaf.source_dtype)
    if not all(type(text) is str for text in texts) or type(leaf.channels_first) is not bool:
        raise ValueError("a leaf's path, source and source_dtype are texts")
    if type(leaf.wide) is not bool or leaf.wide > (leaf.kind == spaces.CONTINUOUS):
        raise ValueError(f'"{leaf.path}": wide is for numbers, true or false')
    if leaf.kind != spaces.TEXT:
        np.dtype(leaf.source_dtype)
    require(list(leaf.shape), [int], f'"{leaf.path}": shape')
    if (size := math.prod(leaf.shape)) > LARGEST:
        raise ValueError(f'"{leaf.path}": {size} values are too many')
    fields = {
        spaces.CONTINUOUS: ("low", "high"),
        spaces.DISCRETE: ("counts", "start"),
        spaces.IMAGE: (),
        spaces.TEXT: (),
    }[leaf.kind]
    for name in fields:
        if len(getattr(leaf, name)) != size:
            raise ValueError(
                f'"{leaf.path}": {name} has {len(getattr(leaf, name))} of {size} values'
            )
    if leaf.kind == spaces.DISCRETE:
        require(list(leaf.counts), [lambda n: type(n) is int and 0 < n <= 2**32], "counts")
        require(list(leaf.start), [lambda n: type(n) is int and abs(n) <= 2**31], "start")
    if leaf.letters:
        require(list(leaf.letters), [lambda x: type(x) is str and len(x) == 1], "letters")
        if leaf.kind != spaces.DISCRETE or leaf.range[1].max(initial=0) > len(leaf.letters):
            raise ValueError(f'"{leaf.path}": its values are no numbers of its letters')
    if leaf.kind == spaces.CONTINUOUS and np.isnan([leaf.low, leaf.high]).any():
        raise ValueError(f'"{leaf.path}": a bound is NaN')
    if leaf.kind == spaces.IMAGE and (len(leaf.shape) != 3 or not size):
        raise ValueError(f'"{leaf.path}": an image has height, width and channels')
    if leaf.kind == spaces.TEXT and len(leaf.shape) != 1:
        raise ValueError(f'"{leaf.path}": a text has one dimension')
