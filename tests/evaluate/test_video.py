from dataclasses import replace

import imageio.v2
import numpy as np
import pytest

from ldm.envs.catalogue import find
from ldm.errors import LdmError
from ldm.evaluate import play, video
from ldm.policy import load


@pytest.fixture
def policy(folder):
    return load(folder / "train" / "model", "cpu")


def test_a_film_has_a_frame_a_state(policy, tmp_path):
    path = tmp_path / "films" / "pole.mp4"
    frames, earned = video.record(find("envpool/CartPole-v1"), policy, 3, path)
    assert frames == earned + 1  # a reward of one a step, and the first state
    seen = [np.asarray(frame) for frame in imageio.v2.get_reader(path)]
    assert len(seen) == frames and seen[0].shape == (400, 600, 3)
    assert (seen[0] != seen[-1]).any()


def test_what_does_not_render_says_so_and_leaves_nothing(policy, tmp_path):
    path = tmp_path / "catch.mp4"
    with pytest.raises(
        LdmError, match=r"envpool/Catch-v0 does not render here .*leave out --video"
    ):
        video.record(find("envpool/Catch-v0"), policy, 3, path)
    assert not path.exists()


def test_another_environment_of_that_name_is_refused(policy, tmp_path):
    spec = replace(find("envpool/CartPole-v1"), make="Acrobot-v1")
    with pytest.raises(LdmError, match=r"has actions|shows other things"):
        video.record(spec, policy, 3, tmp_path / "film.mp4")
    assert not list(tmp_path.glob("*film*"))


def test_play_prints_every_return(folder, capsys):
    play.play("envpool/CartPole-v1", folder / "train" / "model", 3, 0, None)
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()[:3]] == [
        f"episode {n}" for n in (1, 2, 3)
    ]
    assert "over 3 of envpool/CartPole-v1" in out


def test_play_names_the_nearest_environment(folder):
    with pytest.raises(LdmError, match=r'nearest: "envpool/CartPole-v1"'):
        play.play("envpool/CartPol-v1", folder / "train" / "model", 1, 0, None)
