"""Groups: the locks that ship, a real installation from a local package, and the switch of
interpreters with an environment that only the other one has."""

import hashlib
import itertools
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version

from ldm.envs import groups
from ldm.envs.catalogue import load
from ldm.envs.check import check_environment
from ldm.envs.install import commands, install, installation
from ldm.envs.lock import usable
from ldm.envs.make import make
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

ONE = Version("1.0")
RELIC = Path(__file__).with_name("relic.py")


@pytest.fixture
def group_of(tmp_path, monkeypatch):
    """group_of(name, lock): a group of the tests' own, with a cache of its own and no network."""
    locks, wheels = tmp_path / "locks", tmp_path / "wheels"
    locks.mkdir()
    wheels.mkdir()
    monkeypatch.setattr(groups, "LOCKS", locks)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PATH", os.defpath)  # where no uv is
    groups.group.cache_clear()

    def one(name: str, lock: str) -> groups.Group:
        digest = hashlib.sha256(write_wheel(wheels).read_bytes()).hexdigest()
        text = lock.replace("relic==1.0\n", f"relic==1.0 \\\n    --hash=sha256:{digest}\n")
        (locks / f"{name}.txt").write_text(f"# A test\n{text}")
        return groups.group(name)

    yield one
    groups.group.cache_clear()


def write_wheel(folder: Path) -> Path:
    """relic.py as an installable package, by hand: nothing is built or fetched."""
    info, path = "relic-1.0.dist-info", folder / "relic-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("relic.py", RELIC.read_text())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: relic\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def walk(group: str, **options) -> EnvSpec:
    return EnvSpec(
        id="relic/Walk",
        library="relic",
        make="relic:Walk",
        backend="worker",
        domain="games",
        modality="vector",
        base_task="Walk",
        horizon=50,
        licence="MIT",
        group=group,
        adapter="gym",
        options=options,
    )


def lend_numpy(group: groups.Group) -> None:
    """Our numpy, and nothing else of ours, for the group's interpreter."""
    (site,) = (group.folder / "lib").glob("python*/site-packages")
    for path in Path(np.__file__).parents[1].glob("numpy*"):
        (site / path.name).symlink_to(path)


