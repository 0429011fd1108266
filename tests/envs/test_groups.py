"""Groups: the locks that ship, a real installation from a local package, and the switch of
interpreters with an environment that only the other one has."""

import itertools
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ldm.envs import groups
from ldm.envs.catalogue import load
from ldm.envs.check import check_environment
from ldm.envs.install import commands, install, installation
from ldm.envs.make import make
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

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
        (locks / f"{name}.txt").write_text(f"# A test\n{lock}")
        write_wheel(wheels)
        return groups.group(name)

    yield one
    groups.group.cache_clear()


def write_wheel(folder: Path) -> None:
    """relic.py as an installable package, by hand: nothing is built or fetched."""
    info = "relic-1.0.dist-info"
    with zipfile.ZipFile(folder / "relic-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("relic.py", RELIC.read_text())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: relic\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


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
    with pytest.raises(LdmError, match=r"No module named 'gymnasium'(.|\n)*relics\.txt"):
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
    group = group_of("absent", "relic==1.0\nabsent==7.0\n")
    with pytest.raises(
        LdmError, match=r"No matching distribution found for absent==7\.0"
    ) as caught:
        install(group)
    assert '"ldm envs install absent"' in str(caught.value) and "absent.txt" in str(caught.value)
    assert installation(group) is None


def test_another_lock_is_another_folder(group_of, tmp_path):
    first = group_of("relics", "relic==1.0\n")
    (tmp_path / "locks" / "relics.txt").write_text("# A test\nrelic==1.1\n")
    groups.group.cache_clear()
    assert groups.group("relics").folder != first.folder


def test_uv_is_used_where_it_is(group_of, monkeypatch):
    group = group_of("relics", "relic==1.0\n")
    assert commands(group)[1][:3] == [sys.executable, "-m", "pip"]
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert [command[0] for command in commands(group)] == ["/bin/uv", "/bin/uv"]


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
    assert all(clash(group, main) or "pygame" in group for group in pins.values())
    apart = ["gym", "gymnasium-0.29", "nethack", "power", "simglucose"]
    for one, other in itertools.combinations(apart, 2):
        assert clash(pins[one], pins[other]), (one, other)
    assert pins["gym"]["numpy"].startswith("1.") and pins["gym"]["gym"] == "0.26.2"
    assert pins["gymnasium-0.29"]["gymnasium"] == "0.29.1"


def test_every_group_of_the_catalogue_has_a_lock_that_holds_its_libraries():
    for spec in load().values():
        if spec.group != "main":
            pins = groups.group(spec.group).pins
            for package in spec.packages or [spec.library]:
                assert package.lower().replace("_", "-") in pins, spec.id
