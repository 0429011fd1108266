"""What holds for all tests: where Triton's kernels run, that Ctrl-C reaches what they start, how
long they may take.

`seconds.json` has what the tests of each file take: CPU seconds, with those of the processes they
start, so that load does not count; `make seconds` brings it up to date. It serves three times. A
test is ended as hanging after GUARD times the slowest of its file, 300 s at least (slow ones, which
are not in it, after the limit of pyproject.toml); `--fast`, which is `make check`, takes the files
that need FAST seconds at most; and the longest files come first, so that none is left to one worker
at the end.
"""

import json
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch

# Without a GPU in Triton's interpreter: to be chosen before the kernels are defined.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# A shell script starts `make test &` with SIGINT ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SECONDS = Path(__file__).with_name("seconds.json")
GUARD, AT_LEAST, FAST = 20, 300, 1.0
found = defaultdict(lambda: {"slowest": 0.0, "all": 0.0})
failed = set()  # files whose tests ended before their time


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help=f"files that need {FAST} s at most")
    parser.addoption("--write-seconds", action="store_true", help="update seconds.json")


def pytest_xdist_auto_num_workers(config):
    """One more than there are cores, as the longer tests wait for processes of their own."""
    return len(os.sched_getaffinity(0)) + (not config.getoption("fast"))


def pytest_collection_modifyitems(config, items):
    known = json.loads(SECONDS.read_text())
    slow = []

    def length(item) -> float:
        seconds = known.get(item.path.relative_to(SECONDS.parent).as_posix())
        return seconds["all"] if seconds else 0.0

    items.sort(key=length, reverse=True)  # stable: the tests of a file stay in their order
    for item in items:
        seconds = known.get(item.path.relative_to(SECONDS.parent).as_posix())
        timed = item.get_closest_marker("timeout") or item.get_closest_marker("slow")
        if not timed and seconds:
            guard = max(AT_LEAST, GUARD * seconds["slowest"])
            item.add_marker(pytest.mark.timeout(guard))
        if config.getoption("--fast") and not (seconds and seconds["all"] <= FAST):
            slow.append(item)
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.user_properties.append(("since", _clocks()))
    return (yield)


def _clocks() -> tuple[float, float]:
    """CPU seconds of this process and of children that ended, and seconds: a test that waits for
    processes of its own shows in these alone."""
    return sum(os.times()[:4]), time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "teardown":
        since = dict(item.user_properties)["since"]
        spent = max(now - then for now, then in zip(_clocks(), since))
        report.user_properties = [("seconds", spent)]
    return report


def pytest_runtest_logreport(report):
    if report.failed:
        failed.add(report.fspath)
    if report.when == "teardown":
        row, seconds = found[report.fspath], dict(report.user_properties)["seconds"]
        row["slowest"], row["all"] = max(row["slowest"], seconds), row["all"] + seconds


def pytest_sessionfinish(session):
    if session.config.getoption("--write-seconds") and not hasattr(session.config, "workerinput"):
        known = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
        for path, row in ((p, r) for p, r in found.items() if p not in failed):
            name = Path(path).relative_to("tests").as_posix()
            known[name] = {key: round(value, 2) for key, value in row.items()}
        there = {n: known[n] for n in sorted(known) if (SECONDS.parent / n).exists()}
        lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in there.items()]
        SECONDS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
