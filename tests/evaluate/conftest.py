import pytest
import torch
from made_run import REFUSED, TRAINED, card, write_model

from ldm.config import EvaluateConfig, Recipe
from ldm.data.lines import log_line
from ldm.data.sealed import write_sealed
from ldm.envs.catalogue import find
from ldm.reference.admission import card_folder, write_card

torch.set_num_threads(1)  # threads would only wait for each other: the models are tiny


@pytest.fixture
def recipe():
    return Recipe(
        name="tiny",
        environments=[*TRAINED, REFUSED],
        workers=1,
        evaluate=EvaluateConfig(episodes=5, streams=3),
    )


@pytest.fixture
def folder(tmp_path):
    """A run that is ready to be evaluated."""
    for id in (*TRAINED, REFUSED):
        home = card_folder(find(id), tmp_path)
        home.mkdir(parents=True)
        write_card(card(id, id != REFUSED), home / "card.json")
    write_model(tmp_path / "train" / "model", seed=0)
    lines = [{"event": "start", "step": 0, "device": "cpu", "devices": 1, "threads": 2}]
    lines[0] |= {"cores": 2, "engine": "torch", "precision": "fp32"}
    measured = {"useful_tokens_per_s": 9000.0, "bin_fill": 0.995, "loader_wait": 0.001}
    lines += [{"step": n, "loss": 3 / n, **measured} for n in range(1, 701)]
    (tmp_path / "train" / "log.jsonl").write_text("".join(map(log_line, lines)))
    write_sealed(tmp_path / "seconds.json", {"train": 75.0, "mix": 4.0})
    return tmp_path
