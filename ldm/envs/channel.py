"""What a worker and its parent share: JSON messages on a socket, arrays in one mapped file.

Standard library and numpy only: this file also runs inside foreign interpreters.
A message is 4 bytes of length (little endian) and that many bytes of JSON: nothing is unpickled.
Socket (one end of a socketpair) and file have no name that another process could open: they are
authenticated by inheritance, for only the worker and what it starts can hold the other end.
"""

import json
import math
import mmap
import struct
import time
from typing import NamedTuple

import numpy as np

ALIGN = 64
WATCH_SECONDS = 0.5  # how often a caller that waits for a message looks around


def send(sock, message: dict) -> None:
    """Raises OSError when the other side is gone."""
    data = json.dumps(message).encode()
    sock.sendall(struct.pack("<I", len(data)) + data)


def receive(sock, seconds: float | None = None, watch=None) -> dict:
    """The next message. Raises EOFError, TimeoutError after `seconds`, ValueError on noise.

    Call and reply alternate, so whatever arrives belongs to this message: it takes one system call.
    `watch` is called every WATCH_SECONDS in which nothing arrives, and may raise; the seconds that
    it returns do not count.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    data = bytearray()
    size = 4
    while len(data) < size:
        if deadline < math.inf:
            left = deadline - time.monotonic()
            sock.settimeout(min(max(left, 1e-3), WATCH_SECONDS))
        try:
            part = sock.recv(1 << 16)
        except TimeoutError:
            deadline += watch() if watch else 0.0
            if time.monotonic() >= deadline:
                raise
            continue
        if not part:
            raise EOFError("the other side closed the channel")
        data += part
        if len(data) >= 4:
            size = 4 + struct.unpack_from("<I", data)[0]
    if len(data) > size:
        raise ValueError(f"{len(data)} bytes for a message of {size}: the channel is out of step")
    return json.loads(data[4:])


class Views(NamedTuple):
    """Arrays over the mapped file, one row a stream."""

    observation: (
        list  # the leaves of observation, action to execute, and the hosted expert's action
    )
    action: list
    expert: list
    reward: np.ndarray  # float64
    terminated: np.ndarray  # bool
    truncated: np.ndarray
    started: np.ndarray


def _fields(observation, action, rows: int):
    for leaf in (*observation, *action, *action):
        yield (rows, *leaf.shape), leaf.dtype
    yield (rows,), np.dtype(np.float64)
    for _ in range(3):
        yield (rows,), np.dtype(bool)


def size(observation, action, rows: int) -> int:
    """Bytes of the file that `views` maps."""
    return sum(_padded(shape, dtype) for shape, dtype in _fields(observation, action, rows))


def _padded(shape, dtype) -> int:
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return -(-count // ALIGN) * ALIGN


def views(file: int, observation, action, rows: int) -> Views:
    """Maps file descriptor `file`, which is at least `size(...)` bytes long."""
    buffer = mmap.mmap(file, size(observation, action, rows))
    arrays, offset = [], 0
    for shape, dtype in _fields(observation, action, rows):
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(buffer, dtype, count, offset).reshape(shape))
        offset += _padded(shape, dtype)
    o, a = len(observation), len(observation) + len(action)
    expert = arrays[a : a + len(action)]
    return Views(arrays[:o], arrays[o:a], expert, *arrays[a + len(action) :])
