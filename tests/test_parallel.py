import os
import time

import pytest

from ldm.parallel import run_jobs


def square(x, error_at=-1):
    if x == error_at:
        raise ValueError(f"job {x}")
    return x * x, os.environ["OMP_NUM_THREADS"]


def sleep(marker, seconds):
    time.sleep(seconds)
    marker.write_text("done")


def test_results_come_in_the_order_of_the_jobs():
    results = run_jobs(square, [(i,) for i in range(7)], 2, "square")
    assert results == [(i * i, "1") for i in range(7)]


def test_no_jobs_start_no_process():
    assert run_jobs(square, [], 2, "square") == []


def test_the_first_error_is_raised_and_stops_the_rest(tmp_path):
    def jobs():
        return [(i, 2) for i in range(6)]

    with pytest.raises(ValueError, match="job 2"):
        run_jobs(square, jobs(), 1, "square")


def test_processes_running_at_an_error_are_stopped(tmp_path):
    marker = tmp_path / "finished"
    with pytest.raises(TypeError):
        run_jobs(sleep, [(marker, 600), (marker,)], 2, "sleep")
    assert not marker.exists()
