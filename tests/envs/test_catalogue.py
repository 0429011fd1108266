import pytest

from ldm.envs import catalogue
from ldm.envs.spec import DOMAINS
from ldm.errors import LdmError

GOOD = """
[library]
library = "lab"
backend = "worker"
domain = "games"
modality = "vector"
licence = "MIT"

[[environment]]
make = "Maze-v0"
base_task = "Maze"
horizon = 10

[[environment]]
id = "lab/Maze/big"
make = "Maze-v0"
base_task = "Maze"
horizon = 20
options = { size = 9 }
"""


def read(tmp_path, text):
    path = tmp_path / "lab.toml"
    path.write_text(text)
    return catalogue.read(path)


def test_defaults_and_own_fields(tmp_path):
    small, big = read(tmp_path, GOOD)
    assert (small.id, small.horizon, small.options) == ("lab/Maze-v0", 10, {})
    assert (big.id, big.horizon, big.options) == ("lab/Maze/big", 20, {"size": 9})
    assert small.domain == big.domain == "games"


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("horizon = 10", "horizont = 10", 'unknown key "horizont".*horizon'),
        ("horizon = 10", 'horizon = "10"', "expected int"),
        ("horizon = 10", "horizon = 0", "not positive"),
        ("horizon = 10", "", "lacks horizon"),
        ('domain = "games"', 'domain = "chess"', 'domain "chess" is not one of robotics'),
        ('backend = "worker"', 'backend = "thread"', "backend"),
        ('id = "lab/Maze/big"', 'id = "other/Maze"', 'starts with its library, "lab/"'),
        ("[library]", "[libary]", "unknown.*libary"),
        ("[library]", "[library", "not TOML"),
    ],
)
def test_mistakes_are_named_with_their_file(old, new, words, tmp_path):
    with pytest.raises(LdmError, match=words) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert "lab.toml" in str(caught.value)


def test_an_id_stands_once(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text(GOOD)
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    with pytest.raises(LdmError, match="twice"):
        catalogue.load.__wrapped__()


def test_the_shipped_catalogue():
    specs = catalogue.load()
    assert list(specs) == sorted(specs) and all(id == spec.id for id, spec in specs.items())
    assert {spec.domain for spec in specs.values()} == set(DOMAINS)
    assert {spec.modality for spec in specs.values()} == set(catalogue.MODALITIES)
    slugs = {id.replace("/", "__").lower() for id in specs}
    assert len(slugs) == len(specs)  # names of folders, also where case does not count


def test_a_wrong_id_names_the_nearest():
    assert catalogue.find("envpool/CartPole-v1").horizon == 500
    with pytest.raises(LdmError, match='nearest: "envpool/CartPole-v1"'):
        catalogue.find("envpool/Cartpole-v1")


def test_patterns_name_environments_in_order_and_once():
    ids = catalogue.expand(["nasim/Tiny", "nasim/Tiny*", "envpool/CartPole-v1"])
    assert ids[0] == "nasim/Tiny" and ids[-1] == "envpool/CartPole-v1"
    assert len(ids) == len(set(ids)) > 3
    with pytest.raises(LdmError, match="nearest"):
        catalogue.expand(["nasim/Tinny"])
