"""Environments of a user's own package: by name, by TOML, by entry point; what is wrong is said."""

import os
from dataclasses import replace

import pytest

from ldm.config import Recipe, load_recipe
from ldm.envs import catalogue, commands, own, source
from ldm.envs.check import check_environment
from ldm.envs.groups import library_versions
from ldm.errors import LdmError, MachineError
from ldm.reference import experts
from tests.envs import own_package

LOCK = "gym:acme_envs:acme/Lock-v0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_package.write(tmp_path_factory.mktemp("own"))


@pytest.fixture
def package(folder, monkeypatch):
    """The package where this process, and workers, find it."""
    experts.find("")  # all of ours are registered
    monkeypatch.setattr(experts, "_experts", dict(experts._experts))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    yield folder
    catalogue.load.cache_clear()


def test_a_name_alone_is_enough(package):
    spec = catalogue.find(LOCK)
    assert (spec.id, spec.library, spec.base_task) == (LOCK, "acme_envs", "acme/Lock-v0")
    assert (spec.horizon, spec.modality, spec.domain, spec.held_out) == (20, "vector", "own", False)
    assert check_environment(spec).reason == ""
    assert catalogue.expand([LOCK, "nasim/Tiny", LOCK]) == [LOCK, "nasim/Tiny"]


@pytest.mark.parametrize("name, pays", [("Late-v0", 2.0), ("Lock", 1.0)])
def test_what_a_function_registers_and_a_class(package, name, pays):
    checked = check_environment(catalogue.find(f"gym:acme_envs:{name}"))
    assert checked.reason == "" and checked.rewards == (0.0, pays)


def test_a_library_that_holds_one_instance_a_process(package):
    spec = catalogue.find("gym:acme_envs:Shared")
    assert "another instance began an episode" in check_environment(spec).reason
    checked = check_environment(replace(spec, alone=True))
    assert (checked.reason, checked.like_library) == ("", True)


def test_a_toml_of_ones_own(package):
    (package / "run.toml").write_text(
        f'name = "own"\nenvironments = ["acme/*", "{LOCK}"]\ncatalogue = ["acme.toml"]\n'
    )
    recipe = load_recipe(str(package / "run.toml"))
    specs = catalogue.of(recipe)
    assert [spec.id for spec in specs] == ["acme/1", "acme/3", LOCK]
    assert {spec.domain for spec in specs[:2]} == {"locksmithing"}
    assert [spec.horizon for spec in specs] == [12, 12, 20]
    assert check_environment(specs[1]).rewards == (0.0, 3.0)
    in_folder = Recipe("own", ["acme/1"], catalogue=[str(package)])
    (package / "run.toml").unlink()  # a folder holds nothing but environments
    assert [spec.id for spec in catalogue.of(in_folder)] == ["acme/1"]
    (expert,) = experts.find_all("acme/3", specs[1].experts)
    assert expert.name == "experts.largest"


def test_own_environments_change_nothing_of_the_catalogue(package):
    own_ones = catalogue.load((str(package / "acme.toml"),))
    assert {id: own_ones[id] for id in catalogue.load()} == catalogue.load()
    assert not any(spec.held_out for id, spec in own_ones.items() if id not in catalogue.load())


def test_the_command_takes_files_and_names(package, capsys):
    commands.perform("list", [str(package / "acme.toml"), LOCK])
    printed = capsys.readouterr().out
    assert all(id in printed for id in ("acme/1", "acme/3", LOCK)) and "envpool" not in printed
    specs = commands.named([str(package / "acme.toml"), LOCK])
    assert [spec.id for spec in specs] == ["acme/1", "acme/3", LOCK]


