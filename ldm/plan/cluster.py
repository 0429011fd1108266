"""GPUs and networks that a plan knows: what they hold and carry. Sources: docs/scaling.md."""

from dataclasses import dataclass
from math import ceil

from ldm.errors import LdmError, nearest
from ldm.train import roofs

NODE = 8  # GPUs that share NVLink
HOP = 5e-6  # seconds that a ring's collective takes a rank, estimated
HOST_LINK = 50e9  # bytes/s between a GPU and its host, PCIe 5 as reached
RESERVED = 1.5e9  # bytes: context, libraries, NCCL's own buffers; estimated
FILLED = 0.95  # share of the memory that an allocator's blocks leave usable; estimated


@dataclass(frozen=True)
class GPU:
    """memory: bytes. link: bytes/s to the GPUs of its node that a collective reaches."""

    roof: roofs.Roof
    memory: float
    link: float

    @property
    def usable(self) -> float:
        return self.memory * FILLED - RESERVED

    @property
    def copy(self) -> float:
        """Bytes/s that long kernels reach."""
        return roofs.REACHED * (self.roof.copy or 0.9 * self.roof.bandwidth)

    @property
    def products(self) -> float:
        """FLOP/s of a step's matrix products, as a share of the peak like an H200's."""
        return roofs.PRODUCTS / roofs.H200.bf16 * self.roof.bf16


GIB = 2**30
GPUS = {
    "H200": GPU(roofs.H200, 140 * GIB, 360e9),
    "H100": GPU(roofs.H100, 79 * GIB, 360e9),
    "A100": GPU(roofs.Roof("A100-SXM4-80GB", 312e12, 2.039e12), 79 * GIB, 240e9),
}


@dataclass(frozen=True)
class Cluster:
    """gpus of one kind in nodes of NODE; network: bytes/s that a GPU reaches to other nodes."""

    gpu: GPU
    gpus: int
    network: float

    def seconds(self, moved: float, collectives: int = 1) -> float:
        """Of a reduce-scatter or an all-gather of `moved` bytes in all, in so many pieces.

        A ring carries (n − 1) / n of them past every GPU of a node and, shared by the node's
        network cards, past every node; the slower of both counts.
        """
        if self.gpus == 1:
            return 0.0
        nodes, inside = ceil(self.gpus / NODE), min(self.gpus, NODE)
        near = moved * (self.gpus - 1) / self.gpus / self.gpu.link
        far = moved * (nodes - 1) / nodes / (inside * self.network)
        return max(near, far) + collectives * HOP * self.gpus


def cluster(kind: str, gpus: int, gigabits: float) -> Cluster:
    """gigabits: of the network a second and GPU, of which collectives reach 85%."""
    if kind not in GPUS:
        raise LdmError(f'no GPU "{kind}"{nearest(kind, GPUS)}; known: {", ".join(GPUS)}')
    if gpus < 1 or gigabits <= 0:
        raise LdmError(f"expected at least one GPU and a network, got {gpus} and {gigabits} Gbit/s")
    return Cluster(GPUS[kind], gpus, 0.85 * gigabits * 1e9 / 8)
