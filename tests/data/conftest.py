import pytest

from ldm.data import mix


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """No worker processes: they would import everything anew for every test."""
    monkeypatch.setattr(
        mix, "run_jobs", lambda function, jobs, *_, **__: [function(*job) for job in jobs]
    )
