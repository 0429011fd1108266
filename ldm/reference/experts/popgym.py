"""POPGym's memory tasks: what to recall is known exactly from the steps seen so far."""

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory

LEVELS = "Easy", "Medium", "Hard"


def ids(task: str) -> list[str]:
    return [f"popgym/{task}{level}" for level in LEVELS]


def level(spec: EnvSpec) -> int:
    """0 easy, 1 medium, 2 hard."""
    return next(i for i, name in enumerate(LEVELS) if name in spec.id)


class Recall:
    """Base of actors that keep the symbols of the running episode: `history` (N, T) int32, newest
    at index `time` of each stream."""

    def __init__(self, id: str):
        self.id, self.time, self.history = id, NOTHING, np.empty((0, 0), np.int32)

    def remember(self, timestep: TimeStep, symbol: np.ndarray) -> None:
        n = len(timestep.started)
        if len(self.time) != n:
            self.time, self.history = np.zeros(n, np.int64), np.zeros((n, 64), np.int32)
        self.time = np.where(timestep.started, 0, self.time + 1)
        if self.time.max() >= self.history.shape[1]:
            self.history = np.concatenate([self.history, np.zeros_like(self.history)], 1)
        self.history[np.arange(n), self.time] = symbol

    def recall(self, time: np.ndarray) -> np.ndarray:
        """The symbols seen at moments `time` (N,), 0 before the first."""
        found = self.history[np.arange(len(time)), np.maximum(time, 0)]
        return np.where(time < 0, 0, found).astype(np.int32)


class RepeatPrevious(Recall):
    """Names the symbol of `delay` steps ago."""

    def __init__(self, delay: int):
        super().__init__("exact/repeat-previous@1")
        self.delay = delay

    def act(self, timestep: TimeStep) -> Arrays:
        self.remember(timestep, timestep.observation[0])
        return [self.recall(self.time - self.delay)]


@expert(*ids("RepeatPrevious"))
def repeat_previous(spec: EnvSpec) -> RepeatPrevious:
    return RepeatPrevious(delay=(3, 31, 63)[level(spec)])


class RepeatFirst(Recall):
    """Names the first symbol of the episode."""

    def act(self, timestep: TimeStep) -> Arrays:
        self.remember(timestep, timestep.observation[0])
        return [self.recall(np.zeros_like(self.time))]


@expert(*ids("RepeatFirst"))
def repeat_first(spec: EnvSpec) -> RepeatFirst:
    return RepeatFirst("exact/repeat-first@1")


class Autoencode(Recall):
    """Watches cards, then names them backwards; the first step of play repeats the last card."""

    def __init__(self):
        super().__init__("exact/autoencode@1")
        self.watched = self.watching = NOTHING

    def act(self, timestep: TimeStep) -> Arrays:
        watching, card = timestep.observation
        self.remember(timestep, card)
        self.watched = memory(timestep, self.watched, dtype=np.int64)
        self.watching = memory(timestep, self.watching, dtype=bool)
        self.watched = np.where(self.watching | (watching == 1), self.time + 1, self.watched)
        self.watching = watching == 1
        # Card i is recalled at time 2 · (watched − 1) − i.
        return [self.recall(2 * (self.watched - 1) - self.time)]


@expert(*ids("Autoencode"))
def autoencode(spec: EnvSpec) -> Autoencode:
    return Autoencode()


class CountRecall:
    """Counts every card dealt and names the count of the one asked for."""

    id = "exact/count-recall@1"

    def __init__(self, distinct: int):
        self.distinct, self.counts = distinct, NOTHING

    def act(self, timestep: TimeStep) -> Arrays:
        dealt, asked = timestep.observation[0].T
        self.counts = memory(timestep, self.counts, (self.distinct,), np.int32)
        rows = np.arange(len(dealt))
        self.counts[rows, dealt] += 1
        return [self.counts[rows, asked]]


@expert(*ids("CountRecall"))
def count_recall(spec: EnvSpec) -> CountRecall:
    return CountRecall(distinct=(2, 4, 13)[level(spec)])


class HigherLower:
    """Guesses higher (0) or lower (1), whichever more of the cards left in the deck are."""

    id = "exact/higher-lower@1"

    def __init__(self, decks: int):
        self.decks, self.seen = decks, NOTHING

    def act(self, timestep: TimeStep) -> Arrays:
        card = timestep.observation[0]
        self.seen = memory(timestep, self.seen, (13,), np.int32)
        self.seen[np.arange(len(card)), card] += 1
        left = 4 * self.decks - self.seen
        ranks = np.arange(13)
        higher = (left * (ranks > card[:, None])).sum(1)
        lower = (left * (ranks < card[:, None])).sum(1)
        return [(lower > higher).astype(np.int32)]


@expert(*ids("HigherLower"))
def higher_lower(spec: EnvSpec) -> HigherLower:
    return HigherLower(decks=(1, 2, 3)[level(spec)])


class Bandit:
    """Pulls the arm with the highest share of wins, where every arm starts with some imagined
    `wins` of `pulls`: optimism that makes it try the next arm once the present one disappoints."""

    id = "scripted/optimistic-bandit@1"

    def __init__(self, arms: int, wins: float = 3.0, pulls: float = 3.3):
        self.arms, self.prior = arms, (wins, pulls)
        self.wins = self.pulls = NOTHING

    def act(self, timestep: TimeStep) -> Arrays:
        self.wins = memory(timestep, self.wins, (self.arms,))
        self.pulls = memory(timestep, self.pulls, (self.arms,))
        played = np.flatnonzero(~timestep.started)
        arm = timestep.action[0][played]
        self.wins[played, arm] += timestep.reward[played] > 0
        self.pulls[played, arm] += 1
        wins, pulls = self.prior
        share = (self.wins + wins) / (self.pulls + pulls)
        return [share.argmax(1).astype(np.int32)]


@expert(*ids("MultiarmedBandit"))
def bandit(spec: EnvSpec) -> Bandit:
    return Bandit(arms=(10, 20, 30)[level(spec)])


class PositionOnlyCartPole:
    """CartPole's linear law with velocities from the last two positions, 0.02 s apart."""

    id = "scripted/position-only-cartpole@1"

    def __init__(self):
        self.last = None

    def act(self, timestep: TimeStep) -> Arrays:
        position = timestep.observation[0]
        last = (
            position
            if self.last is None
            else np.where(timestep.started[:, None], position, self.last)
        )
        self.last = position
        velocity = (position - last) / 0.02
        push = position @ [0.05, 1.0] + velocity @ [0.15, 0.35]
        return [(push > 0).astype(np.int32)]


@expert(*ids("PositionOnlyCartPole"))
def position_only_cartpole(spec: EnvSpec) -> PositionOnlyCartPole:
    return PositionOnlyCartPole()
