"""The table of purposes, and that every place asks it for its own."""

import ast
from functools import cache
from itertools import combinations, product
from pathlib import Path

import pytest

from ldm.errors import LdmError
from ldm.seeds import PURPOSES, TEST, TRAIN, derive, seed_for, split_for

LDM = Path(__file__).parent.parent / "ldm"
# file → (purposes it draws for, purposes it plays for)
USERS = {
    "reference/choose.py": ({"probe"}, set()),
    "reference/learn.py": ({"learn", "trial", "fit", "learner"}, {"learn", "trial"}),
    "reference/scoring.py": ({"score", "actions"}, {"score", "probe"}),
    "record/job.py": ({"record", "noise"}, {"record"}),
    "data/deal.py": ({"mix", "shuffle"}, set()),
    "train/build.py": ({"model"}, set()),
    "policy/unknown.py": ({"explore"}, set()),
    "evaluate/rollouts.py": ({"evaluate", "explore", "decode"}, {"evaluate"}),
    "evaluate/probe.py": (set(), {"explore"}),
    "evaluate/report.py": ({"bootstrap"}, set()),
    "evaluate/play.py": ({"play"}, {"play"}),
    "evaluate/scene.py": (set(), {"play"}),
    "evaluate/video.py": (set(), {"play"}),
    "envs/worker_backend.py": ({"restart"}, set()),
}
PLAYING = ("reference", "record", "evaluate")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(path: Path, name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name
    ]


def taken(path: Path, module: str) -> set[str]:
    """The names that a file imports from a module."""
    nodes = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.ImportFrom)]
    return {alias.name for n in nodes if n.module == module for alias in n.names}


def words(call: ast.Call, path: Path) -> set[str]:
    """The purposes that a call's first argument can be."""
    first = call.args[0]
    if isinstance(first, ast.Constant):
        return {first.value}
    for node in ast.walk(parsed(path)):  # for why in ("learn", "trial")
        if isinstance(node, ast.comprehension) and node.target.id == first.id:
            return set(ast.literal_eval(node.iter))
    raise AssertionError(f"{path}: a purpose that cannot be read")


def purposes(path: Path, name: str) -> set[str]:
    return set().union(*(words(call, path) for call in calls(path, name)))


def test_what_shapes_a_model_never_sees_what_it_is_scored_on():
    assert {p for p, split in PURPOSES.items() if split == TEST} == {"score", "evaluate", "play"}
    shaping = {"probe", "learn", "trial", "record", "explore"}
    assert {p for p, split in PURPOSES.items() if split == TRAIN} == shaping
    for purpose, split in PURPOSES.items():
        if split:
            assert split_for(purpose, True) == split and split_for(purpose, False) == TRAIN
        else:
            with pytest.raises(LdmError, match="plays in no environment"):
                split_for(purpose, True)


def test_every_place_asks_for_its_own_purpose_and_no_other_draws():
    found = {}
    for path in sorted(LDM.rglob("*.py")):
        name = path.relative_to(LDM).as_posix()
        if name.startswith(("bench/", "kernels/", "seeds.py")):
            continue
        used = purposes(path, "seed_for"), purposes(path, "split_for")
        if any(used):
            found[name] = used
        if name != "data/order.py":  # pure functions of the mix, not of a recipe's seed
            assert "derive" not in taken(path, "ldm.seeds"), name
    assert found == USERS
    assert set(PURPOSES) == set().union(*(a | b for a, b in found.values()))


