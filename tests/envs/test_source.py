"""A user's own environment is another one once its source is."""

import sys
from dataclasses import replace

import pytest

from ldm.config import Recipe, RecordConfig, ReferenceConfig
from ldm.envs import source
from ldm.envs.behaviour import identity
from ldm.envs.catalogue import load
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.evaluate import rollouts
from ldm.record.shard_plan import plan
from ldm.reference.admission import Card, Score, digest, settings_key

ENVIRONMENT = """
import my_rules
from my_package.parts import size

class Bandit:
    def step(self, action):
        return 0, my_rules.reward(action), True, False, {}
"""
SPEC = EnvSpec(
    "mine/Bandit", "mine", "my_environments:Bandit", "worker", "games", "vector", "Bandit", 1,
    "MIT",
    adapter="gym",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_environments.py").write_text(ENVIRONMENT)
    (tmp_path / "my_rules.py").write_text("def reward(action): return float(action)\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/__init__.py").write_text("")
    (tmp_path / "my_package/parts.py").write_text("size = 3\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    source._digest.cache_clear()


def keys(tmp_path) -> set[str]:
    """Of a card, a shard and an evaluation; all asked anew, as another process would."""
    source._digest.cache_clear()
    recipe = Recipe("x", [SPEC.id], record=RecordConfig(transitions=10))
    name = digest(identity(SPEC))
    card = Card(SPEC.id, "games", "Bandit", "MIT", True, "", "", environment=name)
    card = replace(card, random=Score(0.0, (0.0, 0.0), 9), reference=Score(1.0, (1.0, 1.0), 9))
    return {
        settings_key(SPEC, ReferenceConfig(), 0),
        plan(recipe, SPEC, card, tmp_path)[0].key,
        rollouts.key(recipe, SPEC, card, "model"),
    }


@pytest.mark.parametrize("file", ["my_environments.py", "my_rules.py", "my_package/parts.py"])
def test_an_edit_of_what_it_is_made_of_makes_everything_anew(folder, file):
    before = keys(folder)
    path = folder / file
    path.write_text(path.read_text() + "\nfactor = 10\n")
    after = keys(folder)
    assert len(before) == 3 and not before & after
    path.write_text(path.read_text().removesuffix("\nfactor = 10\n"))
    assert keys(folder) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"make": "Bandit-v0", "options": {"module": "my_environments"}},
        {"make": "Bandit-v0", "options": {"wrappers": ["my_environments:Bandit"]}},
        {"make": "my_environments.inner:Bandit"},
    ],
)
def test_a_module_counts_however_it_is_named(folder, fields):
    spec = EnvSpec(**{**vars(SPEC), **fields})
    assert source.digest(spec) == source.digest(SPEC) != ""


def test_an_edit_of_anything_else_changes_nothing(folder):
    before = keys(folder)
    (folder / "unrelated.py").write_text("x = 2\n")
    assert keys(folder) == before and "my_environments" not in sys.modules


def test_an_adapter_of_the_users_counts_too(folder):
    adapter = folder / "adapter.py"
    adapter.write_text("import my_rules\n")
    spec = EnvSpec(**{**vars(SPEC), "make": "x", "adapter": str(adapter)})
    seen = set()
    for text in ("def reward(action): return 1.0\n", "def reward(action): return 2.0\n"):
        (folder / "my_rules.py").write_text(text)
        source._digest.cache_clear()
        seen.add(source.digest(spec))
    assert len(seen) == 2


def test_source_that_cannot_be_read_is_named(folder):
    (folder / "my_rules.py").write_text("def reward(:\n")
    with pytest.raises(LdmError, match=r"my_rules\.py: "):
        keys(folder)


def test_nothing_of_the_catalogue_is_a_users():
    assert not any(map(source.digest, load().values()))
