import errno
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import imageio.v2
import numpy as np
import pytest

from ldm.envs import legal, spaces
from ldm.envs.catalogue import find
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor, returns
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError
from ldm.evaluate import play, scene, strip, video
from ldm.policy import load


@pytest.fixture
def policy(folder):
    return load(folder / "train" / "model", "cpu")


def film(path) -> list[np.ndarray]:
    return [np.asarray(frame) for frame in imageio.v2.get_reader(path)]


def random(spec, seed=0):
    env = make(spec, 1, seed)
    env.close()
    return lambda: RandomActor(env.action, seed)


def test_episodes_follow_each_other_and_the_last_frame_is_held(policy, tmp_path):
    spec, path = find("envpool/CartPole-v1"), tmp_path / "films" / "pole.mp4"
    filmed = video.record(spec, lambda: policy.actor(spec.id, 1), 3, path, 2)
    assert filmed.reason == "" and len(filmed.returns) == 2
    assert filmed.steps == sum(filmed.returns)  # a reward of one a step
    fps = 50  # which CartPole says
    times = [max(1, min(25, round(150 / (n + 1)))) if n + 1 < 150 else 1 for n in filmed.returns]
    frames = [t * (int(n) + 1) + fps for t, n in zip(times, filmed.returns)]
    seen = film(path)
    assert len(seen) == sum(frames) and seen[0].shape == (430, 600, 3)
    last = seen[frames[0] - 1].astype(int)
    assert np.abs(last - seen[frames[0] - fps]).max() < 40  # held: the same but for its coding
    assert np.abs(last[:400] - seen[frames[0]][:400]).max() > 100  # another episode begins


def test_what_draws_nothing_is_plotted_as_it_is_evaluated(tmp_path):
    spec, path = find("envpool/Catch-v0"), tmp_path / "catch.mp4"
    filmed = video.record(spec, random(spec), 3, path, 4)
    assert "no environment of that name that draws it" in filmed.reason
    env = make(spec, 1, 3)
    assert filmed.returns == returns(env, random(spec)(), 4).tolist()
    env.close()
    seen = film(path)
    assert seen[0].shape == (strip.HEIGHT + strip.BAR, strip.WIDTH, 3)
    assert len(seen) == 4 * (10 * 9 + 30)  # ten frames of an episode nine times, the last held


def test_another_environment_of_that_name_is_plotted(tmp_path):
    spec = replace(find("envpool/CartPole-v1"), make="Acrobot-v1")
    seen = [spaces.describe(space) for space in _spaces("CartPole-v1")]
    with pytest.raises(scene.Unlike, match=r"the one that draws (shows|takes) other things"):
        scene.require_alike(seen[0], spaces.describe(_spaces("Acrobot-v1")[0]), "shows")
    assert "interpreter" in str(_unlike(replace(spec, group="arcade")))


def _spaces(name: str):
    import gymnasium

    env = gymnasium.make(name)
    return env.observation_space, env.action_space


def _unlike(spec) -> scene.Unlike:
    with pytest.raises(scene.Unlike) as raised:
        scene.build(spec, "rgb_array")
    return raised.value


