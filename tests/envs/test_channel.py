import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ldm.envs import channel, processes, spaces


@pytest.fixture
def ends():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_messages_of_any_size_arrive_whole(ends):
    left, right = ends
    for size in (0, 10, 1 << 20):
        message = {"text": "x" * size}
        sender = threading.Thread(target=channel.send, args=(left, message))
        sender.start()
        assert channel.receive(right, 10) == message
        sender.join()


def test_a_message_in_pieces(ends):
    left, right = ends
    data = json.dumps({"call": "step"}).encode()
    framed = struct.pack("<I", len(data)) + data

    def drip():
        for i in range(len(framed)):
            left.sendall(framed[i : i + 1])
            time.sleep(0.001)

    sender = threading.Thread(target=drip)
    sender.start()
    assert channel.receive(right, 10) == {"call": "step"}
    sender.join()


def test_deadline_end_and_noise(ends):
    left, right = ends
    with pytest.raises(TimeoutError):
        channel.receive(right, 0.05)
    left.sendall(struct.pack("<I", 2) + b"{}more")
    with pytest.raises(ValueError, match="out of step"):
        channel.receive(right, 1)
    left.close()
    with pytest.raises(EOFError):
        channel.receive(right, 1)


def test_seconds_that_do_not_count_move_the_deadline(ends, monkeypatch):
    left, right = ends
    monkeypatch.setattr(channel, "WATCH_SECONDS", 0.01)
    looks: list[int] = []

    def watch(excused: float) -> float:
        looks.append(1)
        if len(looks) == 20:
            channel.send(left, {"call": "step"})
        return excused

    with pytest.raises(TimeoutError):
        channel.receive(right, 0.05, lambda: watch(0.0))
    assert len(looks) < 20
    looks.clear()
    assert channel.receive(right, 0.05, lambda: watch(1.0)) == {"call": "step"}


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel counts none")
def test_what_wants_a_cpu_that_another_has_is_seen_to_starve():
    cpu = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while min(processes.starved_seconds(p.pid) for p in both) < 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert processes.starved_seconds(both[0].pid) == 0


def test_two_mappings_show_the_same_arrays():
    observation = [spaces.numbers("a", (3,)), spaces.symbols("b", (), 5)]
    action = [spaces.symbols("", (2,), 3)]
    file = os.memfd_create("test") if hasattr(os, "memfd_create") else pytest.skip("needs memfd")
    os.ftruncate(file, channel.size(observation, action, 4))
    one, two = (channel.views(file, observation, action, 4) for _ in range(2))
    os.close(file)
    assert [a.shape for a in one.observation] == [(4, 3), (4,)]
    arrays = [*one.observation, *one.action, *one.expert, *one[3:]]
    for number, array in enumerate(arrays):
        array[...] = number % 2 if array.dtype == bool else number
    again = [*two.observation, *two.action, *two.expert, *two[3:]]
    for array, other in zip(arrays, again, strict=True):
        np.testing.assert_array_equal(array, other)
        assert array.ctypes.data % channel.ALIGN == 0
