"""The files that start training on a cluster, read by what reads them and run as far as one machine
can: SLURM's script with stand-ins for its commands, two hosts in network namespaces."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from test_deepspeed import write_recipe
from test_train_run import changed

from ldm.train.launch import GRACE

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs/cluster"
SCRIPTS = Path(sys.executable).parent


def test_the_launcher_reads_the_hostfile():
    runner = pytest.importorskip("deepspeed.launcher.runner")
    assert runner.fetch_hostfile(str(FILES / "hostfile")) == {"node-0": 8, "node-1": 8}


def stand_ins(folder: Path, srun: str) -> dict[str, str]:
    """The environment of a SLURM batch script of one node, `srun` and `scontrol` stood in for."""
    (folder / "bin").mkdir()
    scontrol = 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >>requeued; fi'
    for name, body in {"srun": srun, "scontrol": scontrol}.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{folder / 'bin'}:{SCRIPTS}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node", "SLURM_GPUS_ON_NODE": "2",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.mark.parametrize("status, requeued", [(0, False), (1, False), (130, True), (137, True)])
def test_slurm_requeues_what_was_saved_or_killed_and_nothing_else(tmp_path, status, requeued):
    srun = f'cat hosts.* >seen; printf "%s\\n" "$@" >>seen; exit {status}'
    command = ["bash", FILES / "slurm.sh", "tiny.toml", "--train.steps", "5"]
    done = subprocess.run(command, cwd=tmp_path, env=stand_ins(tmp_path, srun))
    assert done.returncode == status
    assert (tmp_path / "requeued").exists() == requeued
    first, *words = (tmp_path / "seen").read_text().splitlines()
    assert first == "127.0.0.1 slots=2" and words[-3:] == ["tiny.toml", "--train.steps", "5"]
    assert not list(tmp_path.glob("hosts.*"))


def test_slurm_asks_for_the_signal_early_enough():
    text = (FILES / "slurm.sh").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("#SBATCH --signal="))
    assert line.startswith("#SBATCH --signal=USR1@")  # without B: to the step's processes
    assert int(line.partition("@")[2]) > 2 * GRACE


@pytest.mark.slow
def test_slurms_script_trains_saves_at_the_signal_and_requeues(folder, recipe):
    pytest.importorskip("deepspeed")
    home = folder.parents[1]
    write_recipe(changed(recipe, steps=10**6, log_every=2, checkpoint_every=10**6), home / "t.toml")
    # what SLURM's does: one task, which gets the signal some steps later
    srun = """shift; SLURM_NODEID=0 "$@" & task=$!
    until [ "$(grep -c '"loss"' runs/tiny/train/log.jsonl)" -ge 3 ]; do sleep 0.2; done
    kill -USR1 $task; wait $task"""
    command = ["bash", FILES / "slurm.sh", "t.toml"]
    environment = stand_ins(home, srun)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode >= 128, done.stdout + done.stderr
    assert json.loads((folder / "train/model/state.json").read_text())["world"] == 2
    assert (home / "requeued").read_text().startswith("requeue ")


def test_kubernetes_starts_a_rank_group_a_pod_and_waits_for_it_to_save():
    service, hosts, job = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["terminationGracePeriodSeconds"] > GRACE
    names = [
        f"{job['metadata']['name']}-{i}.{pod['subdomain']}" for i in range(spec["completions"])
    ]
    (train,) = pod["containers"]
    gpus = train["resources"]["limits"]["nvidia.com/gpu"]
    assert hosts["data"]["hostfile"].splitlines() == [f"{name} slots={gpus}" for name in names]
    assert f"--master_addr={names[0]}" in train["args"]
    mounted = {mount["name"] for mount in train["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    runner = pytest.importorskip("deepspeed.launcher.runner")
    given = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in train["args"]]
    parsed = runner.parse_args(given[1:])  # as Kubernetes gives it to `deepspeed`
    assert given[0] == "deepspeed" and parsed.node_rank == 1
    assert parsed.no_ssh and parsed.module and parsed.user_script == "ldm.train"
    assert parsed.user_args == ["ldm-v0"] and parsed.master_addr == names[0]


def test_the_container_installs_what_there_is_and_starts_our_launcher():
    lines = (FILES / "Containerfile").read_text().replace("\\\n", "").splitlines()
    steps = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    done = dict(steps)
    assert done["FROM"].startswith("python:3.11") and steps[-2][0] == "ENTRYPOINT"
    (install,) = (text for word, text in steps if word == "RUN" and "pip install" in text)
    extras = set(install.partition('".[')[2].partition("]")[0].split(","))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras and extras <= known["optional-dependencies"].keys()
    assert (ROOT / "constraints.txt").exists() and "constraints.txt" in install
    entry = json.loads(done["ENTRYPOINT"])
    assert entry == ["python", "-m", "ldm.train.launch"]
    runner = pytest.importorskip("torch.distributed.run")
    parsed = runner.parse_args(json.loads(done["CMD"])[1:])
    assert parsed.standalone and parsed.module and parsed.training_script == "ldm.train"


def ip(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def hosts(request):
    """Two network namespaces joined by a cable; skips where this user may not make them."""
    names = [f"ldm{os.getpid()}-{i}" for i in range(2)]
    if not shutil.which("ip") or ip("netns", "add", names[0]).returncode:
        pytest.skip("network namespaces are not permitted here")
    request.addfinalizer(lambda: [ip("netns", "del", name) for name in names])
    ip("netns", "add", names[1])
    cable = [f"l{os.getpid() % 10**6}{end}" for end in "ab"]
    ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
    for i, (name, end) in enumerate(zip(names, cable)):
        ip("link", "set", end, "netns", name, "name", "eth0")
        for words in (
            f"addr add 10.213.7.{i + 1}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
        ):
            done = ip("-n", name, *words.split())
            assert not done.returncode, done.stderr
    return names


@pytest.mark.slow
def test_two_hosts_train_as_one_under_the_deepspeed_launcher(folder, recipe, hosts):
    pytest.importorskip("deepspeed")
    home = folder.parents[1]
    write_recipe(changed(recipe, steps=6, checkpoint_every=3), home / "tiny.toml")
    (home / "hosts").write_text("10.213.7.1 slots=1\n10.213.7.2 slots=1\n")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
    environment["PATH"] = f"{SCRIPTS}:{os.environ['PATH']}"
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-m", "ldm.train.launch",
             SCRIPTS / "deepspeed", "--hostfile", "hosts", "--no_ssh", "--node_rank", str(i),
             "--master_addr", "10.213.7.1", "--master_port", "29511",
             "--module", "ldm.train", "tiny.toml"],
            cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i, name in enumerate(hosts)
    ]  # fmt: skip
    told = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)
    state = json.loads((folder / "train/model/state.json").read_text())
    assert (state["world"], state["step"]) == (2, 6)
