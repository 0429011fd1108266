"""Every supported space as a flat list of leaves, each one array of a fixed shape and dtype.

Standard library and numpy only, and spaces are recognised by class name: this file also runs inside
the workers of foreign interpreters, where the library may be an old `gym`.

    describe(space)          a gym or gymnasium space  → Tree
    leaves(tree)             Tree                      → (Leaf, ...), in order
    flatten(tree, value)     one sample                → [array, ...], one a leaf
    unflatten(tree, arrays)  [array, ...]              → a sample the environment accepts
    override(tree, rules)    Tree with leaves that the library declares too wide → Tree
    to_json / from_json      Tree ↔ plain JSON, for manifests and workers

What flatten and unflatten return is new: it shares no memory with what they were given, so that an
environment may keep an action, and a caller may write over one. legal.py says what a leaf may hold.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

CONTINUOUS, DISCRETE, IMAGE, TEXT = "continuous", "discrete", "image", "text"
EXACT = "float64"  # a rule of `override`
DTYPES: dict[str, np.dtype] = {
    CONTINUOUS: np.dtype(np.float32),
    DISCRETE: np.dtype(np.int32),
    IMAGE: np.dtype(np.uint8),
    TEXT: np.dtype(np.uint8),
}

INT32 = (-(2**31), 2**31 - 1)

# An integer Box with at most this many values a component is symbols, not numbers.
MAX_SYMBOLS = 256
# A uint8 Box with both sides at least this long is an image, smaller ones are symbols.
MIN_IMAGE_SIDE = 16
MAX_TEXT_BYTES = 512
# A uint8 Box of that size with at most so many values a cell is a board, as long as its cells are
# few enough for as many tokens as an image has: symbols, which no resampling may blend.
MAX_BOARD_VALUES, MAX_BOARD_CELLS = 16, 6912
# A bound from here on (libraries write the largest float) is none.
UNBOUNDED = 1e30
# Whole numbers from here on lose digits in float32.
FLOAT32_EXACT = 2.0**24


class UnsupportedSpace(ValueError):
    """A space with no flat form of fixed size (padding.py has one for Graph, Sequence, OneOf)."""


@dataclass(frozen=True)
class Leaf:
    """One array of a flattened sample.

    `kind` is "continuous" (float32, or float64 where `wide`; bounds `low`, `high`, each one number
    a component, may be infinite), "discrete" (int32, component c holds `start[c] .. start[c] +
    counts[c] - 1`; 0 ends a text of `letters`), "image" (uint8, height × width × channels) or
    "text" (uint8, UTF-8 padded with zeros).
    `box` tells apart what `unflatten` must return: an int for Discrete, an array otherwise.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    source: str  # class name of the space
    source_dtype: str = "float32"  # what the environment's own arrays hold
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    channels_first: bool = False
    wide: bool = field(default=False, repr=False)  # numbers too large for float32: float64
    letters: tuple[str, ...] = field(default=(), repr=False)  # of a text that is symbols: 1, 2, …

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64) if self.wide else DTYPES[self.kind]

    @cached_property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest symbol of every component, int32 (size,) each."""
        start = np.asarray(self.start, np.int64)
        highest = start + np.asarray(self.counts, np.int64) - 1
        return start.clip(*INT32).astype(np.int32), highest.clip(*INT32).astype(np.int32)

    @cached_property
    def common_range(self) -> tuple[int, int] | None:
        """Lowest and highest symbol, where they are the same for every component."""
        low, high = self.range
        alike = len(low) and (low == low[0]).all() and (high == high[0]).all()
        return (int(low[0]), int(high[0])) if alike else None

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`low` and `high` of a continuous leaf as arrays of its shape and dtype; what lies between
        two numbers of the dtype is rounded inwards, so that a clipped action is legal."""
        low, high = np.asarray([self.low, self.high])
        (a, b), inf = np.asarray([low, high], self.dtype), self.dtype.type(np.inf)
        a, b = (
            np.where(a < low, np.nextafter(a, inf), a),
            np.where(b > high, np.nextafter(b, -inf), b),
        )
        return a.reshape(self.shape), b.reshape(self.shape)

    @cached_property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @cached_property
    def whole(self) -> bool:
        """Whether its numbers are the environment's integers: a Box of more than MAX_SYMBOLS."""
        return self.kind == CONTINUOUS and np.dtype(self.source_dtype).kind in "iu"


