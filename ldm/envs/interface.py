"""The one vector interface over all environments, and the one interface over all that acts in them.

Samples are flat (spaces.py): a batch of observations or actions is a list with one array a leaf,
each (num_envs, *leaf.shape). A stream (one row) starts a new episode on the step after the one that
ended: that row says `started`, its action was ignored, and it is no transition.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from ldm.envs.spaces import Tree
from ldm.envs.spec import EnvSpec

Arrays = list[np.ndarray]


class TimeStep(NamedTuple):
    """What every stream sees at one moment; all arrays have num_envs rows.

    observation: after the step (after a step that ended the episode: the true final observation).
    action, reward, terminated, truncated: the step that led here, as executed; meaningless where
    `started`. expert: what the expert that the environment hosts would do in this observation.
    """

    observation: Arrays
    action: Arrays
    reward: np.ndarray  # float64 (N,)
    terminated: np.ndarray  # bool (N,)
    truncated: np.ndarray  # bool (N,)
    started: np.ndarray  # bool (N,): first observation of an episode
    expert: Arrays | None = None


class VectorEnv(Protocol):
    """`num_envs` streams of one environment, stepped together."""

    spec: EnvSpec
    observation: Tree
    num_envs: int
    last_fault: str  # of the last one, what the library raised; empty where there was none

    @property
    def action(self) -> Tree: ...

    @property
    def faults(self) -> int:
        """How often episodes were lost to the environment's misbehaviour so far."""
        ...

    @property
    def fault_kinds(self) -> Mapping[str, int]:
        """The same by kind (worker_process.Fault)."""
        ...

    @property
    def pids(self) -> list[int]:
        """The processes that run its environments now, where it is not this one that does."""
        ...

    def reset(self) -> TimeStep:
        """Starts every stream anew; `started` is true everywhere."""
        ...

    def step(self, action: Arrays) -> TimeStep:
        """Executes one action a stream (ignored in streams whose episode just ended): `send`, then
        `receive`."""
        ...

    def send(self, action: Arrays) -> None:
        """Starts a step and returns while the simulators run."""
        ...

    def receive(self) -> TimeStep:
        """Waits for the step that `send` started."""
        ...

    def close(self) -> None: ...


class Actor(Protocol):
    """Anything that acts: a random policy, a reference policy, the model.

    It sees every timestep of every stream in order and returns an action a stream. The action it
    returns for a timestep that ended an episode is ignored. One whose action is a function of the
    observation alone may say so: `memoryless = True`.
    """

    id: str

    def act(self, timestep: TimeStep) -> Arrays: ...


def is_memoryless(actor: Actor) -> bool:
    """Whether what it does follows from the observation alone."""
    return bool(getattr(actor, "memoryless", False))
