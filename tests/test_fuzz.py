"""A hundred seeded mutations of the files of a run; `python -m tests.fuzz` makes a thousand."""

import json

import pytest

from ldm.evaluate import run as evaluate
from tests.fuzz.kinds import KINDS
from tests.fuzz.made_run import make_run
from tests.fuzz.outcomes import bad, fuzz


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz").resolve()
    make_run(folder / "base")
    return folder


def test_no_mutation_ends_in_a_traceback_or_silently_in_another_result(base):
    rows = list(fuzz(100, 0, base, base / "base"))
    assert len({row[0] for row in rows}) == len(KINDS) and len(rows) == 100
    assert not bad(rows), bad(rows)


def test_a_reader_that_swallows_damage_is_found(base, monkeypatch):
    """The fuzzer itself can fail: a result whose checksum nobody looks at."""
    read = lambda path, *_: json.loads(path.read_bytes())
    monkeypatch.setattr(evaluate, "read_sealed", read)
    rows = list(fuzz(40, 0, base, base / "base", "result, to report"))
    assert {row[4] for row in bad(rows)} >= {"SILENT", "TRACEBACK"}
