"""Parquet files of others, read a batch of rows at a time, and pictures within them."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ldm.errors import missing
from ldm.interop.reader import ARRAY_BYTES, UNREADABLE, unreadable

BATCH = 4096  # rows at a time
PIXELS = 1 << 26  # of a picture
EXPECTED = "a Parquet file"


def rows(path: Path, columns: list[str] | None = None, batch: int = BATCH) -> Iterator[dict]:
    """Column → pyarrow array, batch after batch. columns: those to read; all where None.

    Raises LdmError where the file is not Parquet, lacks a column, or promises too much.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise missing("pyarrow") from None
    try:
        with pq.ParquetFile(path) as file:
            if absent := sorted({*(columns or ())} - {*file.schema_arrow.names}):
                raise ValueError(f"no column {', '.join(absent)}")
            groups = range(file.metadata.num_row_groups)
            sizes = [file.metadata.row_group(i).total_byte_size for i in groups]
            if max(sizes, default=0) > ARRAY_BYTES:
                raise ValueError(f"a group of rows of {max(sizes):,} bytes")
            for part in file.iter_batches(batch, columns=columns):
                yield dict(zip(part.schema.names, part.columns))
    except UNREADABLE as error:
        raise unreadable(path, EXPECTED, error) from error


def names(path: Path) -> list[str]:
    """The columns of a file. Raises LdmError where it is not Parquet."""
    try:
        import pyarrow.parquet as pq

        return pq.read_schema(path).names
    except ModuleNotFoundError:
        raise missing("pyarrow") from None
    except UNREADABLE as error:
        raise unreadable(path, EXPECTED, error) from error


def array(column) -> np.ndarray:
    """A column of numbers, or of lists of numbers alike in length at every level, (rows, ...).
    Raises ValueError for others."""
    import pyarrow as pa

    shape, values = [len(column)], column
    while pa.types.is_list(values.type) or is_fixed(values.type) or is_large(values.type):
        inner = values.flatten()
        if values.null_count or (len(values) and len(inner) % len(values)):
            raise ValueError(f"a row of {values.type} is empty or longer than the others")
        shape.append(len(inner) // max(len(values), 1))
        lengths = set(np.diff(values.offsets.to_numpy())) if not is_fixed(values.type) else set()
        if lengths - {shape[-1]}:
            raise ValueError(f"rows of {values.type} differ in length")
        values = inner
    if values.null_count:
        raise ValueError(f"{values.null_count} values are missing")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def is_fixed(kind) -> bool:
    import pyarrow as pa

    return pa.types.is_fixed_size_list(kind)


def is_large(kind) -> bool:
    import pyarrow as pa

    return pa.types.is_large_list(kind)


def picture(content: bytes, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A PNG or JPEG as uint8 (height, width, channels). shape: what it must have, known before it
    is unpacked. Raises ValueError where it is something else."""
    try:
        from PIL import Image
    except ImportError:
        raise missing("pillow") from None
    with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
        size, channels = (image.height, image.width), {"L": 1, "RGB": 3, "RGBA": 4}.get(image.mode)
        if shape and size != tuple(shape[:2]):
            raise ValueError(
                f"a picture of {size[0]} × {size[1]}, expected {shape[0]} × {shape[1]}"
            )
        if size[0] * size[1] > PIXELS:
            raise ValueError(f"a picture of {size[0]} × {size[1]} pixels")
        wanted = shape[2] if shape else channels or 3
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[wanted]
        pixels = np.asarray(image if channels == wanted else image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels
