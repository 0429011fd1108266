"""What the machine lacks is told in one line, and nothing is left behind or written off for it."""

import contextlib
import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ldm.config import Recipe, ReferenceConfig
from ldm.data.atomic import folder_lock, write_json
from ldm.envs import installed
from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.envs.processes import variables
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec
from ldm.errors import EXTRAS, LdmError, MachineError, machine_error, plain
from ldm.parallel import ray_pool
from ldm.reference import choose as choosing
from ldm.reference import run as reference_run

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from ldm.cli import main; main()"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_full_or_closed_disk_has_one_line(number):
    for error in (
        OSError(number, os.strerror(number), "shard.tar"),
        SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})"),
        RuntimeError(f"flush failed (file write failed: time = Sat, errno = {number}, error …)"),
        ValueError(f"[Errno {number}] {os.strerror(number)}"),
    ):
        told = machine_error(pickle.loads(pickle.dumps(error)), Path("shard.tar"))
        assert "cannot write shard.tar" in str(told) and "same command again" in str(told)


def test_other_errors_are_none_of_the_machines():
    assert machine_error(OSError(errno.ENOENT, "no such file")) is None
    assert machine_error(ValueError("(os error 28 is what it is)")) is None


def test_safetensors_says_the_number_of_the_systems_error(tmp_path):
    """What `machine_error` reads; a limit on the file size stands for a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises((SafetensorError, OSError)) as caught:
            save_file({"weights": torch.zeros(1 << 16)}, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "larger than this process may write" in str(machine_error(caught.value))


def test_every_package_that_is_named_is_in_the_extra_that_is_named():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for distribution, extra in EXTRAS.items():
        lines = declared["optional-dependencies"][extra]
        names = {plain(line.split("[")[0].split(">")[0].split("=")[0]) for line in lines}
        assert distribution in names


def test_a_missing_package_names_the_extra():
    told = machine_error(ModuleNotFoundError("…", name="stable_baselines3.common"))
    assert "[reference]" in str(told)
    assert "PYTHONPATH" in str(machine_error(ModuleNotFoundError("…", name="my_environments")))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), ModuleNotFoundError("…", name="nasim")]
)
def test_what_the_machine_lacks_is_no_verdict_about_an_environment(monkeypatch, tmp_path, error):
    def fails(*_):
        raise error

    spec = find("inventory/LostSales-v0")
    expert = choosing.experts.find_all(spec.id)[0]._replace(factory=fails)
    monkeypatch.setattr(choosing.experts, "find_all", lambda *_: [expert])
    config = ReferenceConfig(episodes=2, budget_steps=0)
    with pytest.raises(MachineError):
        choosing.choose(spec, config, 0, tmp_path)


def test_a_worker_that_lacks_a_package_is_no_verdict(tmp_path):
    adapter = tmp_path / "lacks.py"
    adapter.write_text("import a_package_that_nobody_has\n")
    spec = find("inventory/LostSales-v0")

    with pytest.raises(MachineError, match="a_package_that_nobody_has"):
        choosing.choose(replace(spec, adapter=str(adapter)), ReferenceConfig(), 0, tmp_path)


def test_what_pip_does_not_bring_is_asked_for_before_anything_plays():
    lacking = replace(find("envpool/MazeEasy-v0"), shared=["libnobody-has-it.so.3"])
    with pytest.raises(MachineError, match=r"libnobody-has-it.so.3.*envpool/MazeEasy-v0.*Install"):
        installed.require_shared([find("envpool/CartPole-v1"), lacking])
    installed.require_shared([replace(lacking, shared=["libc.so.6"])])


def test_a_library_that_links_what_this_machine_lacks_is_no_verdict(monkeypatch, tmp_path):
    adapter = tmp_path / "links.py"
    adapter.write_text("import ctypes\nctypes.CDLL('libnobody-has-it.so.3')\n")
    shop = replace(find("inventory/LostSales-v0"), adapter=str(adapter))
    with pytest.raises(MachineError, match="libnobody-has-it"):
        make(shop, 1, 0)
    envpool = pytest.importorskip("envpool")

    def fails(*_, **__):
        raise ImportError("libnobody-has-it.so.3: cannot open shared object file")

    monkeypatch.setattr(envpool, "make", fails)
    with pytest.raises(MachineError, match="libnobody-has-it"):
        make("envpool/CartPole-v1", 1, 0)


SHOP = """
import pathlib
import gymnasium

class Shop(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        pathlib.Path(__file__).with_name("prices.txt").read_text()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        if not int(pathlib.Path(__file__).with_name("prices.txt").read_text()):
            raise ValueError("not a price")
        return int(action), float(action), True, False, {}
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """(an environment of an installed library, the library's file that it reads at every step)."""
    package, facts = tmp_path / "lib/shop", tmp_path / "lib/shop-1.0.dist-info"
    for folder in (package, facts):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text(SHOP)
    (package / "prices.txt").write_text("3")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    gone = "shop/__pycache__/__init__.cpython-311.pyc,,\n../../bin/shop,,\n"
    (facts / "RECORD").write_text(f"shop/__init__.py,,{len(SHOP)}\nshop/prices.txt,,1\n{gone}")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = EnvSpec(
        "shop/Shop",
        "shop",
        "shop:Shop",
        "worker",
        "games",
        "symbols",
        "Shop",
        1,
        "MIT",
        adapter="gym",
    )
    return spec, package / "prices.txt"


def test_a_library_that_lost_a_file_gives_no_verdict(shop, tmp_path):
    spec, prices = shop
    config = ReferenceConfig(episodes=4, budget_steps=0)
    whole = choosing.choose(spec, config, 0, tmp_path / "home")
    assert (whole.admitted, whole.reason) == (False, "no expert; no budget to learn")
    lost = r"prices\.txt of the package shop is gone or empty"
    for damage in (lambda: prices.write_text(""), prices.unlink):
        damage()
        with pytest.raises(MachineError, match=lost):
            choosing.choose(spec, config, 0, tmp_path / "home")
    with pytest.raises(MachineError, match=lost):
        make(spec, 1, 0)


def test_a_library_that_loses_a_file_while_it_plays_gives_no_verdict(shop):
    spec, prices = shop
    with contextlib.closing(make(spec, 1, 0)) as env:
        timestep, actor = env.reset(), RandomActor(env.action, 0)
        prices.unlink()
        with pytest.raises(MachineError, match=r"--force-reinstall --no-deps shop==1\.0"):
            for _ in range(20):
                timestep = env.step(actor.act(timestep))


def test_an_environment_that_fails_in_a_whole_library_is_its_own_fault(shop, tmp_path):
    spec, prices = shop
    prices.write_text("0")
    card = choosing.choose(spec, ReferenceConfig(episodes=4, budget_steps=0), 0, tmp_path / "home")
    assert not card.admitted and "not a price" in card.reason


def test_learners_that_are_not_installed_are_asked_for_before_anything_plays(monkeypatch, tmp_path):
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    recipe = Recipe("x", ["envpool/AcrobotSwingup-v1", "inventory/LostSales-v0"])
    monkeypatch.setattr(reference_run, "run_jobs", None)
    with pytest.raises(MachineError, match=r"\[reference\]"):
        reference_run.reference_stage(recipe, tmp_path)
    ended = replace(recipe, environments=recipe.environments[1:])  # has an expert
    with pytest.raises(TypeError):
        reference_run.reference_stage(ended, tmp_path)


def test_a_core_installation_says_so_before_it_loads_torch(tmp_path):
    code = """
import importlib.metadata as m, sys
real = m.Distribution.from_name.__func__
def without(cls, name):
    if name == "envpool":
        raise m.PackageNotFoundError(name)
    return real(cls, name)
m.Distribution.from_name = classmethod(without)
from ldm.cli import dispatch
try:
    dispatch(["run", "quickstart"])
finally:
    print(*sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert '"envpool" is not installed' in found.stderr.splitlines()[-1]
    assert not {"torch", "gymnasium", "scipy"} & {*found.stdout.split()}
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MachineError, match="permission denied"), folder_lock(tmp_path / "mix"):
        pass
    with pytest.raises(MachineError, match="permission denied"):
        write_json(tmp_path / "x.json", {})


def test_nobody_listens_at_ray_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray_pool.ray, "is_initialized", lambda: False)
    with pytest.raises(LdmError, match=r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1"):
        ray_pool.RayPool(1)


def test_a_script_without_a_main_guard_is_named(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from ldm.parallel.jobs import run_jobs\nrun_jobs(print, [('a job',)], 1, 'jobs')\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert "LdmError" in found.stderr and "main guard" in found.stderr
    assert "a job" not in found.stdout


def test_a_reader_that_leaves_ends_the_command_quietly():
    process = subprocess.Popen(
        [*COMMAND, "envs", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() in (1, 141) and said == b""  # 1: rich found out first


POOL = """
import os, sys, time
from ldm.parallel import local_pool
from ldm.parallel.jobs import run_jobs

if __name__ == "__main__":
    run_jobs(time.sleep, [(600,), (600,)], 2, "sleep")
"""
WORKER = """
import os, sys, time
from dataclasses import replace
from ldm.envs.catalogue import find
from ldm.envs.make import make

if __name__ == "__main__":
    make(replace(find("inventory/LostSales-v0"), adapter=sys.argv[1]), 1, 0)
"""
DIRECT = """
import sys
from dataclasses import replace
import numpy as np
from ldm.envs.catalogue import find
from ldm.envs.differential import direct

if __name__ == "__main__":
    spec = replace(find("inventory/LostSales-v0"), adapter=sys.argv[1])
    direct(spec, 0, [[np.zeros((1, 1))]])
"""
INSTALL = """
import sys
from ldm.envs import install
from ldm.envs.groups import group

if __name__ == "__main__":
    with open(sys.argv[1]) as lock:
        install._run([sys.executable, sys.argv[1]], group("gym"), lock.fileno())
"""
DOOM = """
import time
from ldm.envs.catalogue import find
from ldm.envs.make import make

if __name__ == "__main__":
    env = make(find("envpool/Basic-v1"), 2, 0)
    time.sleep(600)
"""
PARENTS = {"pool": POOL, "worker": WORKER, "direct": DIRECT, "install": INSTALL}


def carriers(mark: str) -> list[int]:
    """Processes with the mark in their environment; those that have ended have none."""
    return [pid for pid, words in variables() if f"TEST_MARK={mark}".encode() in words]


def name(pid: int) -> str:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def wait_until(holds) -> None:
    while not holds():
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("kind", PARENTS)
def test_no_process_outlives_a_parent_killed_at_its_start(tmp_path, kind, delay):
    script, adapter = tmp_path / "parent.py", tmp_path / "slow.py"
    script.write_text(PARENTS[kind])
    adapter.write_text("import time\ntime.sleep(600)\n")
    mark = f"{os.getpid()}-{kind}-{delay}"
    environment = os.environ | {"TEST_MARK": mark}
    parent = subprocess.Popen([sys.executable, script, adapter], env=environment)
    try:
        wait_until(lambda: len(carriers(mark)) > 1)
        time.sleep(delay)
        parent.kill()
        parent.wait()
        wait_until(lambda: not carriers(mark))
    finally:
        for pid in carriers(mark):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_processes_of_a_library_die_with_ours(tmp_path):
    """ViZDoom's, which envpool starts in C++: nothing asks them to."""
    script, mark = tmp_path / "parent.py", f"{os.getpid()}-doom"
    script.write_text(DOOM)
    parent = subprocess.Popen([sys.executable, script], env=os.environ | {"TEST_MARK": mark})
    try:
        wait_until(lambda: [name(pid) for pid in carriers(mark)].count("vizdoom") == 2)
        parent.kill()
        parent.wait()
        wait_until(lambda: not carriers(mark))
    finally:
        for pid in carriers(mark):
            os.kill(pid, signal.SIGKILL)


def test_a_process_whose_parent_has_died_ends_at_once():
    """The moment between a process's start and its asking the kernel."""
    code = "from ldm.parallel.parent import die_with; die_with({}); print('lives')"
    wrong = subprocess.run(
        [sys.executable, "-c", code.format(os.getpid() + 1)], capture_output=True, text=True
    )
    right = subprocess.run(
        [sys.executable, "-c", code.format(os.getpid())], capture_output=True, text=True
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert (right.returncode, right.stdout) == (0, "lives\n")
