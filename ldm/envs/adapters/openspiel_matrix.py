"""OpenSpiel's matrix games, repeated against an opponent with a habit."""

import gymnasium
import numpy as np
import pyspiel
from gymnasium.spaces import Box, Discrete


def build(make: str, split: str, opponent: str = "Copies", rounds: int = 30):
    """`make`: OpenSpiel's name of the game. `opponent`: "Copies" the learner's last move, "Replies"
    best to it, "Cycles" through its moves, or "Leans" (chances drawn for the episode from a flat
    Dirichlet distribution)."""
    return Repeated(pyspiel.load_matrix_game(make), opponent, rounds)


class Repeated(gymnasium.Env):
    """Reward: the learner's payoff in units of the largest. Observation: own and other's last move
    (one-hot, zeros before the first), and the share of the rounds in which the other made each."""

    def __init__(self, game, opponent: str, rounds: int):
        rows, columns = range(game.num_rows()), range(game.num_cols())
        table = lambda player: np.array(
            [[game.player_utility(player, i, j) for j in columns] for i in rows]
        )
        self.mine, self.theirs = table(0), table(1)
        self.mine = self.mine / np.abs(self.mine).max()
        self.opponent, self.rounds = opponent, rounds
        self.action_space = Discrete(len(rows))
        self.observation_space = Box(0, 1, (len(rows) + 2 * len(columns),))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        moves = self.mine.shape[1]
        self.round, self.last = 0, None
        self.counts = np.zeros(moves)
        self.leaning = self.np_random.dirichlet(np.ones(moves))
        self.first = int(self.np_random.integers(moves))
        return self._observe(), {}

    def step(self, action):
        other = self._other()
        self.round, self.last = self.round + 1, (int(action), other)
        self.counts[other] += 1
        over = self.round == self.rounds
        return self._observe(), float(self.mine[action, other]), False, over, {}

    def _other(self) -> int:
        if self.opponent == "Leans":
            return int(self.np_random.choice(len(self.leaning), p=self.leaning))
        if self.last is None:
            return self.first
        return self.habit(*self.last)

    def habit(self, own: int, other: int) -> int:
        """The opponent's move after that round."""
        if self.opponent == "Cycles":
            return (other + 1) % len(self.counts)
        if self.opponent == "Replies":
            return int(self.theirs[own].argmax())
        return own

    def _observe(self) -> np.ndarray:
        rows, columns = self.mine.shape
        own, other = np.zeros(rows), np.zeros(columns)
        if self.last:
            own[self.last[0]] = other[self.last[1]] = 1
        shares = self.counts / max(self.round, 1)
        return np.concatenate([own, other, shares]).astype(np.float32)


def plan(env: Repeated):
    """The best move against a known habit, by backward induction; against one who leans, the best
    reply to what was seen and one of each (fictitious play; Brown 1951)."""
    rows, columns = env.mine.shape
    if env.opponent == "Leans":
        return lambda: int((env.mine @ (env.counts + 1)).argmax())
    value = np.zeros((rows, columns))  # of the rounds left, after a round (own, other)
    values = [value]
    for _ in range(env.rounds):
        value = np.array(
            [
                [max(env.mine[m, o] + value[m, o] for m in range(rows)) for o in replies]
                for replies in ([env.habit(i, j) for j in range(columns)] for i in range(rows))
            ]
        )
        values.append(value)

    def act() -> int:
        later = values[env.rounds - env.round - 1]
        if env.last is None:
            return int((env.mine + later).mean(1).argmax())
        other = env.habit(*env.last)
        return int((env.mine[:, other] + later[:, other]).argmax())

    return act


EXPERTS = {"plan": plan}
