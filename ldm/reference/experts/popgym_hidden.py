"""POPGym's tasks of hidden states: velocities by differences, positions by sums or by a Kalman
filter; boards and cards kept in mind."""

import numpy as np

from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory
from ldm.reference.experts.boards import safest
from ldm.reference.experts.popgym import ids, level

STEP = 0.02  # seconds
GAINS = np.array([0.05, 0.15, 1.0, 0.35])  # cart, its velocity, angle, its velocity
BALANCED = np.array([[1, STEP, 0, 0], [0, 1, -0.0143, 0], [0, 0, 1, STEP], [0, 0, 0.3153, 1.0]])
PUSH = np.array([0, 0.1952, 0, -0.2927])  # what a push of 10 N adds in a step, linearised upright
SEEN = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0]])


@expert(*ids("VelocityOnlyCartpole"))
class VelocityOnlyCartPole:
    """The first observation shows the positions, the others the velocities; their sum is exact."""

    def __init__(self, spec: EnvSpec):
        self.id, self.position, self.velocity = (
            "scripted/popgym-velocity-cartpole@1",
            NOTHING,
            NOTHING,
        )

    def act(self, timestep: TimeStep) -> Arrays:
        seen, first = timestep.observation[0].astype(np.float64), timestep.started[:, None]
        self.position, self.velocity = (
            memory(timestep, state, (2,)) for state in (self.position, self.velocity)
        )
        self.position[:] = np.where(first, seen, self.position + STEP * self.velocity)
        self.velocity[:] = np.where(first, 0, seen)
        push = self.position @ GAINS[[0, 2]] + self.velocity @ GAINS[[1, 3]]
        return [(push > 0).astype(np.int32)]


@expert(*ids("NoisyPositionOnlyCartPole"))
class NoisyCartPole:
    """Kalman filter of the linearised cart and pole; its pushes are known."""

    def __init__(self, spec: EnvSpec):
        self.id, self.state, self.time = "scripted/popgym-noisy-cartpole@1", NOTHING, NOTHING
        noise = (0.1, 0.2, 0.3)[level(spec)] ** 2 * np.eye(2)
        covariance, self.gains = np.eye(4) * 0.05**2 / 3, []  # the start is uniform in ±0.05
        for _ in range(spec.horizon + 1):
            gain = covariance @ SEEN.T @ np.linalg.inv(SEEN @ covariance @ SEEN.T + noise)
            self.gains.append(gain)
            covariance = BALANCED @ (covariance - gain @ SEEN @ covariance) @ BALANCED.T
            covariance += np.diag([0, 1e-5, 0, 1e-5])  # of what linearising leaves out

    def act(self, timestep: TimeStep) -> Arrays:
        self.state = memory(timestep, self.state, (4,))
        self.time = memory(timestep, self.time, dtype=np.int64)
        push = np.where(timestep.action[0] > 0, 1.0, -1.0)[:, None] * PUSH
        self.state[:] = np.where(timestep.started[:, None], 0, self.state @ BALANCED.T + push)
        gain = np.array(self.gains)[np.minimum(self.time, len(self.gains) - 1)]
        wrong = timestep.observation[0] - self.state @ SEEN.T
        self.state += (gain @ wrong[..., None])[..., 0]
        self.time += 1
        return [(self.state @ GAINS > 0).astype(np.int32)]


@expert(*ids("PositionOnlyPendulum"), *ids("NoisyPositionOnlyPendulum"))
class Pendulum:
    """An observer with the pendulum's own dynamics; energy and then feedback, as with the velocity
    in view. The share of an observed error that it corrects falls with the noise."""

    def __init__(self, spec: EnvSpec):
        noisy = "Noisy" in spec.id
        self.id = f"scripted/popgym-{'noisy-' * noisy}pendulum@1"
        self.share = (0.25, 0.12, 0.08)[level(spec)] if noisy else 1.0
        self.rate = self.share / (2 - self.share) * self.share / 0.05
        self.angle = self.spin = NOTHING

    def act(self, timestep: TimeStep) -> Arrays:
        cosine, sine = timestep.observation[0].T.astype(np.float64)
        self.angle, self.spin = memory(timestep, self.angle), memory(timestep, self.spin)
        seen, torque = np.arctan2(sine, cosine), np.clip(timestep.action[0][:, 0], -2, 2)
        spin = np.clip(self.spin + (15 * np.sin(self.angle) + 3 * torque) * 0.05, -8, 8)
        angle = self.angle + spin * 0.05
        wrong = (seen - angle + np.pi) % (2 * np.pi) - np.pi
        self.angle[:] = np.where(timestep.started, seen, angle + self.share * wrong)
        self.spin[:] = np.where(timestep.started, 0, np.clip(spin + self.rate * wrong, -8, 8))
        tilt = (self.angle + np.pi) % (2 * np.pi) - np.pi
        energy = self.spin**2 / 6 + 5 * (np.cos(tilt) - 1)
        near = np.abs(tilt + 0.2 * self.spin) < 0.5
        push = np.where(near, -10 * tilt - 2 * self.spin, -energy * self.spin)
        return [np.clip(push, -2, 2)[:, None].astype(np.float32)]


class Board:
    """Base of actors that name cells of a board and are told something about each."""

    side: int

    def __init__(self):
        self.boards: list[np.ndarray] = []  # -1: not named yet

    def act(self, timestep: TimeStep) -> Arrays:
        self.boards = self.boards or [self._new() for _ in timestep.started]
        chosen = []
        for i, started in enumerate(timestep.started):
            if started:
                self.boards[i] = self._new()
            else:
                self.boards[i][tuple(timestep.action[0][i])] = timestep.observation[0][i]
            over = timestep.terminated[i] or timestep.truncated[i]
            chosen.append((0, 0) if over and not started else self.choose(self.boards[i]))
        return [np.array(chosen, np.int32)]

    def choose(self, board: np.ndarray) -> tuple[int, int]:
        raise NotImplementedError

    def _new(self) -> np.ndarray:
        return np.full((self.side, self.side), -1)


@expert(*ids("MineSweeper"))
class MineSweeper(Board):
    """Every number names the mines round the cell that was opened."""

    def __init__(self, spec: EnvSpec):
        super().__init__()
        self.id = "scripted/popgym-minesweeper@1"
        self.side, self.mines = ((4, 2), (6, 6), (8, 10))[level(spec)]

    def choose(self, board: np.ndarray) -> tuple[int, int]:
        return safest(board, self.mines)


@expert(*ids("Battleship"))
class Battleship(Board):
    """The cell through which most ships (2, 3, 3 and 4 long) could lie that miss all misses; one
    more hit that a ship would explain counts fifty times as much."""

    def __init__(self, spec: EnvSpec):
        super().__init__()
        self.id = "scripted/popgym-battleship@1"
        self.side = (8, 10, 12)[level(spec)]

    def choose(self, board: np.ndarray) -> tuple[int, int]:
        weight = np.zeros(board.shape)
        for turned in (False, True):
            view, sums = (board.T, weight.T) if turned else (board, weight)
            for length in (2, 3, 3, 4):
                windows = np.lib.stride_tricks.sliding_window_view(view, length, axis=1)
                possible = (windows != 0).all(2)
                score = possible * 50.0 ** (windows == 1).sum(2)
                for offset in range(length):
                    sums[:, offset : offset + score.shape[1]] += score
        weight[board >= 0] = -1
        row, column = np.unravel_index(weight.argmax(), weight.shape)
        return int(row), int(column)