Tree = Leaf | dict[str, "Tree"] | list["Tree"]


def describe(space, path: str = "") -> Tree:
    """The tree of a gym or gymnasium space. Raises `UnsupportedSpace`.

    A leaf's path is a JSON pointer (RFC 6901) without the first "/": "~" and "/" in a key are "~0"
    and "~1", so that the key "a/b" and the key "b" in "a" stay two. An empty key is "~"."""
    names = [cls.__name__ for cls in type(space).__mro__]
    join = f"{path}/" if path else ""
    if "Dict" in names:
        escaped = lambda key: str(key).replace("~", "~0").replace("/", "~1") or "~"
        return {key: describe(sub, f"{join}{escaped(key)}") for key, sub in space.spaces.items()}
    if "Tuple" in names:
        return [describe(sub, f"{join}{i}") for i, sub in enumerate(space.spaces)]
    if "MultiBinary" in names:
        shape = tuple(int(n) for n in np.atleast_1d(space.n))
        return symbols(path, shape, 2, 0, "MultiBinary", str(space.dtype or "int8"))
    if "MultiDiscrete" in names:
        counts = np.asarray(space.nvec, dtype=np.int64)
        start = np.asarray(getattr(space, "start", np.zeros_like(counts)), dtype=np.int64)
        return symbols(path, counts.shape, counts, start, "MultiDiscrete", str(space.dtype))
    if "Discrete" in names:
        return symbols(path, (), int(space.n), int(getattr(space, "start", 0)), "Discrete", "int64")
    if "Text" in names or "MissionSpace" in names:
        size = min(int(getattr(space, "max_length", MAX_TEXT_BYTES)) * 4, MAX_TEXT_BYTES)
        return Leaf(path, TEXT, (size,), "Text", "str")
    if "Letters" in names:  # of padding.py
        count, rest = len(space.letters), np.arange(space.size) >= space.least
        leaf = symbols(path, (space.size,), count + rest, 1 - rest, "Text", "str")
        return replace(leaf, letters=space.letters)
    if "Box" in names:
        return _describe_box(space, path)
    where = f' at "{path}"' if path else ""
    raise UnsupportedSpace(
        f"space {type(space).__name__}{where} has no flat form of fixed size; supported are Box, "
        "Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple, and padded ones of Sequence, "
        "Graph and OneOf: wrap the environment in an adapter that turns it into one of these"
    )


def symbols(path, shape, counts, start=0, source="MultiDiscrete", source_dtype="int64") -> Leaf:
    """A discrete leaf; `counts` and `start` are broadcast to `shape`."""
    counts = np.broadcast_to(np.asarray(counts, np.int64), shape).reshape(-1).tolist()
    start = np.broadcast_to(np.asarray(start, np.int64), shape).reshape(-1).tolist()
    shape = tuple(int(n) for n in shape)
    return Leaf(
        path, DISCRETE, shape, source, source_dtype, counts=tuple(counts), start=tuple(start)
    )


def numbers(path, shape, low=-np.inf, high=np.inf, source_dtype="float32") -> Leaf:
    """A continuous leaf; `low` and `high` are broadcast to `shape`."""
    bounds = np.stack([np.broadcast_to(np.asarray(b, np.float64), shape) for b in (low, high)])
    bounds[np.abs(bounds) >= UNBOUNDED] *= np.inf
    low, high = bounds.reshape(2, -1).tolist()
    shape = tuple(int(n) for n in shape)
    leaf = Leaf(path, CONTINUOUS, shape, "Box", source_dtype, low=tuple(low), high=tuple(high))
    return replace(leaf, wide=_may_be_large(bounds, source_dtype))


def _may_be_large(bounds: np.ndarray, source_dtype: str) -> bool:
    """Whether float32 would take digits from a space of float64 or integers: it says that numbers
    may be large (bounds (2, *shape)), or bounds them on one side alone, as clocks, counts and
    prices are. One without any bound says nothing: rule "float64" is for those."""
    if not finer(source_dtype):
        return False
    finite = np.isfinite(bounds)
    large = np.abs(np.where(finite, bounds, 0)) >= FLOAT32_EXACT
    return bool(large.any() or (finite[0] != finite[1]).any())