def test_every_environment_is_made_with_a_seed_and_a_split_of_the_table():
    """Each call of `make` names its split, by a call of `split_for` or a name given one."""
    made = 0
    for part in PLAYING:
        for path in (LDM / part).glob("*.py"):
            if "make" not in taken(path, "ldm.envs.make"):
                continue
            tree = parsed(path)
            asked = {
                target.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and "split_for" in ast.dump(node.value)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for call in calls(path, "make"):
                made += 1
                split = {k.arg: k.value for k in call.keywords}["split"]
                by_name = isinstance(split, ast.Name) and split.id in asked
                assert by_name or split.func.id == "split_for", f"{path}:{call.lineno}"
    assert made >= 6


@pytest.mark.parametrize("literal", ['split="train"', 'split="test"'])
def test_no_split_is_written_down_anywhere_else(literal):
    for part in PLAYING:
        for path in (LDM / part).glob("*.py"):
            assert literal not in path.read_text(), path


def test_a_seed_is_what_it_always_was():
    """Fixed values: another separator, size, order or hash gives other ones."""
    assert derive(0, "evaluate", "envpool/CartPole-v1") == seed_for(
        "evaluate", 0, "envpool/CartPole-v1"
    )
    assert derive(0, "evaluate", "envpool/CartPole-v1") == GOLDEN[0]
    assert seed_for("record", 7, "nasim/Tiny", 3) == GOLDEN[1]
    assert seed_for("score", 7, "nasim/Tiny", "") == GOLDEN[2]
    assert len({derive("ab", "c"), derive("a", "bc"), derive("abc"), derive("abc", "")}) == 4
    assert all(0 <= derive(i) < 1 << 31 for i in range(1000))


GOLDEN = (639276801, 1111045977, 147167347)


def test_no_two_purposes_share_a_stream_of_an_environment():
    """Stream i of a vector environment starts from seed + i."""
    streams = 64
    for id in ("envpool/CartPole-v1", "nasim/Tiny", "trading/Momentum-v0"):
        playing = [p for p, split in PURPOSES.items() if split]
        seeds = {(p, shard): seed_for(p, 0, id, shard) for p, shard in product(playing, range(8))}
        for one, other in combinations(seeds.values(), 2):
            assert abs(one - other) >= streams


def test_an_unknown_purpose_is_refused():
    for ask in (lambda: seed_for("evalute", 0), lambda: split_for("evalute", True)):
        with pytest.raises(LdmError, match='no purpose "evalute"'):
            ask()


PLACES = {
    "score": lambda spec, folder: score(spec),
    "evaluate": lambda spec, folder: evaluate(spec, folder),
    "record": lambda spec, folder: record(spec, folder),
}


class Made(Exception):
    pass


def score(spec):
    from ldm.config import ReferenceConfig
    from ldm.reference.scoring import Scorer

    Scorer(spec, ReferenceConfig(episodes=2), 5)._env(None)


def evaluate(spec, folder):
    from ldm.config import Recipe
    from ldm.evaluate import rollouts

    rollouts.play(Recipe("x", [spec.id], seed=5), [spec], folder, 2, print)


def record(spec, folder):
    from ldm.config import Recipe
    from ldm.record.job import record_shard
    from ldm.record.shard_plan import ShardPlan

    plan = ShardPlan(spec, 0, 100, "", folder / "shard.tar")
    record_shard(plan, Recipe("x", [spec.id], seed=5), folder)


@pytest.mark.parametrize("purpose", PLACES)
def test_a_place_plays_with_its_own_seed_on_its_own_range(monkeypatch, tmp_path, purpose):
    from ldm.evaluate import rollouts
    from ldm.record import job
    from ldm.reference import scoring

    asked = []

    def make(spec, streams, seed, split, **_):
        asked.append((seed, split))
        raise Made

    for module in (scoring, rollouts, job):
        monkeypatch.setattr(module, "make", make)
    monkeypatch.setattr(rollouts, "load", lambda *_: (None, True))
    monkeypatch.setattr(job, "load_reference", lambda *_: None)
    monkeypatch.setattr(job, "hosted_expert", lambda *_: None)
    spec = next(replaying())
    with pytest.raises(Made):
        PLACES[purpose](spec, tmp_path)
    draw = {"score": "", "record": 0}
    parts = (spec.id, draw[purpose]) if purpose in draw else (spec.id,)
    assert asked == [(seed_for(purpose, 5, *parts), PURPOSES[purpose])]


def replaying():
    """Environments that replay data."""
    from ldm.envs.catalogue import load

    return (spec for spec in load().values() if spec.data_driven)
