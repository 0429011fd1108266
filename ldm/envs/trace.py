"""What an environment does under a fixed seed and fixed actions, and the digest that names it.

Two environments with one digest play alike to the bit; a card that was made at one digest holds for
the environment as long as it keeps it, whatever its source looks like.
"""

import hashlib

import numpy as np

from ldm.envs import spaces
from ldm.envs.interface import Arrays, TimeStep
from ldm.envs.make import make
from ldm.envs.rollout import RandomActor
from ldm.envs.spec import EnvSpec
from ldm.envs.witness import RETAINED

SEED, STREAMS, STEPS = 0, 2, 200


class Trace:
    """The time steps of one play, copied when they came, and their digest."""

    def __init__(self, action: spaces.Tree):
        self.digest = hashlib.blake2b(repr(action).encode(), digest_size=8)
        self.timesteps: list[TimeStep] = []
        self.given: list[TimeStep | None] = []  # None once it was compared

    def add(self, timestep: TimeStep) -> None:
        """Raises ValueError where a time step of RETAINED steps ago has changed since."""
        for array in timestep.observation:  # by float32's digits, whatever dtype a leaf is kept in
            wide = array.dtype == np.float64
            self.digest.update((array.astype(np.float32) if wide else array).tobytes())
        for array in (timestep.reward, timestep.terminated, timestep.truncated):
            self.digest.update(array.tobytes())
        self.given.append(timestep)
        self.timesteps.append(copied(timestep))
        if len(self.given) > RETAINED:
            self._require_unchanged(len(self.given) - 1 - RETAINED)
            self.given[len(self.given) - 1 - RETAINED] = None

    def _require_unchanged(self, moment: int) -> None:
        given, kept = self.given[moment], self.timesteps[moment]
        for name in TimeStep._fields:
            now, then = (_arrays(getattr(step, name)) for step in (given, kept))
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(now, then)):
                raise ValueError(
                    f"the {name} of step {moment} has changed {RETAINED} steps later: somebody "
                    f"writes to memory that was handed over"
                )

    @property
    def actions(self) -> list[list[np.ndarray]]:
        """The executed action of every step."""
        return [timestep.action for timestep in self.timesteps[1:]]


def copied(timestep: TimeStep) -> TimeStep:
    copies = lambda arrays: [array.copy() for array in arrays]
    return TimeStep(
        copies(timestep.observation),
        copies(timestep.action),
        timestep.reward.copy(),
        timestep.terminated.copy(),
        timestep.truncated.copy(),
        timestep.started.copy(),
        None if timestep.expert is None else copies(timestep.expert),
    )


def _arrays(field: Arrays | np.ndarray | None) -> Arrays:
    if field is None:
        return []
    return field if isinstance(field, list) else [field]


def trace_digest(spec: EnvSpec) -> str:
    """The digest of STEPS random steps in STREAMS streams from SEED: that of `ldm envs check`.

    Raises LdmError where the environment cannot be built or fails.
    """
    env = make(spec, STREAMS, SEED)
    try:
        actor, trace = RandomActor(env.action, SEED), Trace(env.action)
        timestep = env.reset()
        for _ in range(STEPS):
            trace.add(timestep)
            timestep = env.step(actor.act(timestep))
    finally:
        env.close()
    return trace.digest.hexdigest()
