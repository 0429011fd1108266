"""kill -9 at random moments changes nothing: same losses, same weights, to the last bit."""

import random
import time

import child
from test_train_run import changed, files, lines

KILLS = 6


def last_step(folder) -> int:
    """The last step that the log tells of, whole lines only."""
    path = folder / "train/log.jsonl"
    return path.read_bytes().count(b'"loss"') if path.exists() else 0


def test_killed_at_random_moments_it_ends_with_the_same_weights(folder, recipe):
    recipe = changed(recipe, steps=40, log_every=1, checkpoint_every=3, precision="bf16")
    alone = folder.with_name("alone")
    alone.mkdir()
    (alone / "mix").symlink_to(folder / "mix")
    whole = child.start(recipe, alone)
    whole.join()
    assert whole.exitcode == 0

    moments = random.Random(1)
    for target in sorted(moments.sample(range(1, 37), KILLS)):
        process = child.start(recipe, folder)
        while last_step(folder) < target:
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))  # in a step, in a checkpoint, between two renames
        process.kill()
        process.join()
        assert process.exitcode == -9

    last = child.start(recipe, folder)
    last.join()
    assert last.exitcode == 0
    assert files(folder) == files(alone)
    told, expected = lines(folder), lines(alone)
    assert list(told) == list(range(1, 41))
    assert all(told[k]["loss"] == expected[k]["loss"] for k in expected)
    assert sorted(p.name for p in (folder / "train/checkpoints").iterdir()) == [
        "step-00000039",
        "step-00000040",
    ]
