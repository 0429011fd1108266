"""What the model will not see of an environment, or not as it is: told by every stage alike.

dropped   components that never change in the data, which say nothing
shrunk    images with fewer pixels than they had
cut       numbers far from their mean, and long texts
clipped   labels beyond the bins of their component
coarse    numbers whose digits float32 lost, and bins wider than their labels are spread
"""

from collections.abc import Iterable, Iterator

import numpy as np

from ldm.config import TokenConfig
from ldm.data import facts
from ldm.data.images import patch_grid
from ldm.data.statistics import LEVELS
from ldm.envs import spaces
from ldm.envs.spaces import CONTINUOUS, IMAGE, TEXT, Leaf
from ldm.parallel.progress import console

DROPPED, SHRUNK, CUT, CLIPPED, COARSE = "dropped", "shrunk", "cut", "clipped", "coarse"
CLIP = 8.0  # standard deviations of a number, and half-ranges of an action, that a token shows
LOST = 0.01  # of a deviation: float32 steps from here on are told
LISTED = 40  # lines that a stage prints
NAMED = 6  # components or ranges of them that a line names


def findings(environment: dict, config: TokenConfig) -> list[dict]:
    """What is lost of one entry's environment, in the order of its leaves: {"role", "leaf": path,
    "kind", "components": indices, "text"}."""
    known, statistics = facts.of(environment), environment["statistics"]
    parts = {
        role: list(zip(spaces.leaves(spaces.from_json(environment[role])), statistics[role]))
        for role in ("observation", "action")
    }
    levels = known["levels"] or [None] * sum(leaf.size for leaf, _ in parts["observation"])
    found, start = [], 0
    for i, (leaf, seen) in enumerate(parts["observation"]):
        look = {IMAGE: _image, TEXT: _text}.get(leaf.kind)
        if look and i not in known["boards"]:
            found += [_finding("observation", leaf, *what) for what in look(leaf, seen, config)]
        if leaf.kind == CONTINUOUS:
            symbols = np.array([v is not None for v in levels[start : start + leaf.size]], bool)
            start += leaf.size
            found += [
                _finding("observation", leaf, *what) for what in _numbers(leaf, seen, symbols)
            ]
    start = 0
    for leaf, seen in parts["action"]:
        if leaf.kind == CONTINUOUS:
            low, high = (np.asarray(known[k][start : start + leaf.size]) for k in ("low", "high"))
            start += leaf.size
            found += [_finding("action", leaf, *what) for what in _labels(seen, low, high, config)]
    return found


def lines(environment: dict, config: TokenConfig) -> list[str]:
    """`findings` in words, one line each."""
    return [line(environment["id"], finding) for finding in findings(environment, config)]


def known_lines(environment: dict) -> list[str]:
    """What the mix found, in words, from an entry with facts; none without."""
    found = environment.get("facts", {}).get("fidelity", [])
    return [line(environment["id"], finding) for finding in found]


def line(id: str, finding: dict) -> str:
    """A finding in words."""
    name = f' "{finding["leaf"]}"' if finding["leaf"] else ""
    numbers = f"[{_ranges(finding['components'])}]" if finding["components"] else ""
    return f"{id}: {finding['role']}{name}{numbers}: {finding['kind']}: {finding['text']}"


def tell(environments: Iterable[dict], config: TokenConfig) -> None:
    """Prints the lines of some entries, LISTED at most."""
    told = [text for environment in environments for text in lines(environment, config)]
    if len(told) > LISTED:
        told[LISTED:] = [f'and {len(told) - LISTED} lines more: "ldm data show" has all']
    for text in told:
        console.print(text, style="yellow", markup=False, highlight=False)


def float32_step(largest: np.ndarray) -> np.ndarray:
    """The distance between neighbouring float32 numbers of that size."""
    return np.spacing(np.abs(largest).clip(0, 1e38).astype(np.float32)).astype(np.float64)


def loses_digits(seen: dict, share: float) -> np.ndarray:
    """Which components float32 would blur, bool (C,): their numbers vary, and its steps are more
    than `share` of their deviation."""
    low, high, std = (np.asarray(seen[k], np.float64) for k in ("min", "max", "std"))
    return (high > low) & (float32_step(np.maximum(-low, high)) > share * std)


Found = Iterator[tuple[str, np.ndarray, str]]  # kind, indices of components, text


