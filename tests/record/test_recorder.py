import numpy as np
import pytest
from count_env import CountActor, CountEnv

from ldm.data.shards import encode
from ldm.errors import LdmError
from ldm.record.noise import Noise
from ldm.record.recorder import record, validate


def recorded(streams=4, transitions=200, share=0.5, most=0.8, seed=3, **options):
    env = CountEnv(streams, **options)
    noise = Noise(env.action, streams, share, most, seed)
    return env, list(record(env, CountActor(), noise, transitions, seed).trajectories())


def test_every_transition_is_the_one_that_happened():
    _, trajectories = recorded()
    assert 200 <= sum(map(len, trajectories)) < 204
    for stream, trajectory in enumerate(trajectories):
        assert trajectory.seed == 3 + stream
        for number, episode in enumerate(trajectory.episodes):
            count, mark = episode.observations
            steps = len(episode)
            assert count.tolist() == [[number, step] for step in range(steps + 1)]
            assert set(mark.tolist()) == {number % 7}
            assert episode.rewards.tolist() == [100 * number + step for step in range(steps)]
            assert episode.labels[0].tolist() == [10 + step % 5 for step in range(steps)]
            ended = episode.terminated | episode.truncated
            assert not ended[:-1].any()
            if number < len(trajectory.lengths) - 1:
                assert steps == 1 + (3 * stream + 5 * number) % 11
                assert episode.terminated[-1] == (number % 2 == 0)
                assert episode.truncated[-1] == (number % 2 == 1)


def test_an_unfinished_last_episode_is_kept_without_an_end():
    _, trajectories = recorded(streams=1, transitions=3 + 2)
    # stream 0: one step, then six; five in all cut the second short
    assert trajectories[0].lengths.tolist() == [1, 4]
    assert not trajectories[0].episodes[1].terminated.any()
    assert not trajectories[0].episodes[1].truncated.any()


def test_a_faulted_episode_is_left_out_and_splits_the_trajectory():
    _, trajectories = recorded(streams=2, broken={(1, 2): 2, (0, 1): 0})
    assert 200 <= sum(map(len, trajectories)) < 202
    numbers = [[int(e.observations[0][0, 0]) for e in t.episodes] for t in trajectories]
    assert [part[:2] for part in numbers] == [[0], [2, 3], [0, 1], [3, 4]]


def test_an_environment_that_loses_most_steps_is_refused():
    always = {(stream, episode): 0 for stream in range(2) for episode in range(400)}
    with pytest.raises(LdmError, match="fake/Count: only 0 of 408 steps were usable"):
        recorded(streams=2, broken=always)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    def data(seed):
        return [encode(trajectory) for trajectory in recorded(seed=seed)[1]]

    assert data(3) == data(3)
    assert data(3) != data(4)


def test_labels_never_carry_noise_and_executed_actions_do_in_noisy_episodes_only():
    _, trajectories = recorded(streams=8, transitions=4000)
    noisy = clean = 0
    for trajectory in trajectories:
        for level, episode in zip(trajectory.noise, trajectory.episodes):
            same = all(np.array_equal(a, b) for a, b in zip(episode.actions, episode.labels))
            assert same or level > 0
            noisy, clean = noisy + (level > 0), clean + (level == 0)
    assert 0.4 < noisy / (noisy + clean) < 0.6


@pytest.mark.parametrize(
    "poison, message", [(np.nan, "a reward is NaN"), (np.inf, "a reward is NaN")]
)
def test_values_that_cannot_be_trained_on_are_refused(poison, message):
    env, trajectories = recorded(poison=poison)
    with pytest.raises(LdmError, match=message):
        validate(env, "fake/count@1", trajectories[0])


def test_a_label_outside_the_action_space_is_refused():
    env, trajectories = recorded()
    trajectories[0].labels[0][5] = 4
    with pytest.raises(LdmError, match=r"a label of p .* 4 is outside 10\.\.14"):
        validate(env, "p", trajectories[0])
