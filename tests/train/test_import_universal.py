"""Universal checkpoints of DeepSpeed: read exactly, gone on from, and never unpickled freely."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import child
import pytest
import torch
from test_train_run import changed, lines

from ldm.errors import LdmError
from ldm.train.checkpoint import Checkpoints
from ldm.train.checkpoint_files import rank_files, read_state, verify
from ldm.train.import_universal import FILES, import_universal
from ldm.train.pieces import Pieces
from ldm.train.run import train_stage


def pieces_of(checkpoint: Path) -> dict[tuple[str, str], torch.Tensor]:
    """{(parameter, kind): all its numbers}"""
    state = read_state(checkpoint)
    verify(checkpoint, state, 0, 1)
    held = Pieces([checkpoint / name for name in rank_files(state["world"])])
    return {
        (name, kind): held.read(name, kind, 0, torch.Size(shape).numel())
        for name, shape in state["shapes"].items()
        for kind in FILES
    }


def run_beside(folder: Path, name: str) -> Path:
    """A run on the same mix, not trained."""
    other = folder.with_name(name)
    other.mkdir()
    (other / "mix").symlink_to(folder / "mix")
    return other


@pytest.fixture
def universal(folder, recipe, tmp_path) -> tuple[Path, Path]:
    """A folder laid out as ds_to_universal does, of the checkpoint of step 5, and that one."""
    train_stage(changed(recipe, steps=7, final_lr=1.0), folder)
    checkpoint = folder / "train/checkpoints/step-00000005"
    for (name, kind), values in pieces_of(checkpoint).items():
        path = tmp_path / "universal/zero" / f"model.{name}" / FILES[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"param": values}, path)
        torch.save(torch.tensor(5.0), path.with_name("step.pt"))
    return tmp_path / "universal", checkpoint


def test_a_run_goes_on_from_one_as_from_its_own(universal, folder, recipe, capsys):
    recipe, other = changed(recipe, steps=7, final_lr=1.0), run_beside(folder, "other")
    made = import_universal(recipe, other, universal[0])
    assert made.name == "step-00000005"
    ours, theirs = pieces_of(made), pieces_of(universal[1])
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    train_stage(recipe, other)
    assert lines(other)[7]["losses"] == lines(folder)[7]["losses"]
    with pytest.raises(LdmError, match=r"step-00000007 is there already"):
        import_universal(recipe, other, universal[0])


class Planted:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _first(folder: Path) -> Path:
    return min((folder / "zero").iterdir())


DAMAGE = {
    "a pickle that calls": (
        lambda folder, to: (_first(folder) / "fp32.pt").write_bytes(pickle.dumps(Planted(to))),
        r"fp32.pt holds more than tensors and numbers",
    ),
    "a pickle inside an archive": (
        lambda folder, to: torch.save({"param": Planted(to)}, _first(folder) / "exp_avg.pt"),
        r"exp_avg.pt holds more than tensors and numbers",
    ),
    "cut": (
        lambda folder, to: os.truncate(_first(folder) / "fp32.pt", 300),
        r"fp32.pt holds more than tensors and numbers, or is cut",
    ),
    "no file": (
        lambda folder, to: (_first(folder) / "exp_avg_sq.pt").unlink(),
        r"exp_avg_sq.pt is missing: the universal checkpoint is not whole",
    ),
    "no tensor": (
        lambda folder, to: torch.save({"param": [1.0]}, _first(folder) / "fp32.pt"),
        r"fp32.pt: expected a tensor of numbers as its param",
    ),
    "another shape": (
        lambda folder, to: torch.save({"param": torch.zeros(3)}, _first(folder) / "fp32.pt"),
        r"fp32.pt has shape \(3,\), the recipe's model \(.*\): it is of another model",
    ),
    "not finite": (
        lambda folder, to: torch.save(
            {"param": torch.load(_first(folder) / "fp32.pt", weights_only=True)["param"] / 0},
            _first(folder) / "fp32.pt",
        ),
        r"was not written: weight:.* is not finite",
    ),
    "no parameter": (
        lambda folder, to: shutil.rmtree(_first(folder)),
        r"of another model: of the recipe's \d+ parameters it lacks model\.",
    ),
    "one more": (
        lambda folder, to: (folder / "zero/model.more").mkdir(),
        r"of another model: of the recipe's \d+ parameters it has beside them model\.more$",
    ),
    "no step": (
        lambda folder, to: [path.unlink() for path in folder.rglob("step.pt")],
        r"step.pt is missing, .* give --step N",
    ),
    "nothing": (
        lambda folder, to: shutil.rmtree(folder / "zero"),
        r"is no folder: expected one that deepspeed.checkpoint.ds_to_universal wrote",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_none_is_refused_and_runs_no_code(universal, folder, recipe, tmp_path, what):
    damage, told = DAMAGE[what]
    damage(universal[0], tmp_path / "planted")
    other = run_beside(folder, "other")
    with pytest.raises(LdmError, match=told):
        import_universal(recipe, other, universal[0])
    assert not (tmp_path / "planted").exists()
    assert not list((other / "train").glob("checkpoints/*"))


def test_another_optimiser_is_refused(universal, folder, recipe):
    with pytest.raises(LdmError, match="has the state of adamw, this run uses muon"):
        import_universal(
            changed(recipe, optimizer="muon"), run_beside(folder, "other"), universal[0]
        )


def train_saving_both(recipe, folder: Path) -> None:
    """In a rank: trains; every checkpoint is saved as DeepSpeed does too."""
    save = Checkpoints.save

    def both(self, step, engine):
        save(self, step, engine)
        engine.engine.save_checkpoint(str(folder / "deepspeed"), tag=str(step))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", both)
        train_stage(recipe, folder)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_deepspeed_converted_is_what_the_ranks_held(folder, recipe, tmp_path, stage):
    pytest.importorskip("deepspeed")
    recipe = changed(recipe, steps=7, final_lr=1.0, zero_stage=stage)
    port = child.free_port()
    ranks = [child.start_rank(train_saving_both, (recipe, folder), i, 2, port) for i in range(2)]
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", folder / "deepspeed/5", "--output_folder", tmp_path / "universal"]
    done = subprocess.run(
        [*command, "--inject_missing_state"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    other = run_beside(folder, "other")
    made = import_universal(recipe, other, tmp_path / "universal", 5)
    ours, theirs = pieces_of(made), pieces_of(folder / "train/checkpoints/step-00000005")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    train_stage(recipe, other)
    assert lines(other)[7]["loss"] == pytest.approx(lines(folder)[7]["loss"], abs=1e-5)
