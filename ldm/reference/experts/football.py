"""Google Research Football's exercises, seen by the small map: run at the goal, and shoot.

Observation: 72 rows × 96 columns of four planes, 255 where something is: my team, the others, the
ball, the player whom I move; the goal that I attack is at the right edge, its middle in row 36.
Actions: 1 to 8 are directions from left on, clockwise; 12 shoots; 13 runs faster from then on.
"""

import numpy as np

from ldm.envs.interface import Actor, Arrays, TimeStep
from ldm.envs.spec import EnvSpec
from ldm.reference.experts import NOTHING, expert, memory

GOAL = 36, 95  # row and column
NEAR = 76  # the column from which I shoot
REACH = 3  # pixels, rows and columns together, between me and a ball that is mine
FLAT = 0.4  # a way that is less steep is along one axis
SHOOT, SPRINT = 12, 13
START = 2  # the step of an episode in which I begin to run faster; at first the keeper is moved
#            up                 level            down, each to the left, nowhere, to the right
DIRECTIONS = np.array([[2, 3, 4], [1, 5, 5], [8, 7, 6]])


@expert(
    "envpool/gfootball/academy_empty_goal_close-v1",
    "envpool/gfootball/academy_empty_goal-v1",
    "envpool/gfootball/academy_run_to_score-v1",
    "envpool/gfootball/academy_run_to_score_with_keeper-v1",
)
def run_and_shoot(spec: EnvSpec) -> Actor:
    class RunAndShoot:
        id, steps = "scripted/run-and-shoot@1", NOTHING

        def act(self, timestep: TimeStep) -> Arrays:
            self.steps = memory(timestep, self.steps)
            ball, me = (centre(timestep.observation[0][..., plane] > 0) for plane in (2, 3))
            mine = abs(ball - me).sum(1) <= REACH
            action = towards(np.where(mine[:, None], GOAL, ball) - me)
            action[mine & (ball[:, 1] >= NEAR)] = SHOOT
            action[self.steps == START] = SPRINT
            self.steps += 1
            return [action.astype(np.int32)]

    return RunAndShoot()


def centre(found: np.ndarray) -> np.ndarray:
    """float (N, 2): mean row and column of what was found in (N, 72, 96); 0 where nothing was."""
    count = found.sum((1, 2)).clip(1)
    rows, columns = (np.arange(size) for size in found.shape[1:])
    return np.stack([found.sum(2) @ rows / count, found.sum(1) @ columns / count], 1)


def towards(way: np.ndarray) -> np.ndarray:
    """int (N,): the direction nearest to a way (N, 2) of rows and columns."""
    steep = abs(way) > FLAT * abs(way[:, ::-1])
    down, right = (np.sign(way) * steep).astype(int).T
    return DIRECTIONS[down + 1, right + 1]
