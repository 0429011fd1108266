"""The processes that train together: one alone, or those that a launcher has started."""

import os
from datetime import timedelta

import torch
from torch import distributed as dist

from ldm.errors import LdmError, MachineError, install

# Of a collective. What ranks do apart, behind one: compile, plan a run's shapes, read a checkpoint.
TIME_LIMIT = timedelta(minutes=20)


def launched() -> bool:
    """Whether a launcher has set the environment of a rank."""
    return "RANK" in os.environ


class Alone:
    """One process, one device."""

    rank, world = 0, 1

    def __init__(self):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Over all ranks, in place."""
        return values

    def broadcast(self, value):
        """Rank 0's value, on all ranks; none returns before all have called it."""
        return value


class Ranks:
    """The process group that the launcher describes in the environment.

    Raises LdmError where there is no launcher, no deepspeed, or another launch holds the port.
    """

    def __init__(self):
        self.deepspeed = start_ranks()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(values)
        return values

    def broadcast(self, value):
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        dist.barrier()
        return box[0]


def limit_time() -> None:
    """Gives every group of ranks TIME_LIMIT: DeepSpeed makes its own with the library's default,
    10 minutes over NCCL and 30 over gloo."""
    groups = dist.distributed_c10d
    for group in groups._world.pg_map:
        groups._set_pg_timeout(TIME_LIMIT, group)


def lost_rank(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone or does not answer."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def start_ranks():
    """Joins the process group, once; the deepspeed module. Raises LdmError as `Ranks` does."""
    if not launched():
        raise LdmError(
            "train.engine=deepspeed needs the launcher: "
            '"deepspeed --num_gpus 8 --module ldm.train RECIPE" (or train.engine=torch)'
        )
    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise MachineError(f"train.engine=deepspeed: {install('deepspeed')}") from error
    from deepspeed.utils.logging import set_log_level_from_string

    set_log_level_from_string("warning")
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:  # an all-reduce that only inference uses; it would compile for a minute
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    try:
        deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False, timeout=TIME_LIMIT)
    except dist.DistNetworkError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise LdmError(
            f"the ranks cannot meet at {where} (another launch on this machine holds the port?): "
            "give this one another, deepspeed --master_port 29501"
        ) from error
    return deepspeed
