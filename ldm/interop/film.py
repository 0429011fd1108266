"""Frames of a video file, a stretch at a time, by PyAV."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ldm.errors import missing
from ldm.interop.reader import EPISODE_BYTES, unreadable

CODEC = "install a PyAV that has its decoder (pip install --upgrade av), or encode it as H.264"


def frames(
    path: Path, start: float, count: int, fps: float, shape: tuple[int, int, int]
) -> np.ndarray:
    """`count` frames from `start` seconds on, uint8 (count, *shape).

    Raises LdmError where the file is no video, has no codec here, other pictures than `shape`, or
    ends before.
    """
    try:
        import av
    except ImportError:
        raise missing("av") from None
    expected = f"a video of {shape[0]} × {shape[1]} at {fps:g} frames a second"
    if count * int(np.prod(shape)) > EPISODE_BYTES:
        raise unreadable(path, f"at most {EPISODE_BYTES:,} bytes an episode", f"{count} frames")
    try:
        with av.open(str(path), options={"protocol_whitelist": "file"}) as file:
            stream = file.streams.video[0] if file.streams.video else None
            if stream is None:
                raise ValueError("no pictures in it")
            if not stream.codec_context or not stream.codec_context.codec.is_decoder:
                raise unreadable(path, expected, "a codec that this machine lacks", CODEC)
            if (stream.height, stream.width) != tuple(shape[:2]):
                raise ValueError(f"{stream.height} × {stream.width}")
            return _stretch(file, stream, start, count, fps, shape)
    except av.error.DecoderNotFoundError as error:
        raise unreadable(path, expected, error, CODEC) from error
    except (av.error.FFmpegError, ValueError, RuntimeError, OSError) as error:
        raise unreadable(path, expected, error) from error


def _stretch(file, stream, start: float, count: int, fps: float, shape) -> np.ndarray:
    found = np.empty((count, *shape), np.uint8)
    filled = 0
    for time, frame in _from(file, stream, start - 0.5 / fps):
        if filled == count:
            break
        if abs(time - (start + filled / fps)) > 0.5 / fps:
            raise ValueError(f"a frame at {time:.3f} s, none at {start + filled / fps:.3f} s")
        found[filled] = frame.to_ndarray(format="rgb24")
        filled += 1
    if filled < count:
        raise ValueError(f"{filled} of {count} frames from {start:.3f} s on")
    return found


def _from(file, stream, start: float) -> Iterator[tuple]:
    """(seconds, frame) from `start` on."""
    if start > 0:
        file.seek(int(start / stream.time_base), stream=stream)  # to the key frame before it
    for frame in file.decode(stream):
        if frame.time is not None and frame.time >= start:
            yield frame.time, frame