def finer(source_dtype: str) -> bool:
    """Whether the environment's own arrays have more digits than float32."""
    dtype = np.dtype(source_dtype)
    return dtype.kind in "iuf" and dtype.itemsize > (4 if dtype.kind == "f" else 2)


def _describe_box(space, path: str) -> Leaf:
    dtype, shape = np.dtype(space.dtype), tuple(int(n) for n in space.shape)
    if dtype == np.uint8 and sum(n >= MIN_IMAGE_SIDE for n in shape) >= 2 and len(shape) > 3:
        raise UnsupportedSpace(
            f'space Box{shape} at "{path}" looks like stacked images: join the frames along the '
            "channels in an adapter, (frames, height, width, channels) to (height, width, frames × "
            "channels)"
        )
    if dtype == np.uint8 and len(shape) in (2, 3):
        least = np.asarray(space.low, np.int64)
        values = np.asarray(space.high, np.int64) - least + 1
        if values.size <= MAX_BOARD_CELLS and values.max(initial=0) <= MAX_BOARD_VALUES:
            return symbols(path, shape, values, least, "Box", "uint8")
        last, first = shape[:2], shape[-2:]
        if min(last) >= MIN_IMAGE_SIDE and (len(shape) == 2 or shape[2] <= 16):
            height, width, channels = (*shape, 1)[:3]
            return Leaf(path, IMAGE, (height, width, channels), "Box", "uint8")
        if min(first) >= MIN_IMAGE_SIDE:
            return Leaf(path, IMAGE, (*first, shape[0]), "Box", "uint8", channels_first=True)
    low = np.asarray(space.low, dtype=np.float64)
    high = np.asarray(space.high, dtype=np.float64)
    if dtype.kind in "iub" and np.isfinite(low).all() and np.isfinite(high).all():
        counts = high - low + 1
        if counts.size and counts.max() <= MAX_SYMBOLS:
            return symbols(path, shape, counts, low, "Box", str(dtype))
    return numbers(path, shape, low, high, str(dtype))


def leaves(tree: Tree) -> tuple[Leaf, ...]:
    """The leaves in the order that every flat sample has."""
    if isinstance(tree, Leaf):
        return (tree,)
    children = tree.values() if isinstance(tree, dict) else tree
    return tuple(leaf for child in children for leaf in leaves(child))


def override(tree: Tree, rules: dict) -> Tree:
    """The tree with the leaves named in `rules` (path → rule) declared anew.

    Rule "text": a uint8 vector of UTF-8 bytes is text. Rule "float64": numbers keep all digits, for
    clocks and other large offsets that no bound tells of. Rule [count, ...]: values are symbols
    0..count-1, counts broadcast to the leaf's shape. Raises ValueError for an unknown path or rule.
    """
    unknown = set(rules) - {leaf.path for leaf in leaves(tree)}
    if unknown:
        raise ValueError(
            f"no leaf {sorted(unknown)}, there are {[leaf.path for leaf in leaves(tree)]}"
        )

    def rebuild(node: Tree) -> Tree:
        if isinstance(node, dict):
            return {key: rebuild(child) for key, child in node.items()}
        if isinstance(node, list):
            return [rebuild(child) for child in node]
        rule = rules.get(node.path)
        if rule is None:
            return node
        if rule == TEXT:
            return Leaf(node.path, TEXT, node.shape, node.source, node.source_dtype)
        if rule == EXACT and node.kind == CONTINUOUS:
            return replace(node, wide=True)
        if isinstance(rule, list):
            return symbols(node.path, node.shape, rule, 0, node.source, node.source_dtype)
        raise ValueError(
            f'"{node.path}": expected "text", "float64" (of numbers) or a list of counts, '
            f"got {rule!r}"
        )

    return rebuild(tree)


def flatten(tree: Tree, value) -> list[np.ndarray]:
    """One sample as arrays, one a leaf. Raises ValueError on a wrong shape, key or range."""
    if isinstance(tree, Leaf):
        return [_flatten_leaf(tree, value)]
    if isinstance(tree, dict):
        missing = [key for key in tree if key not in value]
        if missing:
            raise ValueError(f"sample lacks {missing}, it has {sorted(value)}")
        return [array for key, child in tree.items() for array in flatten(child, value[key])]
    if len(value) != len(tree):
        raise ValueError(f"sample has {len(value)} parts, the space {len(tree)}")
    return [array for child, part in zip(tree, value) for array in flatten(child, part)]


