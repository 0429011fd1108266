from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import pytest

from ldm.envs import check, commands, spaces
from ldm.envs.catalogue import find
from ldm.envs.check import check_environment
from ldm.envs.spec import modality_of

LIBRARIES = {
    "envpool": ["envpool/FrozenLake-v1", "envpool/Knapsack-v1", "envpool/MiniGrid-Empty-5x5-v0"],
    "metaworld": ["envpool/MetaWorld/Reach-v3"],
    "minigrid": ["minigrid/BabyAI-GoToLocal-v0"],
    "popgym": ["popgym/AutoencodeEasy", "popgym/CountRecallEasy", "popgym/BattleshipEasy"],
    "gymnasium": ["gymnasium/FrozenLake-v1-deterministic"],
}


@pytest.mark.parametrize(
    "library, id", [(library, id) for library, ids in LIBRARIES.items() for id in ids]
)
def test_each_library_keeps_the_contract(library, id):
    pytest.importorskip(library)
    result = check_environment(find(id), steps=80)
    assert result.ok, result.reason
    assert result.deterministic is True


@pytest.mark.parametrize(
    "kind, words",
    [
        ("raise", "1 faults"),
        ("nan", "1 faults"),
        ("range", "1 faults"),
        ("unbuildable", "no such simulator"),
    ],
)
def test_what_is_broken_fails_with_the_reason(kind, words, faulty):
    result = check_environment(faulty(kind))
    assert not result.ok and words in result.reason


def test_more_numbers_than_any_context_holds_are_refused(faulty):
    symbols = spaces.describe(gymnasium.spaces.Discrete(2))
    shown = spaces.describe(gymnasium.spaces.Box(-1, 1, (3_000_000,)))
    wide = SimpleNamespace(observation=shown, action=symbols)
    with pytest.raises(check.Broken, match="3,000,000 numbers at once, expected at most 1,000,000"):
        check._require_spaces(faulty("fine"), wide)


def test_a_sound_environment_passes_with_its_figures(faulty):
    result = check_environment(faulty("fine"), steps=30)
    assert result.ok and result.deterministic is True
    assert (result.terminated, result.truncated) == (8, 0)  # 2 streams, 7 rows an episode
    assert result.rewards == (0.0, 2.0)
    assert result.steps_per_second > 0
    assert result.acts is True


def test_an_environment_whose_actions_change_nothing_is_told(faulty, tmp_path, capsys):
    assert check_environment(faulty("idle"), steps=30).acts is False
    assert check_environment(faulty("unseeded"), steps=10).acts is None
    idle = "no action changed anything within the steps of the check: faulty/idle"
    commands._check([faulty("idle"), faulty("fine")], 1, tmp_path / "check.jsonl", None)
    assert idle in capsys.readouterr().out


def test_randomness_outside_the_seed_is_recorded(faulty):
    result = check_environment(faulty("unseeded"), steps=10)
    assert result.ok and result.deterministic is False


def test_a_wrong_modality_fails(faulty):
    result = check_environment(replace(faulty("fine"), modality="text"))
    assert "modality is mixed, the catalogue has text" in result.reason


def test_modalities():
    continuous, discrete, image, text = (
        spaces.CONTINUOUS,
        spaces.DISCRETE,
        spaces.IMAGE,
        spaces.TEXT,
    )
    assert modality_of({continuous}) == "vector"
    assert modality_of({discrete}) == "symbols"
    assert modality_of({image}) == "image"
    assert modality_of({discrete, text}) == "text"
    assert modality_of({continuous, discrete}) == modality_of({image, text}) == "mixed"
