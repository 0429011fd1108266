import json
import os
import pickle
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ldm.data.sealed import write_sealed
from ldm.errors import LdmError
from ldm.train.checkpoint import Checkpoints
from ldm.train.checkpoint_files import facts_of
from ldm.train.pieces import Piece, Snapshot
from ldm.train.ranks import Alone

CONFIG = {"architecture": {"layers": 2, "width": 8}, "tokens": {"context": 64}}
MIX = "a" * 64
FILES = [
    "config.json",
    "environments.json",
    "model.safetensors",
    "rank-00000-of-00001.safetensors",
    "recipe.json",
    "state.json",
]


class Engine(Alone):
    """An engine of two weights and a moment."""

    name, precision, zero_stage, updates = "torch", "fp32", 0, 3

    class config:
        optimizer = "adamw"

    def __init__(self, value=0.0):
        super().__init__()
        self.value, self.shapes = value, {"a.b": [2, 3], "norm": [4]}

    def pieces(self):
        yield Piece("a.b", "weight", 0, torch.full((2,), self.value))
        yield Piece("a.b", "weight", 2, torch.full((4,), self.value + 1))
        yield Piece("norm", "weight", 0, torch.arange(4.0))
        yield Piece("norm", "exp_avg", 0, torch.ones(4))


def make(folder, config=CONFIG, mix=MIX, **settings):
    return Checkpoints(folder, config, [{"id": "toy/a"}], mix, {"seed": 5}, **settings)


@pytest.fixture
def checkpoints(tmp_path):
    made = make(tmp_path)
    yield made
    made.close()


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, Engine(float(step)))
    checkpoints.finish(Engine())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_and_the_link_names_the_last(checkpoints, tmp_path):
    assert checkpoints.latest() is None and checkpoints.newest_whole(Alone()) is None
    save(checkpoints, 5, 10, 15)
    assert names(tmp_path / "checkpoints") == ["step-00000010", "step-00000015"]
    assert (tmp_path / "model").resolve() == checkpoints.latest()
    assert names(tmp_path / "model") == FILES
    assert json.loads((tmp_path / "model/environments.json").read_text()) == [{"id": "toy/a"}]
    assert json.loads((tmp_path / "model/recipe.json").read_text()) == {"seed": 5}


def test_as_many_are_kept_as_asked_and_every_so_many_for_good(tmp_path):
    checkpoints = make(tmp_path, keep=1, keep_every=10)
    save(checkpoints, 5, 10, 15, 20, 25)
    kept = ["step-00000010", "step-00000020", "step-00000025"]
    assert names(tmp_path / "checkpoints") == kept
    checkpoints.close()


def test_what_is_not_ours_by_its_full_name_is_left_alone(checkpoints, tmp_path):
    others = ["step-best", "step-00000001.bad", "step-000000002", ".step-mine.tmp", "step-1"]
    for name in others:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    save(checkpoints, 5, 10, 15)
    checkpoints.clean()
    expected = sorted([*others, "step-00000010", "step-00000015"])
    assert names(tmp_path / "checkpoints") == expected
    assert checkpoints.latest().name == "step-00000015"


def test_what_users_load_is_put_together_from_the_pieces_and_holds_no_optimiser(checkpoints):
    save(checkpoints, 5)
    weights = load_file(checkpoints.latest() / "model.safetensors")
    assert weights["a.b"].tolist() == [[5.0, 5.0, 6.0], [6.0, 6.0, 6.0]]
    assert weights.keys() == {"a.b", "norm"}


def test_any_part_of_a_parameter_is_read_from_the_pieces(checkpoints):
    save(checkpoints, 5)
    path, state = checkpoints.newest_whole(Alone())
    held = checkpoints.pieces(path, state)
    assert held.read("a.b", "weight", 1, 3).tolist() == [5.0, 6.0, 6.0]
    assert held.read("norm", "exp_avg", 2, 2).tolist() == [1.0, 1.0]
    with pytest.raises(KeyError):
        held.read("a.b", "weight", 4, 3)
    assert (state["step"], state["engine"], state["world"], state["updates"]) == (5, "torch", 1, 3)


def test_the_group_may_read_it(checkpoints):
    before = os.umask(0o027)
    try:
        save(checkpoints, 5)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in checkpoints.latest().iterdir()}
    assert modes == {0o640}