def _numbers(leaf: Leaf, seen: dict, symbols: np.ndarray) -> Found:
    """symbols: components that are read as such, bool (C,): all that is seen of them is kept."""
    low, high, mean, std = (np.asarray(seen[k], np.float64) for k in ("min", "max", "mean", "std"))
    still = low == high
    largest = np.maximum(np.abs(low), np.abs(high))
    if spaces.finer(leaf.source_dtype) and not leaf.wide:
        blurred = loses_digits(seen, LOST) | (still & (largest >= spaces.FLOAT32_EXACT))
        blurred &= ~symbols
        if blurred.any():
            c = int(np.flatnonzero(blurred)[0])
            yield (
                COARSE,
                np.flatnonzero(blurred),
                f"numbers near {largest[c]:.6g} in float32's steps of "
                f"{float32_step(largest[c]):.3g}; they deviate by {std[c]:.3g}: keep all with "
                f'leaves = {{"{leaf.path}" = "float64"}} in its catalogue entry',
            )
    if still.any():
        yield DROPPED, np.flatnonzero(still), "never changes in the data"
    far = np.maximum(high - mean, mean - low) / np.where(std > 0, std, np.inf)
    far = np.where(symbols, 0.0, far)
    if (far > CLIP).any():
        text = f"up to {far.max():.3g} deviations from its mean, shown as {CLIP:g}"
        yield CUT, np.flatnonzero(far > CLIP), text


def _image(leaf: Leaf, seen: dict | None, config: TokenConfig) -> Found:
    _, rows, columns = patch_grid(leaf.shape, config)
    now, old = (rows * config.patch, columns * config.patch), leaf.shape[:2]
    if now[0] < old[0] or now[1] < old[1]:
        text = f"{old[0]} × {old[1]} pixels become {now[0]} × {now[1]}; see tokens.image_patches"
        yield SHRUNK, np.arange(0), text


def _text(leaf: Leaf, seen: dict | None, config: TokenConfig) -> Found:
    if leaf.shape[0] >= spaces.MAX_TEXT_BYTES:
        yield CUT, np.arange(0), f"texts of more than {leaf.shape[0]} bytes end there"


def _labels(seen: dict, low: np.ndarray, high: np.ndarray, config: TokenConfig) -> Found:
    least, most, std = (np.ravel(seen[k]).astype(np.float64) for k in ("min", "max", "std"))
    slack = 1e-6 * (high - low)
    beyond = (least < low - slack) | (most > high + slack)
    if beyond.any():
        c = int(np.flatnonzero(beyond)[0])
        share = ""
        if "quantiles" in seen:
            shares = [
                _share(q, *ends) for q, *ends in zip(np.transpose(seen["quantiles"]), low, high)
            ]
            share = f"{max(np.asarray(shares)[beyond]):.2g} of the labels, which reach "
        yield (
            CLIPPED,
            np.flatnonzero(beyond),
            f"{share}{least[c]:.4g} … {most[c]:.4g}, count as at the bounds "
            f"{low[c]:.4g} … {high[c]:.4g} of their bins",
        )
    width, spread = (high - low) / (config.action_bins - 1), _spread(seen, std)
    wide = (width > spread) & (most > least)
    if wide.any():
        c = int(np.flatnonzero(wide)[0])
        text = f"a bin is {width[c]:.3g} wide, the labels deviate by {spread[c]:.3g}"
        yield COARSE, np.flatnonzero(wide), text


def _spread(seen: dict, std: np.ndarray) -> np.ndarray:
    """The labels' deviation, (C,), without the twentieth at either end that may be far out."""
    if "quantiles" not in seen:
        return std
    rows = dict(zip(LEVELS.tolist(), np.asarray(seen["quantiles"])))
    inner = (rows[0.95] - rows[0.05]) / 3.29  # that of a normal distribution
    return np.where(inner > 0, np.minimum(inner, std), std)


def _share(quantiles: np.ndarray, low: float, high: float) -> float:
    """About which share of the labels lies beyond."""
    below, above = np.interp([low, high], quantiles, LEVELS)
    below, above = (0 if x <= LEVELS[0] else x for x in (below, 1 - above))
    return max(below + above, LEVELS[0])


def _finding(role: str, leaf: Leaf, kind: str, components: np.ndarray, text: str) -> dict:
    chosen = [] if len(components) == leaf.size == 1 else components.tolist()
    return {"role": role, "leaf": leaf.path, "kind": kind, "components": chosen, "text": text}


def _ranges(components: list[int]) -> str:
    """[0, 1, 2, 5] as "0–2, 5"."""
    runs = np.split(np.array(components), np.flatnonzero(np.diff(components) > 1) + 1)
    named = [f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs]
    more = f" and {sum(map(len, runs[NAMED:]))} more" if len(runs) > NAMED else ""
    return ", ".join(named[:NAMED]) + more
