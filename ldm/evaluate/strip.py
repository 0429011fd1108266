"""What an environment showed, what was done and what it paid, drawn step by step: the film of an
environment that draws nothing itself.

Images and boards are shown as pictures. Few numbers are lines over the last steps, many are bands,
a row a component, from blue (low) over grey to red (high). Text is text.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.envs import spaces
from ldm.envs.interface import Arrays
from ldm.envs.spaces import CONTINUOUS, DISCRETE, IMAGE, TEXT, Leaf

WIDTH, HEIGHT, BAR = 720, 420, 30  # pixels; BAR: the caption below
PICTURE = 300  # side of a picture of what was seen
FEW, SHOWN = 30, 120  # steps that a plot has room for at least, and at most
LINES = 6  # components that are lines; more are bands
BANDS = 64  # bands at most
EDGE, LABEL = 12, 20
INK, FAINT, GRID, PAPER = "#1f2328", "#6e7781", "#e6e8eb", "#ffffff"
COLOURS = ("#2563a8", "#c2571a", "#2e7d4f", "#8a4fa3", "#b08a00", "#a8324e")
CELLS = np.array(
    [[246, 246, 244], [37, 99, 168], [194, 87, 26], [46, 125, 79], [138, 79, 163], [176, 138, 0]],
    np.uint8,
)


def font(size: int):
    return ImageFont.load_default(size)


@dataclass
class Panel:
    """One plot. rows: of the last SHOWN steps, float64 (components,)."""

    title: str
    low: np.ndarray
    high: np.ndarray
    share: float  # of the height
    rows: deque = field(default_factory=lambda: deque(maxlen=SHOWN))

    @property
    def components(self) -> int:
        return len(self.low)


class Strip:
    """Draws the moments of one stream. Trees are an environment's; `caption` is added below."""

    def __init__(self, observation: spaces.Tree, action: spaces.Tree):
        seen, done = spaces.leaves(observation), spaces.leaves(action)
        self.pictures = [i for i, leaf in enumerate(seen) if is_picture(leaf)]
        self.texts = [i for i, leaf in enumerate(seen) if leaf.kind == TEXT]
        self.numbers = [i for i in range(len(seen)) if i not in (*self.pictures, *self.texts)]
        self.seen, self.done = seen, done
        self.panels = []
        if self.numbers:
            self.panels.append(_panel("observation", [seen[i] for i in self.numbers], 3.0))
        self.panels.append(_panel("action", list(done), 1.4))
        self.panels.append(Panel("reward", np.full(1, np.inf), np.full(1, -np.inf), 1.2))

    def start(self) -> None:
        """A new episode begins."""
        for panel in self.panels:
            panel.rows.clear()

    def draw(self, observation: Arrays, action: Arrays | None, reward: float) -> np.ndarray:
        """uint8 (HEIGHT, WIDTH, 3). Rows of one stream, without a batch axis; action: None before
        the first."""
        rows = [_joined([observation[i] for i in self.numbers])] if self.numbers else []
        rows.append(_joined(action) if action is not None else np.full(self._actions, np.nan))
        rows.append(np.array([reward if action is not None else np.nan]))
        for panel, row in zip(self.panels, rows):
            panel.rows.append(row)
            if np.isfinite(row).any():
                panel.low = np.fmin(panel.low, row)
                panel.high = np.fmax(panel.high, row)
        image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        pen = ImageDraw.Draw(image)
        left, top = EDGE, EDGE
        if self.pictures:
            self._pictures(image, observation)
            left += PICTURE + EDGE
        for i in self.texts[:3]:
            top = _text(pen, observation[i], left, top)
        whole = sum(panel.share for panel in self.panels)
        room = HEIGHT - top - EDGE
        for panel in self.panels:
            height = int(room * panel.share / whole)
            _plot(pen, image, panel, (left, top, WIDTH - EDGE, top + height - 8))
            top += height
        return np.asarray(image)

    @property
    def _actions(self) -> int:
        return sum(leaf.size for leaf in self.done)

    def _pictures(self, image: Image.Image, observation: Arrays) -> None:
        chosen = self.pictures[:2]
        side = PICTURE if len(chosen) == 1 else (HEIGHT - 3 * EDGE) // 2
        for number, i in enumerate(chosen):
            pixels = picture(self.seen[i], observation[i])
            shown = enlarged(pixels, PICTURE, side)
            x = EDGE + (PICTURE - shown.shape[1]) // 2
            image.paste(Image.fromarray(shown), (x, EDGE + number * (side + EDGE)))


def is_picture(leaf: Leaf) -> bool:
    if leaf.kind in (IMAGE, TEXT):
        return leaf.kind == IMAGE
    board = len(leaf.shape) == 2 or (len(leaf.shape) == 3 and leaf.kind == DISCRETE)
    return board and min(leaf.shape[:2]) >= 4 and max(leaf.shape[:2]) <= 256


def picture(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    """An image's newest frame, a board's symbols or numbers as colours; uint8 (H, W, 3)."""
    if leaf.kind == IMAGE:
        channels = leaf.shape[2]
        if channels % 3 == 0:
            return array[..., -3:]
        return np.repeat(array[..., -1:], 3, 2)
    if leaf.kind == CONTINUOUS:
        low, high = float(array.min()), float(array.max())
        return _colours((array - low) / (high - low or 1.0))
    flat = array.reshape(*leaf.shape[:2], -1)[..., 0] - leaf.start[0]
    return CELLS[np.where(flat > 0, 1 + (flat - 1) % (len(CELLS) - 1), 0)]


def enlarged(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture as large as it fits, a pixel a square where it grows."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    scale = int(scale) if scale >= 1 else scale
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, way))


