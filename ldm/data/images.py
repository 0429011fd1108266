"""Images as patches: area-averaged to a whole number of patches, four channels to a plane."""

from functools import cache

import numpy as np

from ldm.config import TokenConfig
from ldm.data.batch import PATCH_CHANNELS

CHUNK = 256  # images resized at a time: their fp32 copies are large


def patch_grid(shape: tuple[int, ...], config: TokenConfig) -> tuple[int, int, int]:
    """(planes, rows, columns) of patches for an image of height × width × channels.

    The sides become the nearest whole number of patches; an image of more than
    `config.image_patches` patches, all planes counted, is shrunk and keeps its proportions.
    """
    height, width, channels = shape
    planes = -(-channels // PATCH_CHANNELS)
    budget = max(config.image_patches // planes, 1)
    shrink = min(1.0, (budget * config.patch**2 / (height * width)) ** 0.5)
    rows = max(1, round(height * shrink / config.patch))
    columns = max(1, round(width * shrink / config.patch))
    while rows * columns > budget and max(rows, columns) > 1:
        rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
    return planes, rows, columns


def to_patches(images: np.ndarray, grid: tuple[int, int, int], patch: int) -> np.ndarray:
    """uint8 (R, height, width, channels) → (R, planes × rows × columns, patch² × PATCH_CHANNELS).

    A patch is height × width × PATCH_CHANNELS; channels that the image lacks are zero.
    """
    planes, rows, columns = grid
    n, channels = len(images), images.shape[3]
    sides = rows * patch, columns * patch
    chunks = [_resize(images[i : i + CHUNK], *sides) for i in range(0, n, CHUNK)]
    images = np.concatenate(chunks)
    lacking = planes * PATCH_CHANNELS - channels
    images = np.pad(images, ((0, 0), (0, 0), (0, 0), (0, lacking)))
    parts = images.reshape(n, rows, patch, columns, patch, planes, PATCH_CHANNELS)
    parts = parts.transpose(0, 5, 1, 3, 2, 4, 6)
    return parts.reshape(n, planes * rows * columns, patch * patch * PATCH_CHANNELS)


def _resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    n, old_height, old_width, channels = images.shape
    if (old_height, old_width) == (height, width):
        return images
    x = images.reshape(n, old_height, old_width * channels).astype(np.float32)
    x = np.matmul(_weights(old_height, height), x).reshape(n * height, old_width, channels)
    x = np.matmul(_weights(old_width, width), x)
    return np.rint(x).astype(np.uint8).reshape(n, height, width, channels)


@cache
def _weights(old: int, new: int) -> np.ndarray:
    """float32 (new, old): the share of each old pixel in each new one (area averaging)."""
    edges = np.linspace(0, old, new + 1)
    low = np.maximum(edges[:-1, None], np.arange(old)[None])
    high = np.minimum(edges[1:, None], np.arange(1, old + 1)[None])
    overlap = np.maximum(high - low, 0.0)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)
