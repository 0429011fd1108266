import io
import os
import re
import signal
import sys
import time

import pytest
from rich.console import Console

from ldm.errors import LdmError
from ldm.parallel import local_pool, progress
from ldm.parallel.jobs import run_jobs


def square(x, error_at=-1):
    if x == error_at:
        raise ValueError(f"job {x}")
    return x * x, os.environ["OMP_NUM_THREADS"]


def sleep(marker, seconds):
    time.sleep(seconds)
    marker.write_text("done")


def dies(x, folder, deaths):
    """Kills its process while fewer than `deaths` attempts were made; then the number of them."""
    attempts = len(list(folder.glob(f"{x}-*"))) + 1
    (folder / f"{x}-{attempts}").touch()
    if attempts <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempts


def keeps(megabytes, kept=[]):  # noqa: B006 (what the process leaks)
    kept.append(b"x" * (megabytes << 20))
    return os.getpid()


def test_results_come_in_the_order_of_the_jobs():
    results = run_jobs(square, [(i,) for i in range(7)], 2, "square")
    assert results == [(i * i, "1") for i in range(7)]


def test_the_bar_counts_sizes_and_tells_rate_and_time_left(monkeypatch):
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "console", terminal)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    run_jobs(square, [(1,), (2,), (3,)], 1, "square", size=lambda job: 1000 * job[0])
    shown = written.getvalue()
    assert "6000/6000" in shown
    assert re.search(r"[\d,]+(\.\d)?/s.*0:00:0\d", shown)


def test_without_a_terminal_a_line_tells_how_far_it_is(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=40))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr(progress, "SECONDS", 1e9)
    run_jobs(square, [(i,) for i in range(3)], 1, "square")
    assert written.getvalue() == ""  # it has not been as long
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    run_jobs(square, [(i,) for i in range(3)], 1, "square", size=lambda job: 1000)
    lines = written.getvalue().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"square: 3,000 of 3,000 in \d:\d\d:\d\d, 2", lines[-1])


def test_no_jobs_start_no_process():
    assert run_jobs(square, [], 2, "square") == []


def test_the_first_error_is_raised_and_stops_the_rest(tmp_path):
    def jobs():
        return [(i, 2) for i in range(6)]

    with pytest.raises(ValueError, match="job 2"):
        run_jobs(square, jobs(), 1, "square")


@pytest.mark.skipif(sys.platform != "linux", reason="memory of another process: Linux")
@pytest.mark.parametrize("megabytes, processes", [(0, 1), (48, 3)])
def test_a_process_that_has_grown_is_replaced(monkeypatch, megabytes, processes):
    monkeypatch.setattr(local_pool, "MEMORY", (80 << 20) * local_pool.SHARE)
    pids = run_jobs(keeps, [(megabytes,)] * 7, 1, "keeps")
    assert len(set(pids)) == processes  # the first job's is allowed, then two times 48


def test_processes_running_at_an_error_are_stopped(tmp_path):
    marker = tmp_path / "finished"
    with pytest.raises(TypeError):
        run_jobs(sleep, [(marker, 600), (marker,)], 2, "sleep")
    assert not marker.exists()


@pytest.fixture(scope="module")
def ray_cluster():
    """One for all tests: it takes seconds to start."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(params=["local", "ray"])
def runner(request):
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return request.param


def test_a_killed_process_costs_one_attempt_of_one_job(runner, tmp_path):
    """Job 1 dies once and succeeds, job 2 dies always and is handed over; the rest go on."""
    jobs = [(0, tmp_path, 0), (1, tmp_path, 1), (2, tmp_path, 9), (3, tmp_path, 0)]
    results = run_jobs(dies, jobs, 2, "dies", runner=runner, lost=lambda x, *_: f"lost {x}")
    assert results == [1, 2, "lost 2", 1]


def test_a_job_that_always_kills_its_process_is_named(tmp_path):
    with pytest.raises(LdmError, match="dies: 5 killed its process 2 times"):
        run_jobs(dies, [(5, tmp_path, 9)], 1, "dies")


def test_an_error_on_ray_arrives_as_it_was_raised(ray_cluster):
    with pytest.raises(ValueError, match="job 1"):
        run_jobs(square, [(0, 1), (1, 1)], 1, "square", runner="ray")


def test_a_job_on_ray_runs_in_the_folder_of_the_command(ray_cluster, tmp_path, monkeypatch):
    """So a run's folder is found by the same path, which all machines share."""
    monkeypatch.chdir(tmp_path)
    assert run_jobs(os.getcwd, [()], 1, "here", label=str, runner="ray") == [str(tmp_path)]
    monkeypatch.setattr("ldm.parallel.ray_pool.os.getcwd", lambda: f"{tmp_path}/gone")
    with pytest.raises(LdmError, match=r"has no folder .*gone.*that all machines share"):
        run_jobs(os.getpid, [()], 1, "here", label=str, runner="ray")


def test_a_worker_of_ray_is_replaced_after_so_many_jobs(ray_cluster):
    from ldm.parallel.ray_pool import CALLS

    pids = run_jobs(keeps, [(0,)] * (CALLS + 1), 1, "keeps", runner="ray")
    assert max(map(pids.count, pids)) <= CALLS < len(pids)


def test_an_unknown_runner_is_refused():
    with pytest.raises(LdmError, match="local, ray"):
        run_jobs(square, [(0,)], 1, "square", runner="cluster")