BOARD = spaces.symbols("board", (5, 4), 3)
CASES = {
    "numbers": {"x": spaces.numbers("x", (3,), -1, 1), "y": spaces.numbers("y", ())},
    "many": {"x": spaces.numbers("x", (200,))},
    "image": {"camera": spaces.Leaf("camera", spaces.IMAGE, (20, 30, 3), "Box", "uint8")},
    "grey": {"camera": spaces.Leaf("camera", spaces.IMAGE, (84, 84, 4), "Box", "uint8")},
    "board": {"board": BOARD, "words": spaces.Leaf("words", spaces.TEXT, (40,), "Text", "str")},
    "field": {"field": spaces.numbers("field", (6, 7))},
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_space_is_drawn_and_moves(name):
    rng, action = np.random.default_rng(0), spaces.numbers("", (2,), -1, 1)
    made = strip.Strip(CASES[name], action)
    frames = []
    for step in range(130):
        observation = [_random(leaf, rng) for leaf in spaces.leaves(CASES[name])]
        acted = [rng.uniform(-1, 1, 2)] if step else None
        frames.append(made.draw(observation, acted, float(step == 5)))
    assert all(f.shape == (strip.HEIGHT, strip.WIDTH, 3) and f.dtype == np.uint8 for f in frames)
    for a, b in pairwise(frames):
        assert (a != b).any()


def _random(leaf, rng):
    if leaf.kind == spaces.IMAGE:
        return rng.integers(0, 256, leaf.shape, np.uint8)
    if leaf.kind == spaces.TEXT:
        return np.frombuffer(b"go to the red ball".ljust(leaf.size, b"\0"), np.uint8)
    return legal.sample(leaf, 1, rng)[0]


def test_a_picture_is_the_newest_frame_of_a_stack():
    stack = np.arange(4, dtype=np.uint8) * np.ones((84, 84, 1), np.uint8)
    (leaf,) = spaces.leaves(CASES["grey"])
    assert (strip.picture(leaf, stack) == 3).all()
    board = np.arange(20, dtype=np.int32).reshape(5, 4) % 3
    shown = strip.picture(BOARD, board)
    assert (shown == strip.CELLS[board]).all()


def test_without_a_window_a_film_is_offered(monkeypatch):
    spec = find("nasim/Tiny")
    with pytest.raises(LdmError, match=r"nasim/Tiny has no window here .*--video FILE"):
        video.watch(spec, random(spec)(), 0, 1)


def test_play_prints_every_return_and_of_a_film_the_same(folder, capsys, tmp_path):
    def told(**options) -> list[str]:
        play.play("envpool/CartPole-v1", folder / "train" / "model", 3, 0, **options)
        return capsys.readouterr().out.splitlines()

    out = told(video=None)
    assert [line.split(":")[0] for line in out[:3]] == [f"episode {n}" for n in (1, 2, 3)]
    assert "over 3 of envpool/CartPole-v1" in out[3]
    filmed = told(video=tmp_path / "pole.mp4")
    assert filmed[0].startswith(f"{tmp_path / 'pole.mp4'}: ") and len(filmed) == 5


def test_play_names_the_nearest_environment(folder):
    with pytest.raises(LdmError, match=r'nearest: "envpool/CartPole-v1"'):
        play.play("envpool/CartPol-v1", folder / "train" / "model", 1, 0, None)


def test_a_film_that_was_cut_or_has_no_room_is_told(tmp_path):
    path = tmp_path / "film"
    video._film(path, iter([np.zeros((64, 64, 3), np.uint8)] * 30), 30)
    video._require_film(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OSError):
        video._require_film(path)
    with pytest.raises(OSError) as full:
        video._require_room(Path("/dev/full"))
    assert full.value.errno == errno.ENOSPC


OWN = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Drawn(gymnasium.Env):
    metadata = {"render_fps": 10}
    observation_space = spaces.Sequence(spaces.Discrete(3))
    action_space = spaces.Text(4, charset="ab")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return (1, 2), {}

    def step(self, action):
        assert action in self.action_space
        return (1,), 1.0, False, False, {}

    def render(self):
        return np.full((64, 64, 3), 200, np.uint8)


def build(make, split, render_mode=None):
    return Drawn()
"""


def test_an_adapter_of_a_users_own_draws(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    spec = EnvSpec(
        id="own/Drawn", library="own", make="Drawn", backend="worker", domain="own",
        modality="symbols", base_task="Drawn", horizon=5, licence="", options={"pad": 4},
        adapter=str(tmp_path / "own.py"),
    )  # fmt: skip
    filmed = video.record(spec, random(spec), 3, tmp_path / "own.mp4", 1)
    assert (filmed.reason, filmed.steps, filmed.returns) == ("", 5, [5.0])
    (tmp_path / "own.py").write_text("no = 1")
    assert "AttributeError" in str(_unlike(spec))