def caption(frame: np.ndarray, left: str, right: str) -> np.ndarray:
    """The frame above a line of text, uint8 (H + BAR, W, 3)."""
    height, width = frame.shape[:2]
    image = Image.new("RGB", (width, height + BAR), "#f3f4f6")
    image.paste(Image.fromarray(np.ascontiguousarray(frame)))
    pen, letters = ImageDraw.Draw(image), font(15)
    room = width - 2 * EDGE
    used = pen.textlength(right, letters)
    while left and pen.textlength(left, letters) + used + 10 > room:
        left = left[:-2] + "…" if len(left) > 2 else ""
    pen.text((EDGE, height + 6), left, INK, letters)
    pen.text((width - EDGE - used, height + 6), right, INK, letters)
    return np.asarray(image)


def _panel(title: str, leaves: list[Leaf], share: float) -> Panel:
    """Starts from the declared range, where it is finite, so that lines do not jump."""
    bounds = [np.array([leaf.low, leaf.high]) for leaf in leaves if leaf.kind == CONTINUOUS]
    rows = []
    for leaf in leaves:
        if leaf.kind == CONTINUOUS:
            low, high = bounds.pop(0)
            known = np.isfinite(low) & np.isfinite(high) & (high - low < 1e3)
            rows.append((np.where(known, low, np.inf), np.where(known, high, -np.inf)))
        else:
            low, high = leaf.range
            small = high.astype(np.int64) - low < 64
            rows.append((np.where(small, low, np.inf), np.where(small, high, -np.inf)))
    lows, highs = (np.concatenate(part).astype(np.float64) for part in zip(*rows))
    return Panel(title, lows, highs, share)


def _joined(arrays: Arrays) -> np.ndarray:
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])


def _text(pen, array: np.ndarray, left: int, top: int) -> int:
    """Writes a text in lines as wide as there is room; where the next thing begins."""
    letters, line, lines = font(14), "", []
    for word in bytes(array).rstrip(b"\0").decode(errors="replace").split():
        longer = f"{line} {word}".strip()
        if pen.textlength(longer, letters) > WIDTH - EDGE - left:
            lines.append(line)
            longer = word
        line = longer
    for text in [*lines, line][:6]:
        pen.text((left, top), text, INK, letters)
        top += 19
    return top + 8


def _plot(pen, image: Image.Image, panel: Panel, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    pen.text((left, top), _title(panel), FAINT, font(13))
    top += LABEL
    pen.rectangle((left, top, right, bottom), outline=GRID)
    rows = np.array(panel.rows)
    if panel.components > LINES:
        _bands(image, panel, rows, (left + 1, top + 1, right, bottom))
    elif np.isfinite(rows).any():
        _lines(pen, panel, rows, (left + 1, top + 4, right - 1, bottom - 4))


def _title(panel: Panel) -> str:
    names = {1: "", 2: "s"}
    count = panel.components
    low, high = np.min(panel.low), np.max(panel.high)
    span = f", {low:.3g} to {high:.3g}" if np.isfinite([low, high]).all() else ""
    many = f" ({count} component{names[min(count, 2)]}" if count > 1 else " ("
    more = f"; {BANDS} of them shown" if count > BANDS else ""
    return f"{panel.title}{many}{span}{more})".replace("(, ", "(").replace(" ()", "")


def _scaled(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """In [0, 1] by each component's own range so far."""
    width = np.where(panel.high > panel.low, panel.high - panel.low, 1.0)
    flat = np.where(panel.high > panel.low, panel.low, panel.low - 0.5)
    return (rows - np.where(np.isfinite(flat), flat, 0.0)) / width


def _lines(pen, panel: Panel, rows: np.ndarray, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    values = _scaled(panel, rows)
    x = left + np.arange(len(rows)) * (right - left) / (max(FEW, len(rows)) - 1)
    for component in range(panel.components):
        y = bottom - values[:, component].clip(0, 1) * (bottom - top)
        points = [(float(a), float(b)) for a, b in zip(x, y) if np.isfinite(b)]
        colour = COLOURS[component % len(COLOURS)]
        if len(points) > 1:
            pen.line(points, fill=colour, width=2)
        if points:
            a, b = points[-1]
            pen.ellipse((a - 3, b - 3, a + 3, b + 3), fill=colour)


def _bands(image: Image.Image, panel: Panel, rows: np.ndarray, box) -> None:
    left, top, right, bottom = box
    values = _scaled(panel, rows)[:, :BANDS].T  # (components, steps)
    pixels = np.full((len(values), max(FEW, len(rows)), 3), 255, np.uint8)
    pixels[:, : values.shape[1]] = _colours(values)
    size = right - left, bottom - top
    image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST), (left, top))


def _colours(values: np.ndarray) -> np.ndarray:
    """0 blue, ½ light grey, 1 red; NaN white."""
    v = np.nan_to_num(values, nan=0.5).clip(0, 1)[..., None]
    blue, grey, red = (
        np.array(c, np.float64) for c in ((37, 99, 168), (238, 238, 236), (190, 60, 45))
    )
    mixed = np.where(v < 0.5, blue + (grey - blue) * 2 * v, grey + (red - grey) * (2 * v - 1))
    return np.where(np.isfinite(values)[..., None], mixed, 255).astype(np.uint8)
