import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ldm.data.atomic import folder_lock, replacing, write_bytes, write_json
from ldm.errors import LdmError


def run_python(code: str, *args) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


def test_replacing_leaves_the_old_file_on_failure(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_replacing_a_folder(tmp_path):
    with replacing(tmp_path / "step-1") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "x").write_text("1")
    assert (tmp_path / "step-1" / "inner" / "x").read_text() == "1"
    assert os.listdir(tmp_path) == ["step-1"]


def test_a_folder_where_a_file_belongs_is_named(tmp_path):
    path = tmp_path / "a.bin"
    path.mkdir()
    with pytest.raises(LdmError, match=rf"{path} is a folder, expected a file: remove it"):
        write_bytes(path, b"new")
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path):
    path = tmp_path / "a.bin"
    killed = run_python(
        """
        import os, signal, sys
        from ldm.data.atomic import replacing
        with replacing(sys.argv[1]) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists() and len(os.listdir(tmp_path)) == 1
    write_bytes(path, b"whole")  # also removes what the killed writer left
    assert os.listdir(tmp_path) == ["a.bin"]


def test_json_is_canonical_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": [0.1]})
    write_json(tmp_path / "b", {"a": [0.1], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError):
        write_json(tmp_path / "c", float("nan"))
    assert not (tmp_path / "c").exists()


def test_full_disk_is_a_clear_error(tmp_path):
    limited = run_python(
        """
        import resource, sys
        from ldm.data.atomic import write_bytes
        from ldm.errors import LdmError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_bytes(sys.argv[1], bytes(5000))
        except LdmError as error:
            print(error)
        """,
        tmp_path / "a.bin",
    )
    assert f"cannot write {tmp_path / 'a.bin'}" in limited.stdout, limited.stderr
    assert "run the same command again" in limited.stdout
    assert os.listdir(tmp_path) == []


def test_two_runs_in_one_folder_are_refused(tmp_path):
    second = """
        import sys
        from ldm.data.atomic import folder_lock
        from ldm.errors import LdmError
        try:
            with folder_lock(sys.argv[1]):
                print("locked")
        except LdmError as error:
            print(error)
    """
    with folder_lock(tmp_path / "run"):
        refused = run_python(second, tmp_path / "run").stdout
        assert f"in use by another run (process {os.getpid()})" in refused
        with pytest.raises(LdmError), folder_lock(tmp_path / "run"):
            pass
    assert run_python(second, tmp_path / "run").stdout == "locked\n"
