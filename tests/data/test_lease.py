"""One run to a folder of a store: refused, taken over from the dead, given up when it was lost."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from ldm.data import lease
from ldm.data.atomic import folder_lock
from ldm.data.storage import at
from ldm.errors import LdmError


@pytest.fixture
def folder(monkeypatch):
    """A folder of a store in this process, and short times."""
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    folder = at(f"memory://lease-{os.urandom(4).hex()}/data")
    yield folder
    folder.fs.rm(folder.parent.path, recursive=True) if folder.parent.exists() else None


def objects(folder) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_it_is_held_by_one_and_gone_afterwards(folder):
    with folder_lock(folder):
        assert objects(folder) == [lease.NAME]
        other = rf"in use by another run \(process {os.getpid()} on"
        with pytest.raises(LdmError, match=other), folder_lock(folder):
            pass
    assert objects(folder) == []
    with pytest.raises(ZeroDivisionError), folder_lock(folder):
        1 / 0  # noqa: B018
    assert objects(folder) == []


def written(folder, **said) -> None:
    folder.fs.pipe_file((folder / lease.NAME).path, json.dumps(said).encode())


def test_who_died_on_this_machine_is_taken_over_at_once(folder, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE", 3600.0)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    machine = lease._machine()
    assert machine, "this test reads /proc"
    written(folder, host="here", process=process.pid, machine=machine, token="x", beats=3)
    with folder_lock(folder):
        assert json.loads((folder / lease.NAME).read_bytes())["process"] == os.getpid()


@pytest.mark.parametrize("content", [b'{"host": "far", "process": 7, "beats": 1}', b"[]", b"\xff"])
def test_who_shows_no_sign_of_life_is_taken_over(folder, content, capsys):
    folder.fs.pipe_file((folder / lease.NAME).path, content)
    start = time.monotonic()
    with folder_lock(folder):
        assert time.monotonic() - start >= lease.PATIENCE
    assert "looking whether it" in capsys.readouterr().err


def test_of_many_at_once_one_gets_it(folder):
    held, refused, go, done = [], [], threading.Barrier(6), threading.Event()

    def ask() -> None:
        hold = lease.Hold(folder / lease.NAME)
        go.wait()
        try:
            hold.take()
        except LdmError:
            refused.append(hold)
            return
        held.append(hold)
        hold.beat()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(refused) < 5:
        assert len(held) < 2 and any(thread.is_alive() for thread in threads)
        time.sleep(0.01)
    held[0].ended.set()
    for thread in threads:
        thread.join()
    done.set()
    assert len(held) == 1 and len(refused) == 5


def test_who_lost_it_stops(folder):
    start = time.monotonic()
    other = r"taken over by another run \(process 7 on far\)"
    with pytest.raises(LdmError, match=other), folder_lock(folder):
        written(folder, host="far", process=7, token="other", beats=1)
        time.sleep(30)
    assert time.monotonic() - start < 20
    assert json.loads((folder / lease.NAME).read_bytes())["host"] == "far"
