"""A reference policy acts in N streams of an environment; what happened becomes trajectories.

Everything is written into arrays (rows, N, ...) made beforehand: row t holds what a stream saw at
moment t and what it did then. Episodes are cut out of the columns only at the end.
"""

import math
from collections.abc import Iterator
from time import perf_counter

import numpy as np

from ldm.data.episode import Trajectory
from ldm.envs import legal, spaces
from ldm.envs.interface import Actor, Arrays, TimeStep, VectorEnv, is_memoryless
from ldm.errors import LdmError
from ldm.record.noise import Noise

POLICY, SIMULATOR, SERIALISATION = "policy", "simulator", "serialisation"


class Recording:
    """Rows t of N streams: observation, label and executed action, what the action led to, and
    whether the row starts an episode. The action of an episode's last row was never executed.

    seconds: what making it took, by part (POLICY, SIMULATOR, SERIALISATION)."""

    def __init__(self, env: VectorEnv, actor: Actor, seed: int, rows: int):
        self.env, self.policy, self.seed = env, actor.id, seed
        self.memoryless = is_memoryless(actor)
        self.rows = 0
        self.seconds = dict.fromkeys((POLICY, SIMULATOR, SERIALISATION), 0.0)
        shape = (rows, env.num_envs)

        def empty(tree: spaces.Tree) -> Arrays:
            return [np.empty((*shape, *leaf.shape), leaf.dtype) for leaf in spaces.leaves(tree)]

        self.observations = empty(env.observation)
        self.actions, self.labels = empty(env.action), empty(env.action)
        self.rewards = np.zeros(shape, np.float32)
        self.noise = np.zeros(shape, np.float32)
        self.started, self.terminated, self.truncated = (np.zeros(shape, bool) for _ in range(3))

    def see(self, timestep: TimeStep) -> None:
        """Opens the next row."""
        row = self.rows
        for array, value in zip(self.observations, timestep.observation):
            array[row] = value
        self.started[row] = timestep.started
        self.rows += 1

    def do(self, label: Arrays, noise: np.ndarray, timestep: TimeStep) -> None:
        """Completes the row with what was done and the timestep that this led to."""
        row = self.rows - 1
        for array, value in zip(self.labels, label):
            array[row] = value
        for array, value in zip(self.actions, timestep.action):
            array[row] = value
        self.noise[row] = noise
        self.rewards[row] = timestep.reward
        self.terminated[row] = timestep.terminated
        self.truncated[row] = timestep.truncated

    def trajectories(self) -> Iterator[Trajectory]:
        """Stream after stream its consecutive episodes. An episode that a fault cut off is left
        out and ends the trajectory; an unfinished last one is kept."""
        for stream in range(self.env.num_envs):
            firsts = np.flatnonzero(self.started[: self.rows, stream])
            ends = np.append(firsts[1:], self.rows)
            done = self.terminated[ends - 2, stream] | self.truncated[ends - 2, stream]
            done[-1] = True
            whole = done & (ends - firsts > 1)
            for part in np.split(np.arange(len(firsts)), np.flatnonzero(~whole)):
                part = part[whole[part]]
                if len(part):
                    yield self._trajectory(stream, firsts[part], ends[part])

    def _trajectory(self, stream: int, firsts: np.ndarray, ends: np.ndarray) -> Trajectory:
        seen = slice(firsts[0], ends[-1])
        acted = np.ones(ends[-1] - firsts[0], bool)
        acted[ends - 1 - firsts[0]] = False

        def steps(array: np.ndarray) -> np.ndarray:
            return array[seen, stream][acted]

        return Trajectory(
            self.env.spec.id,
            self.seed + stream,
            self.policy,
            ends - firsts - 1,
            self.noise[firsts, stream],
            [array[seen, stream] for array in self.observations],
            [steps(array) for array in self.actions],
            [steps(array) for array in self.labels],
            steps(self.rewards),
            steps(self.terminated),
            steps(self.truncated),
        )


def record(env: VectorEnv, actor: Actor, noise: Noise, transitions: int, seed: int) -> Recording:
    """At least `transitions` transitions (less than num_envs more) of `actor` in `env`.

    `seed` is the one `env` was made with. Raises LdmError where faults of the environment cost more
    than half of the rows.
    """
    limit = 2 * math.ceil(transitions / env.num_envs) + 4  # if every episode is one step long
    recording = Recording(env, actor, seed, limit)
    policy = simulator = 0.0
    begin = perf_counter()
    timestep, recorded = env.reset(), 0
    recording.see(timestep)
    first = np.zeros(env.num_envs, np.int64)  # row in which each stream's episode began
    while recorded < transitions:
        if recording.rows == limit:
            raise LdmError(
                f"{env.spec.id}: only {recorded} of {limit * env.num_envs} steps were usable, the "
                f"rest was lost to {env.faults} faults; see ldm envs check {env.spec.id}; the "
                f"last one:\n{env.last_fault}"
            )
        asked = perf_counter()
        label = actor.act(timestep)
        action = noise.apply(recording.started[recording.rows - 1], label)
        sent = perf_counter()
        timestep = env.step(action)
        simulator += perf_counter() - sent
        policy += sent - asked
        recording.do(label, noise.level, timestep)
        recording.see(timestep)
        recorded += env.num_envs
        if timestep.started.any():
            row = recording.rows - 1
            cut = timestep.started & ~(recording.terminated[row - 2] | recording.truncated[row - 2])
            recorded -= int(np.count_nonzero(timestep.started)) + int((row - 1 - first)[cut].sum())
            first[timestep.started] = row
    rest = perf_counter() - begin - policy - simulator
    recording.seconds |= {POLICY: policy, SIMULATOR: simulator, SERIALISATION: rest}
    return recording


def validate(env: VectorEnv, policy: str, trajectory: Trajectory) -> None:
    """Raises LdmError where a label or a reward is NaN, infinite or outside its space. (Backends
    answer for observations and executed actions.)"""
    where = f"{env.spec.id}, stream with seed {trajectory.seed}"
    for leaf, array in zip(spaces.leaves(env.action), trajectory.labels):
        if wrong := legal.violation(leaf, array):
            raise LdmError(
                f"{where}: a label of {policy} is outside the action space: {wrong}; mend that "
                'reference policy, or delete its card and run "ldm reference" again'
            )
    if not np.isfinite(trajectory.rewards).all():
        raise LdmError(f"{where}: a reward is NaN or infinite: leave the environment out")