def test_the_check_finds_what_is_named_from_here(tmp_path, monkeypatch, capsys):
    own_package.write(tmp_path)
    (tmp_path / "near.toml").write_text(
        '[library]\nlibrary = "near"\n[[environment]]\nmake = "x:Near"\nadapter = "near.py"\n'
    )
    (tmp_path / "near.py").write_text(
        "import acme_envs\n\n\ndef build(make, split):\n    return acme_envs.Lock()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".", prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    commands.perform("check", ["near.toml", LOCK], results=tmp_path / "check.jsonl")
    assert "2 of 2 keep the contract" in capsys.readouterr().out
    with pytest.raises(LdmError, match="1 environments fail the check: gym:acme_envs:Shared"):
        commands.perform("check", ["gym:acme_envs:Shared"], results=tmp_path / "check.jsonl")
    assert "\ngym:acme_envs:Shared: " in capsys.readouterr().out


def test_entry_points_of_an_installed_package(package, tmp_path, monkeypatch):
    (tmp_path / "acme_catalogue").mkdir()
    (tmp_path / "acme_catalogue/__init__.py").touch()
    (tmp_path / "acme_catalogue/acme.toml").write_text(own_package.TOML.replace("acme/", "acme/e"))
    theirs = own_package.EXPERTS.replace('"acme/*", "gym:acme_envs:*"', '"acme/e?"')
    (tmp_path / "acme_catalogue/theirs.py").write_text(theirs)
    groups = {"ldm.catalogue": "acme_catalogue", "ldm.experts": "acme_catalogue.theirs"}
    own_package.install(tmp_path, groups)
    monkeypatch.syspath_prepend(tmp_path)
    source.homes.cache_clear()
    catalogue.load.cache_clear()
    try:
        spec = catalogue.find("acme/e3")
        assert (spec.licence, library_versions(spec)) == ("MIT", {"acme-envs": "1.2"})
        experts._import_topics.cache_clear()
        (found,) = [e for e in experts.find_all("acme/e3") if e.name == "theirs.largest"]
        assert found.factory(spec).id == "scripted/largest@1"
    finally:
        source.homes.cache_clear()


WRONG = {
    "gym:acme_envs:Lokc": r'no environment "Lokc" in the package acme_envs \(nearest: "Lock"\): '
    r".* it registers Broken-v0, Late-v0, Strange-v0, acme/Lock-v0",
    "gym:acme_envs:Broken-v0": "cannot be built:\n(.*\n)*RuntimeError: no map was given",
    "gym:acme_envs:Strange-v0": "action_space: space Knots has no flat form",
    "gym:acme_envs:Sized": r"cannot be built: TypeError: Sized.__init__\(\) missing 1 required "
    r"positional argument: 'size' \(gymnasium.py, line \d+\); `options` of its entry in a TOML",
    "gym:acme_envs:register_late": "cannot be built: expected an environment with "
    "observation_space, .* got NoneType without observation_space, action_space, reset, step",
    "gym:CartPol-v1": "doesn't exist. Did you mean: `CartPole`.* package:id",
    "gym:": r'"gym:": expected "gym:package:Id-v0"',
    "acme/Lock": r'no environment "acme/Lock" in the catalogue .* your own: "gym:package:Id-v0"',
}


@pytest.mark.parametrize("id", WRONG)
def test_what_is_wrong_is_said(package, id):
    with pytest.raises(LdmError, match=WRONG[id]):
        catalogue.find(id)


def test_a_form_of_old_gym_is_named(package):
    spec = catalogue.find("gym:acme_envs:Old")
    told = check_environment(spec, steps=4).reason
    assert "reset gave ndarray, expected observation, info; old Gym's form is" in told
    assert check_environment(replace(spec, make="acme_envs:Old", adapter="gym"), steps=4).ok


def test_a_package_that_is_not_there_is_the_machines_fault():
    with pytest.raises(MachineError, match='"acme_enws" is not installed: install it, or add its'):
        catalogue.find("gym:acme_enws:Lock-v0")


@pytest.mark.parametrize(
    "text, words",
    [
        ("[library\n", "is not TOML"),
        ("[libary]\n", r'unknown "libary" \(nearest: "library"\)'),
        ('[[environment]]\nmake = "a:B"\nhorizons = 3\n', r'unknown key "horizons"'),
        ('[[environment]]\nmake = "a:B"\nmodality = "sound"\n', 'modality "sound" is not one of'),
        ('[[environment]]\nid = "nasim/Tiny"\nmake = "a:B"\n', 'starts with its library, "wrong/"'),
        ('[library]\nlibrary = "nasim"\n[[environment]]\nid = "nasim/Tiny"\nmake = "a:B"\n',
         "stands in the catalogue already: rename it"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_named(tmp_path, text, words):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(LdmError, match=f"wrong.toml.*{words}"):
        catalogue.load((str(tmp_path / "wrong.toml"),))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(LdmError, match=r"none.toml: No such file .* expected a TOML"):
        catalogue.load((str(tmp_path / "none.toml"),))
    with pytest.raises(LdmError, match=r"expected \*.toml files of environments in .* got none"):
        catalogue.load((str(tmp_path),))


RAISES = 'raise RuntimeError("no licence server")\n'


@pytest.mark.parametrize("group", ["ldm.catalogue", "ldm.experts"])
def test_an_entry_point_that_raises(group, tmp_path, monkeypatch):
    (tmp_path / "bad_acme").mkdir()
    (tmp_path / "bad_acme/__init__.py").write_text(RAISES)
    (tmp_path / "bad_acme/part.py").touch()
    own_package.install(tmp_path, {group: "bad_acme.part"})
    monkeypatch.syspath_prepend(tmp_path)
    catalogue.load.cache_clear()
    experts._import_topics.cache_clear()
    try:
        with pytest.raises(LdmError, match=f"{group} .*acme.* of acme-envs.*no licence server"):
            catalogue.load() if group == "ldm.catalogue" else experts.find_all("nasim/Tiny")
    finally:
        monkeypatch.undo()
        catalogue.load.cache_clear()
        experts._import_topics.cache_clear()
        experts.find("")


def test_experts_that_raise_are_named(package):
    (package / "raises.py").write_text(RAISES)
    spec = replace(own.named(LOCK), experts=[str(package / "raises.py")])
    with pytest.raises(LdmError, match=r"experts of gym:.* raised RuntimeError: no licence server"):
        experts.names(spec.id, spec.experts)
