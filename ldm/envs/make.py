"""Builds any environment of the catalogue behind the one vector interface."""

import sys

from ldm.envs import groups
from ldm.envs.catalogue import find
from ldm.envs.interface import VectorEnv
from ldm.envs.spec import EnvSpec
from ldm.errors import LdmError

SPLITS = ("train", "test")


def make(
    env: str | EnvSpec,
    num_envs: int,
    seed: int,
    split: str = "train",
    expert: str | None = None,
    processes: int = 1,
) -> VectorEnv:
    """`num_envs` streams of one environment; stream i takes seed `seed + i`.

    split: the range of data that a data-driven environment replays. expert: name of an expert that
    the environment's adapter hosts; then TimeStep.expert holds its actions. processes: worker
    processes, or threads of an in-process backend. Raises LdmError when it cannot be built. Call
    `close()` when done.
    """
    spec = find(env) if isinstance(env, str) else env
    if split not in SPLITS:
        raise LdmError(f'{spec.id}: split "{split}" is not one of {", ".join(SPLITS)}')
    if num_envs < 1:
        raise LdmError(f"{spec.id}: num_envs is {num_envs}, it must be at least 1")
    if spec.backend == "envpool":
        from ldm.envs.envpool_backend import EnvpoolEnv

        if expert:
            raise LdmError(f'{spec.id}: envpool hosts no expert ("{expert}")')
        return EnvpoolEnv(spec, num_envs, seed, processes)
    from ldm.envs.worker_backend import WorkerEnv

    processes = num_envs if spec.alone else processes
    return WorkerEnv(spec, num_envs, seed, split, expert, processes, interpreter(spec))


def interpreter(spec: EnvSpec) -> str:
    """The Python that holds the libraries of the environment's group."""
    return sys.executable if spec.group == "main" else groups.interpreter(spec.group)
