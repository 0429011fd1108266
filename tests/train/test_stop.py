"""When ranks stop: all at the same step, and no request is lost."""

import signal

import pytest
import torch

from ldm.train.stop import Stop


class Ranks:
    """Two ranks, of which the other asks for `other`; `meanwhile` happens while they add up."""

    world, device = 2, torch.device("cpu")

    def __init__(self, other: float = 0.0, meanwhile=lambda: None):
        self.other, self.meanwhile = other, meanwhile

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        total = values + self.other
        self.meanwhile()
        return total


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_ranks_agree_is_answered_at_the_next_log_step(number):
    """They wait for the slowest there, most of a small step: a signal often comes just then."""
    ranks = Ranks(meanwhile=lambda: signal.raise_signal(number))
    with Stop(ranks, every=2) as stop:
        assert not stop.agreed(2)
        ranks.meanwhile = lambda: None
        assert not stop.agreed(3)
        assert stop.agreed(4) and stop.asked


def test_who_was_not_asked_stops_with_who_was():
    with Stop(Ranks(other=1.0), every=1) as stop:
        assert stop.agreed(1) and stop.asked


def test_who_was_asked_tells_the_others_at_a_log_step_only():
    with Stop(Ranks(), every=5) as stop:
        stop.ask()
        assert [step for step in range(1, 11) if stop.agreed(step)] == [5, 10]
