"""A hundred seeded mutations of the files of a run; `python -m tests.fuzz` makes a thousand."""

import pytest

from tests import fuzz


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz").resolve()
    fuzz.make_run(folder / "base")
    return folder


def test_no_mutation_ends_in_a_traceback_or_silently_in_another_result(base):
    rows = list(fuzz.fuzz(100, 0, base, base / "base"))
    assert len({row[0] for row in rows}) == len(fuzz.KINDS) and len(rows) == 100
    assert not fuzz.bad(rows), fuzz.bad(rows)


def test_a_reader_that_swallows_damage_is_found(base, monkeypatch):
    """The fuzzer itself can fail: a result whose checksum nobody looks at."""
    read = lambda path, *_: fuzz.json.loads(path.read_bytes())
    monkeypatch.setattr(fuzz.evaluate, "read_sealed", read)
    rows = list(fuzz.fuzz(40, 0, base, base / "base", "result, to report"))
    assert {row[4] for row in fuzz.bad(rows)} >= {"SILENT", "TRACEBACK"}
