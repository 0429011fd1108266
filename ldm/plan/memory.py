"""The most memory of a training step, by part, for one rank: what is always there and the timeline
of a backward pass over it. Checked against live tensors of CPU ranks (tests/plan).

    weights          in the model's type; of stage 3 a part, and what is gathered of the rest
    master, moments  fp32, a part a rank under ZeRO
    buckets          what collectives carry, DeepSpeed's own buffers
    gradients        as far as the backward pass has come
    kept             activations, until their backward
    working          of the part that runs
"""

from dataclasses import asdict, dataclass

from ldm.plan.activations import Activations

BUCKET = 200_000_000  # numbers, ldm.train.deepspeed_engine
REDUCED = 500_000_000  # numbers that DeepSpeed sums at a time after a backward
LIVE = 1_000_000_000 + 50_000_000  # weights that stage 3 gathers at most, and fetches ahead
FP32 = 4


@dataclass(frozen=True)
class Setting:
    """How one rank trains. stage 0: one process, plain PyTorch."""

    stage: int
    world: int
    precision: str
    recompute: str
    micro_batches: int
    cuda: bool
    offload: bool = False

    @property
    def element(self) -> int:
        return 2 if self.precision == "bf16" else 4

    @property
    def weight(self) -> int:
        """Bytes of a weight in the model: one process keeps fp32."""
        return FP32 if self.stage == 0 else self.element


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment when there are most."""

    weights: float
    master: float
    moments: float
    buckets: float
    gradients: float
    kept: float
    working: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def peak(activations: Activations, setting: Setting, parameters: int) -> Memory:
    """The moment of a later step that holds most."""
    side_by_side = setting.micro_batches if setting.stage == 0 and not setting.cuda else 1
    always = _always(setting, parameters)
    moments = [(kept, needed, made) for _, kept, needed, made in activations.timeline()]
    moments.append((0.0, _reduced(setting, parameters), parameters))
    found = [
        Memory(
            **always,
            gradients=_gradients(setting, parameters, made, side_by_side),
            kept=kept * side_by_side,
            working=needed * side_by_side,
        )
        for kept, needed, made in moments
    ]
    return max(found, key=lambda memory: memory.total)


def sums_apart(setting: Setting) -> bool:
    """Whether DeepSpeed adds micro-batches up in fp32 of all weights, in a class without buckets
    (docs/decisions/0007-micro-batches-under-deepspeed.md)."""
    return setting.stage == 1 and setting.micro_batches > 1 and setting.precision == "bf16"


def _always(setting: Setting, parameters: int) -> dict[str, float]:
    part = parameters / setting.world
    if setting.stage == 0:
        moments = 2 * FP32 * parameters
        return {"weights": FP32 * parameters, "master": 0, "moments": moments, "buckets": 0}
    weights: float = setting.weight * parameters
    if setting.stage == 3:
        weights = setting.weight * (part + min(parameters, LIVE))
    bucket = min(parameters, BUCKET) * setting.weight * (2 if setting.cuda else 1)
    on_device = 0 if setting.offload else 1
    return {
        "weights": weights,
        "master": FP32 * part * on_device,
        "moments": 2 * FP32 * part * on_device,
        "buckets": 0 if sums_apart(setting) else bucket,
    }


def _reduced(setting: Setting, parameters: int) -> float:
    """What the sum over ranks needs when the backward is over."""
    if setting.stage == 0:
        return 0
    if sums_apart(setting):
        return FP32 * min(parameters, REDUCED)
    return FP32 * parameters / setting.world


def _gradients(setting: Setting, parameters: int, made: int, side_by_side: int) -> float:
    """made: numbers that this backward has gradients of by now."""
    several = setting.micro_batches > 1
    if setting.stage == 0:
        summed = FP32 * parameters if several and side_by_side == 1 else 0
        return FP32 * made * side_by_side + summed
    if sums_apart(setting):
        return FP32 * parameters + setting.weight * made
    part = (FP32 if several else setting.weight) * parameters / setting.world
    if setting.stage == 3:
        return part
    full = max(0, made - BUCKET) / setting.world  # of buckets that were full and have been summed
    before = part if several else setting.weight * full  # several: of the micro-batches before
    if setting.stage == 1 and not setting.cuda:
        return setting.weight * (parameters if several else made) + before
    return before
