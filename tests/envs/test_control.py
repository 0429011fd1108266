"""What the group "control" brings: planning problems, plants, simulators of treatment."""

import importlib
import sys

import numpy as np
import pytest

from ldm.envs.bare_package import bare
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.reference import experts
from tests.envs.actors import Follow, Rest
from tests.envs.needs import needs

control = needs("control")


def played(id: str, actor, episodes: int = 24) -> np.ndarray:
    env = make(id, 4, seed=0, expert=experts.find(id).hosted)
    try:
        return returns(env, actor(env), episodes)
    finally:
        env.close()


def reference(env):
    return experts.find(env.spec.id).factory(env.spec)


def test_a_package_without_its_own_init(tmp_path, monkeypatch):
    (tmp_path / "laden").mkdir()
    (tmp_path / "laden" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "laden" / "part.py").write_text("number = 3")
    monkeypatch.syspath_prepend(tmp_path)
    bare("laden")
    try:
        assert importlib.import_module("laden.part").number == 3
    finally:
        del sys.modules["laden"], sys.modules["laden.part"]
    with pytest.raises(ImportError, match="no package nothing_of_the_name"):
        bare("nothing_of_the_name")


@control
@pytest.mark.parametrize("id", ["Blocks-1", "Depot-0", "Lift-2", "Rearrangement-5"])
def test_the_library_steps_as_the_graph_of_states_says(id):
    """The shortest way leads to the goal, from off the path as well, in steps of the library."""
    id = f"pddlgym/{id}"
    assert (played(id, reference) == 1).all()
    assert (played(id, lambda env: Follow(env, 0.3)) == 1).mean() > 0.9
    assert (played(id, lambda env: RandomActor(env.action, 0)) == 1).mean() < 0.9


@control
@pytest.mark.parametrize("id", ["ac1", "he1Released", "psm", "convection_diffusion_reactionExact"])
def test_the_controller_is_better_than_doing_nothing(id):
    """By much: it would be where its estimate came from another plant, or a step too late."""
    id = f"controlgym/{id}"
    controlled = played(id, reference, 8).mean()
    still = played(id, Rest, 8).mean()
    assert controlled > 0.5 * still


@control
@pytest.mark.parametrize(
    "id", ["anesthesim/PropofolHard", "cardiosim/Dosing", "ophthasim/AntiVEGF"]
)
def test_a_seed_fixes_all_episodes_and_they_differ(id):
    def once() -> np.ndarray:
        env = make(id, 2, seed=5)
        try:
            return returns(env, RandomActor(env.action, 1), 6)
        finally:
            env.close()

    first = once()
    assert len(np.unique(first)) > 3
    np.testing.assert_array_equal(first, once())