def test_a_failed_write_is_told_and_leaves_the_one_before_and_no_rest(checkpoints, tmp_path):
    save(checkpoints, 5)
    engine = Engine(2.0)
    engine.shapes = {"a.b": [2, 3], "absent": [1]}  # what only the writing thread finds out
    checkpoints.save(10, engine)
    with pytest.raises(KeyError):
        checkpoints.wait()
    assert names(tmp_path / "checkpoints") == ["step-00000005"]


def test_what_a_killed_process_left_is_no_checkpoint_and_is_removed(checkpoints, tmp_path):
    save(checkpoints, 5)
    for name in (".step-00000010.tmp", ".step-00000001.old.tmp"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / "model").unlink()  # killed between the rename and the link
    assert checkpoints.latest().name == "step-00000005"
    checkpoints.clean()
    assert names(tmp_path / "checkpoints") == ["step-00000005"]
    assert (tmp_path / "model/model.safetensors").exists()


@pytest.mark.parametrize(
    "config, mix, told",
    [
        ({"architecture": {"layers": 4, "width": 8}}, MIX, r"architecture \(layers is 2, here 4\)"),
        ({"tokens": {"context": 128}}, MIX, r"tokens \(context is 64, here 128\)"),
        ({}, "b" * 64, "trained on the mix aaaaaaaaaaaa, the mix folder now holds bbbbbbbbbbbb"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(checkpoints, tmp_path, config, mix, told):
    save(checkpoints, 5)
    with pytest.raises(LdmError, match=told):
        make(tmp_path, CONFIG | config, mix).newest_whole(Alone())


def test_one_of_an_older_version_is_refused_and_stays(checkpoints, tmp_path):
    path = tmp_path / "checkpoints/step-00000005"
    path.mkdir(parents=True)
    (path / "state.json").write_text('{"schema": 1, "step": 5}')
    with pytest.raises(LdmError, match="schema 1, this version reads 2"):
        checkpoints.newest_whole(Alone())
    assert path.exists()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :]


DAMAGE = {
    "flipped early": lambda data: flip(data, 3),
    "flipped late": lambda data: flip(data, len(data) - 3),
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "missing": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_any_kind_sets_the_checkpoint_aside(checkpoints, name, damage, capfd):
    save(checkpoints, 5, 10)
    path = checkpoints.latest() / name
    if DAMAGE[damage]:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    else:
        path.unlink()
    found, state = checkpoints.newest_whole(Alone())
    assert (found.name, state["step"]) == ("step-00000005", 5)
    assert names(checkpoints.folder) == ["step-00000005", "step-00000010.bad"]
    told = capfd.readouterr().err
    assert "DAMAGED CHECKPOINT" in told and name in told and "Traceback" not in told


class Planted:
    def __reduce__(self):
        return os.system, ("touch $PLANTED",)


@pytest.mark.parametrize("name", FILES)
def test_a_planted_pickle_is_never_run(checkpoints, tmp_path, name, monkeypatch):
    """Neither as it is, nor where whoever planted it made every checksum right."""
    monkeypatch.setenv("PLANTED", str(tmp_path / "ran"))
    save(checkpoints, 5, 10)
    path = checkpoints.latest()
    (path / name).write_bytes(pickle.dumps(Planted()))
    if name != "state.json":
        state = json.loads((path / "state.json").read_text())
        facts = facts_of(path / name)
        state["files"][name], state["bytes"][name] = facts["sha256"], facts["bytes"]
        write_sealed(path / "state.json", state)
    try:
        found, state = checkpoints.newest_whole(Alone())
        checkpoints.pieces(found, state)
    except LdmError:
        pass
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("sizes", [[], [1], [5, 0, 3]])
def test_a_copy_is_whole_and_takes_the_buffers_that_were_prepared(sizes):
    rng = np.random.default_rng(0)
    pieces = [
        Piece(f"p{i}", "weight", 0, torch.from_numpy(rng.random(n, np.float32)))
        for i, n in enumerate(sizes)
    ]
    snapshot = Snapshot()
    for prepared in (False, True):
        if prepared:
            snapshot.prepare({piece.key: (piece.values.numel(), False) for piece in pieces})
            places = {key: buffer.data_ptr() for key, buffer in snapshot.buffers.items()}
        taken = snapshot.take(pieces)
        assert taken.keys() == {piece.key for piece in pieces}
        assert all(torch.equal(taken[piece.key], piece.values) for piece in pieces)
    assert all(taken[key].data_ptr() == place for key, place in places.items())