def test_a_group_is_installed_and_hosts_what_only_it_has(group_of, monkeypatch, tmp_path, capfd):
    group = group_of("relics", "relic==1.0\n")
    assert installation(group) is None
    with pytest.raises(LdmError, match='"ldm envs install relics"'):
        make(walk("relics"), 1, seed=0)
    install(group)
    assert "relics: 1 packages in" in capfd.readouterr().err
    facts = installation(group)
    install(group)
    assert installation(group) == facts  # once is enough
    lend_numpy(group)
    (tmp_path / "relic.py").write_text("raise ImportError('not the group\\'s own')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # ours must not reach the other interpreter
    result = check_environment(walk("relics"), steps=60)
    assert result.ok and result.deterministic, result.reason
    assert result.terminated > 0
    with pytest.raises(LdmError, match=r"add the package of gymnasium to .*relics\.txt"):
        make(EnvSpec(**{**vars(walk("relics")), "adapter": "gymnasium"}), 1, seed=0)


def test_the_old_interface_speaks_todays(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(RELIC.parent))  # here the group is our own

    def play(streams, seed):
        env = make(walk("main", limit=3), streams, seed)
        try:
            timesteps = [env.reset()]
            timesteps += [env.step([np.arange(streams) % 2]) for _ in range(5)]
        finally:
            env.close()
        return timesteps

    timesteps = play(2, 7)
    assert [timestep.truncated.tolist() for timestep in timesteps[2:5]] == [
        [False] * 2,
        [True] * 2,
        [False] * 2,
    ]
    assert (
        not any(timestep.terminated.any() for timestep in timesteps) and timesteps[4].started.all()
    )
    places = np.stack([timestep.observation[0] for timestep in timesteps])
    assert (places[:, 0, 1] == places[0, 1, 1]).all()  # one problem, whichever the stream
    alone = np.stack([timestep.observation[0] for timestep in play(1, 7)])
    np.testing.assert_array_equal(places[:, :1], alone)  # what else draws does not matter


def test_what_a_stopped_installation_left_is_removed(group_of):
    group = group_of("relics", "relic==1.0\n")
    group.folder.mkdir(parents=True)
    (group.folder / "half").write_text("of a file")
    assert installation(group) is None
    install(group)
    assert installation(group)["megabytes"] >= 0 and not (group.folder / "half").exists()


def test_a_failed_installation_ends_with_what_pip_said(group_of):
    group = group_of("absent", f"relic==1.0\nabsent==7.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(
        LdmError, match=r"No matching distribution found for absent==7\.0"
    ) as caught:
        install(group)
    assert '"ldm envs install absent"' in str(caught.value) and "absent.txt" in str(caught.value)
    assert installation(group) is None


def test_a_file_with_another_hash_is_refused_in_one_line(group_of, tmp_path):
    group = group_of("relics", "relic==1.0\n")
    wheel = tmp_path / "wheels/relic-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    got = hashlib.sha256(wheel.read_bytes()).hexdigest()[:12]
    with pytest.raises(LdmError, match=rf"relic==1\.0 has SHA-256 {got}.*relics\.txt") as caught:
        install(group)
    assert "\n" not in str(caught.value) and installation(group) is None


def test_a_pin_without_a_hash_is_refused(group_of):
    group = group_of("bare", "relic == 1.0\n")
    with pytest.raises(LdmError, match=r"(?i)hashes are required"):
        install(group)
    assert installation(group) is None


def test_what_builds_sources_is_pinned_and_installed_first(group_of, tmp_path):
    group = group_of("relics", "relic==1.0\n")
    folder = group.folder
    (tmp_path / "locks/builders").mkdir()
    (tmp_path / "locks/builders/relics.txt").write_text(group.lock.read_text())
    groups.group.cache_clear()
    group = groups.group("relics")
    assert group.folder != folder  # another builder, another installation
    files = [command[-1] for command in commands(group)[1:]]
    assert files == [str(group.build), str(group.lock)]
    install(group)
    assert installation(group)


def test_only_what_linux_can_use_is_locked():
    names = [
        "a-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "a-1.0-cp311-cp311-win_amd64.whl",
        "a-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1.0-cp310-cp310-manylinux_2_28_x86_64.whl",
        "a-1.1-py3-none-any.whl",
        "a-1.0.tar.gz",
        "a-1.0.win32.exe",
    ]
    taken = lambda *more: [f["filename"] for f in usable(list(map(file, [*names, *more])), ONE)]
    file = lambda name: {"filename": name}
    assert taken() == [*names[:2], "a-1.0.tar.gz"]  # a source where one machine has no wheel
    assert taken("a-1.0-cp311-abi3-manylinux2014_x86_64.whl")[-1] == "a-1.0.tar.gz"
    assert taken("a-1.0-py3-none-any.whl") == [*names[:2], "a-1.0-py3-none-any.whl"]


def test_another_lock_is_another_folder(group_of, tmp_path):
    first = group_of("relics", "relic==1.0\n")
    (tmp_path / "locks" / "relics.txt").write_text("# A test\nrelic==1.1\n")
    groups.group.cache_clear()
    assert groups.group("relics").folder != first.folder


def test_uv_is_used_where_it_is(group_of, monkeypatch):
    group = group_of("relics", "relic==1.0\n")
    assert all("--require-hashes" in command for command in commands(group)[1:])
    assert commands(group)[1][:3] == [sys.executable, "-m", "pip"]
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert [command[0] for command in commands(group)] == ["/bin/uv", "/bin/uv"]
    assert all("--require-hashes" in command for command in commands(group)[1:])


@pytest.mark.parametrize(
    "lock, words", [("relic>=1.0\n", 'relics.txt:2: expected "package==version", got "relic>=1.0"')]
)
def test_a_lock_pins(lock, words, group_of):
    with pytest.raises(LdmError, match=words):
        group_of("relics", lock)


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(LdmError, match='nearest: "nethack"'):
        groups.group("nethak")


def test_a_lost_lock_is_named(group_of, tmp_path):
    group_of("relics", "relic==1.0\n")
    groups.group.cache_clear()
    (tmp_path / "locks/relics.txt").unlink()
    with pytest.raises(LdmError, match=rf"no {tmp_path}/locks/relics\.txt"):
        groups.group("relics")


def clash(one: dict[str, str], other: dict[str, str]) -> bool:
    return any(one[package] != other[package] for package in one.keys() & other.keys())


def test_the_groups_that_ship_cannot_live_together():
    root = Path(__file__).parents[2]
    lines = (root / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    main = dict(line.partition(" ;")[0].split("==") for line in lines if "==" in line)
    pins = {name: groups.group(name).pins for name in groups.names()}
    assert "pygame-ce" in main  # it and pygame write the same files
    large = {"open-spiel"}  # nothing clashes: apart so that [envs] stays small
    for name, group in pins.items():
        assert (clash(group, main) or "pygame" in group) != (name in large), name
    apart = ["gym", "gymnasium-0.29", "nethack", "power", "simglucose"]
    for one, other in itertools.combinations(apart, 2):
        assert clash(pins[one], pins[other]), (one, other)
    assert pins["gym"]["numpy"].startswith("1.") and pins["gym"]["gym"] == "0.26.2"
    assert pins["gymnasium-0.29"]["gymnasium"] == "0.29.1"


def test_every_pin_that_ships_has_hashes():
    for lock in groups.LOCKS.rglob("*.txt"):
        text = lock.read_text()
        joined = text.replace(" \\\n", "").splitlines()
        pinned = [line for line in joined if line and not line.startswith("#")]
        assert pinned and all("--hash=sha256:" in line for line in pinned), lock
        assert len(pinned) == len(groups.read_pins(lock, text)), lock


def test_every_group_of_the_catalogue_has_a_lock_that_holds_its_libraries():
    for spec in load().values():
        if spec.group != "main":
            pins = groups.group(spec.group).pins
            for package in spec.packages or [spec.library]:
                assert package.lower().replace("_", "-") in pins, spec.id
