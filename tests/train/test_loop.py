import pytest

from ldm.config import TrainConfig
from ldm.train.loop import train
from ldm.train.schedule import learning_rate


def test_the_rate_warms_up_then_follows_a_cosine():
    config = TrainConfig(steps=110, lr=1.0, warmup=10, final_lr=0.2)
    assert [learning_rate(k, config) for k in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(10, config) == pytest.approx(1.0)
    assert learning_rate(60, config) == pytest.approx(0.6)  # halfway between lr and final_lr
    assert learning_rate(110, config) == pytest.approx(0.2)


def test_wsd_keeps_the_rate_and_falls_at_the_end():
    config = TrainConfig(steps=100, lr=1.0, warmup=10, schedule="wsd", decay=0.2, final_lr=0.1)
    assert [learning_rate(k, config) for k in (4, 10, 79, 80)] == pytest.approx([0.5, 1, 1, 1])
    assert [learning_rate(k, config) for k in (90, 100)] == pytest.approx([0.55, 0.1])


class Calls:
    """Stands for the engine, the log, the checkpoints; notes in which order they are called."""

    def __init__(self, stop_at=None):
        self.notes, self.stop_at = [], stop_at

    def backward(self, batch):
        self.notes.append(batch)

    def update(self, rate):
        pass

    def add(self, batch, loss, norm):
        pass

    def write(self, step, rate):
        self.notes.append(f"log {step}")

    def flush(self):
        self.notes.append("flushed")
        return True

    def prepare(self, engine):
        self.notes.append("prepared")

    def save(self, step, engine):
        self.notes.append(f"save {step}")

    def finish(self, engine):
        self.notes.append("written")

    def restart_clock(self):
        pass

    def agreed(self, step):
        return step == self.stop_at


def loop(step, stop_at=None, **settings) -> list:
    calls = Calls(stop_at)
    batches = iter(range(step, 10**6))
    train(TrainConfig(**settings), step, calls, batches, calls, calls, calls)
    return calls.notes


def test_it_logs_before_it_saves_and_ends_at_the_last_step():
    notes = loop(0, steps=5, log_every=2, checkpoint_every=3)
    first = [0, "prepared", 1, "log 2", 2, "log 3", "flushed", "save 3"]
    assert notes == [*first, 3, "log 4", 4, "log 5", "flushed", "save 5", "written"]


def test_resumed_it_logs_and_saves_at_the_same_steps():
    settings = {"steps": 9, "log_every": 2, "checkpoint_every": 3}
    whole, resumed = loop(0, **settings), loop(6, **settings)
    assert resumed.pop(1) == "prepared"
    assert whole[-len(resumed) :] == resumed and resumed[0] == 6


def test_asked_to_stop_it_saves_that_step_first():
    assert loop(0, stop_at=1, steps=5, log_every=9, checkpoint_every=9) == [
        0,
        "prepared",
        "log 1",
        "flushed",
        "save 1",
        "written",
    ]