def _flatten_leaf(leaf: Leaf, value) -> np.ndarray:
    if leaf.letters and isinstance(value, str):
        if foreign := sorted({*value} - {*leaf.letters}):
            raise ValueError(f'"{leaf.path}": {foreign} are not among the letters of its space')
        numbers = [leaf.letters.index(letter) + 1 for letter in value[: leaf.size]]
        return np.array(numbers + [0] * (leaf.size - len(numbers)), leaf.dtype)
    if leaf.kind == TEXT and isinstance(value, str):
        raw = value.encode()[: leaf.shape[0]]
        return np.frombuffer(raw.ljust(leaf.shape[0], b"\0"), np.uint8).copy()
    array = np.asarray(value)
    if leaf.kind == IMAGE:
        if leaf.channels_first:
            array = np.moveaxis(array, 0, -1)
        array = array.reshape(array.shape if array.ndim == 3 else (*array.shape, 1))
    if array.shape != leaf.shape:
        raise ValueError(f'"{leaf.path}": expected shape {leaf.shape}, got {array.shape}')
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # what does not fit is found below or by check
        cast = np.array(array, leaf.dtype, order="C")
    if leaf.kind != CONTINUOUS and array.dtype != cast.dtype and (cast != array).any():
        raise ValueError(f'"{leaf.path}": values do not fit {leaf.dtype}')
    return cast


def unflatten(tree: Tree, arrays: list[np.ndarray]):
    """The inverse of `flatten`: a sample in the environment's own types."""
    return nested(tree, arrays, _unflatten_leaf)


def nested(tree: Tree, arrays: list[np.ndarray], made: Callable[[Leaf, np.ndarray], object]):
    """One array a leaf as dicts and tuples like the tree, of what `made` makes of each."""
    remaining = iter(arrays)

    def build(node: Tree):
        if isinstance(node, dict):
            return {key: build(child) for key, child in node.items()}
        if isinstance(node, list):
            return tuple(build(child) for child in node)
        return made(node, next(remaining))

    return build(tree)


def _unflatten_leaf(leaf: Leaf, array: np.ndarray):
    if leaf.source == "Discrete":
        return int(array)
    if leaf.letters:
        return text(leaf, array)
    if leaf.kind == TEXT:
        return bytes(array).rstrip(b"\0").decode(errors="replace")
    if leaf.kind == IMAGE and leaf.channels_first:
        array = np.moveaxis(array, -1, 0)
    if leaf.whole:  # a cast alone would cut 2.9999 down to 2
        array = np.rint(array)
    return np.array(array, leaf.source_dtype)


def text(leaf: Leaf, numbers: np.ndarray) -> str:
    """What numbers of `leaf.letters` spell, up to the first 0."""
    end = np.append(numbers, 0).tolist().index(0)
    return "".join(leaf.letters[number - 1] for number in numbers[:end])


def to_json(tree: Tree):
    """Plain JSON; infinities as the strings "inf" and "-inf"."""
    if isinstance(tree, dict):
        return {"dict": [[key, to_json(child)] for key, child in tree.items()]}
    if isinstance(tree, list):
        return {"tuple": [to_json(child) for child in tree]}
    data = {k: v for k, v in asdict(tree).items() if v not in ((), False) or k == "shape"}
    for bound in ("low", "high"):
        if bound in data:
            data[bound] = [v if np.isfinite(v) else str(v) for v in data[bound]]
    return {"leaf": data}


def from_json(data) -> Tree:
    """The inverse of `to_json`. Raises ValueError on anything else."""
    match data:
        case {"dict": pairs}:
            return {str(key): from_json(child) for key, child in pairs}
        case {"tuple": parts}:
            return [from_json(child) for child in parts]
        case {"leaf": {"kind": str(kind)} as leaf} if kind in (CONTINUOUS, DISCRETE, IMAGE, TEXT):
            tuples = {
                k: tuple(leaf[k]) for k in ("shape", "counts", "start", "letters") if k in leaf
            }
            bounds = {k: tuple(float(v) for v in leaf[k]) for k in ("low", "high") if k in leaf}
            return Leaf(**{**leaf, **tuples, **bounds})
    raise ValueError(f"not a space: {str(data)[:80]}")
