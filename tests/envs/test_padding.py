"""Sequence, Graph and OneOf in spaces of a fixed size; what is cut is told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces as gym

from ldm.data import entry
from ldm.envs import gym_spaces, legal, padding, spaces
from ldm.envs.check import check_environment
from ldm.envs.make import make
from ldm.envs.padding import Padding
from ldm.envs.spec import EnvSpec
from ldm.evaluate.probe import probe
from tests.envs import ragged

SPEC = EnvSpec(
    id="ragged/Bag", library="ragged", make="Bag", backend="worker", domain="own",
    modality="text", base_task="Bag", horizon=50, licence="",
    adapter=str(Path(ragged.__file__)),
)  # fmt: skip


def test_what_has_a_fixed_size_is_left_alone():
    space = gym.Dict({"a": gym.Tuple([gym.Box(0, 1, (2,)), gym.Discrete(3)])})
    assert Padding().of(space, "observation").space is space
    env = ragged.Ragged()
    env.observation_space = env.action_space = space
    assert padding.padded(env) is env


@pytest.mark.parametrize("space", [*ragged.BAG.spaces.values(), ragged.CHOICE, ragged.BAG])
def test_there_and_back(space):
    pad = Padding(120).of(space, "x")
    tree = spaces.describe(pad.space)
    space.seed(3)
    for _ in range(20):
        sample = space.sample()
        there = pad.there(sample)
        flat = spaces.flatten(tree, there)
        assert not any(map(legal.violation, spaces.leaves(tree), flat))
        again = pad.back(spaces.unflatten(tree, flat))
        assert repr(space.to_jsonable([again])) == repr(space.to_jsonable([sample]))


def test_a_text_that_is_an_action_is_spelt():
    space = gym.Text(9, min_length=2, charset="cab_")
    kept = Padding(5)
    (leaf,) = spaces.leaves(spaces.describe(kept.of(gym.Tuple([space]), "action").space))
    assert kept.lines == ["action/0: a Text is spelt, of 5 letters at most"]
    assert leaf.kind == spaces.DISCRETE and leaf.letters == tuple("_abc")
    assert leaf.start == (1, 1, 0, 0, 0) and leaf.counts == (4, 4, 5, 5, 5)
    for text, kept_of_it in (("ba", "ba"), ("c_a", "c_a"), ("abcabc", "abcab")):
        (flat,) = spaces.flatten(leaf, text)
        assert not legal.violation(leaf, flat) and spaces.unflatten(leaf, [flat]) == kept_of_it
    with pytest.raises(ValueError, match=r"\['d'\] are not among the letters of its space"):
        spaces.flatten(leaf, "dab")
    drawn = legal.sample(leaf, 200, np.random.default_rng(0))
    done = legal.executable(leaf, drawn)
    assert all(space.contains(spaces.unflatten(leaf, [row])) for row in done)
    ends = done == 0
    assert ends.any() and (ends[:, 1:] >= ends[:, :-1]).all()  # nothing after an end
    assert spaces.from_json(spaces.to_json(leaf)) == leaf
    entry.check_leaf(leaf)
    with pytest.raises(ValueError, match="no numbers of its letters"):
        entry.check_leaf(dataclasses.replace(leaf, letters=("a",)))
    nested = gym_spaces.nest(leaf, [done])
    assert all(gym_spaces.to_space(leaf).contains(text) for text in nested)
    assert np.array_equal(gym_spaces.flatten(leaf, nested)[0], done)
    assert Padding().of(space, "observation").space is space


def test_what_is_longer_is_cut_and_told():
    kept = Padding(3)
    pad = kept.of(gym.Sequence(gym.Discrete(9)), "observation")
    assert kept.lines == ["observation: a Sequence of any length is padded to 3"]
    there = pad.there((1, 2, 3, 4, 5))
    assert there["count"] == 3 and there["items"].tolist() == [1, 2, 3]
    assert kept.lines[0].endswith("padded to 3; 5 were seen, of which 2 were cut")


def test_such_an_environment_keeps_the_contract(capsys):
    assert check_environment(SPEC).reason == ""
    probe(SPEC, 0, 80)
    told = " ".join(capsys.readouterr().err.split())
    assert "observation/words: a Sequence of any length is padded to 16; 19 were seen" in told
    assert "ragged/Bag: action/2: a Text is spelt, of 9 letters at most" in told
    assert "ragged/Bag: action/0: a OneOf is shown as the number of one and all of them" in told


def test_how_many_are_kept_stands_in_the_options():
    env = make(EnvSpec(**{**vars(SPEC), "options": {"pad": 5}}), 1, 0)
    try:
        (leaf,) = [x for x in spaces.leaves(env.observation) if x.path == "numbers/items"]
        assert leaf.shape == (5, 2) and leaf.low == (1.0,) * 10
        timestep = env.reset()
        assert all(np.isfinite(a).all() for a in timestep.observation if a.dtype.kind == "f")
    finally:
        env.close()
