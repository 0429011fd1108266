"""Every way to train a recipe on a cluster, and the one to take."""

from dataclasses import dataclass
from itertools import product

from ldm.config import Recipe
from ldm.errors import LdmError
from ldm.model.decoder import whole_parameters
from ldm.model.presets import Architecture, architecture
from ldm.plan.activations import Activations
from ldm.plan.batch import BatchSize
from ldm.plan.cluster import Cluster
from ldm.plan.memory import Memory, Setting, peak
from ldm.plan.step import Seconds, model_flops, seconds

STAGES, RECOMPUTE = (1, 2, 3), ("none", "selective", "full")
EQUAL = 0.03  # no step time is predicted better than that
LARGEST = 1 << 24  # tokens of a micro-batch that are tried


@dataclass(frozen=True)
class Way:
    """One choice: what it takes and how long. bins: of a micro-batch."""

    setting: Setting
    bins: int
    compiled: bool
    memory: Memory
    seconds: Seconds
    mfu: float
    largest: int  # tokens of a micro-batch that fit, 0 if not one bin does
    fits: bool

    @property
    def name(self) -> str:
        offload = ", offload" if self.setting.offload else ""
        return f"ZeRO-{self.setting.stage}, recompute {self.setting.recompute}{offload}"


@dataclass(frozen=True)
class Problem:
    """What is to be trained, on what. length: Σ L² / Σ L of the segments; environments: how many
    the recipe's patterns come to, for each of which the head keeps a row."""

    recipe: Recipe
    cluster: Cluster
    length: float
    environments: int

    @property
    def sizes(self) -> Architecture:
        fitted = {"rows": self.recipe.tokens.rows, "owners": 1 + self.environments}
        return architecture(self.recipe.model.preset, **fitted | self.recipe.model.overrides)

    @property
    def bins(self) -> int:
        """Of one rank and step. Raises LdmError where ranks cannot share the streams."""
        streams, gpus = self.recipe.mix.streams, self.cluster.gpus
        if streams % gpus:
            raise LdmError(
                f"{gpus} GPUs cannot share mix.streams = {streams}: choose a number of GPUs that "
                f"divides it, or --streams {gpus * max(1, round(streams / gpus))}"
            )
        return streams // gpus


def ways(problem: Problem) -> list[Way]:
    """Of every ZeRO stage and kind of recomputation the split into micro-batches that is fastest
    and fits, or else the smallest."""
    parameters = whole_parameters(problem.sizes)
    found = []
    for stage, recompute in product(STAGES, RECOMPUTE):
        tried = [_way(problem, parameters, stage, recompute, k) for k in _splits(problem.bins)]
        fitting = [way for way in tried if way.fits]
        best = min(fitting, key=lambda way: way.seconds.total) if fitting else tried[-1]
        found.append(best)
    return found


def _splits(bins: int) -> list[int]:
    """Numbers of micro-batches that share the bins evenly, ascending."""
    return [k for k in range(1, bins + 1) if bins % k == 0]


def _way(problem: Problem, parameters: int, stage: int, recompute: str, k: int) -> Way:
    recipe, cluster = problem.recipe, problem.cluster
    offload = recipe.train.offload
    setting = Setting(stage, cluster.gpus, "bf16", recompute, k, True, offload)
    bins = problem.bins // k

    def memory(tokens: int) -> Memory:
        batch = BatchSize.usual(tokens, problem.length, problem.sizes.classes)
        work = Activations(problem.sizes, batch, 2, setting.weight, True, recompute)
        return peak(work, setting, parameters)

    batch = BatchSize.usual(bins * recipe.mix.bin_tokens, problem.length, problem.sizes.classes)
    took = seconds(problem.sizes, batch, setting, parameters, cluster)
    flops = k * model_flops(problem.sizes, batch)
    used = memory(batch.tokens)
    largest = _largest(lambda n: memory(n).total <= cluster.gpu.usable, recipe.mix.bin_tokens)
    return Way(
        setting,
        bins,
        recompute != "selective",
        used,
        took,
        flops / took.total / cluster.gpu.roof.bf16,
        largest,
        used.total <= cluster.gpu.usable,
    )


def _largest(fits, step: int) -> int:
    """The most tokens, a multiple of `step`, that fit."""
    low, high = 0, LARGEST // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle - 1)
    return low * step


def choose(found: list[Way]) -> tuple[Way | None, str]:
    """The fastest that fits, of those within EQUAL the lowest stage; and why."""
    fitting = [way for way in found if way.fits]
    if not fitting:
        least = min(found, key=lambda way: way.memory.total)
        return None, (
            f"nothing fits: {least.name} takes least, {least.memory.total / 1e9:.0f} GB. More GPUs "
            "split more under ZeRO-3; --train.offload moves optimiser state to the hosts; "
            "smaller bins need fewer activations"
        )
    fastest = min(way.seconds.total for way in fitting)
    best = next(way for way in fitting if way.seconds.total <= (1 + EQUAL) * fastest)
    reasons = [f"{best.name}: within {EQUAL:.0%} of the fastest that fits, at the lowest stage"]
    simpler = [way for way in found if not way.fits and way.seconds.total < best.seconds.total]
    reasons += [
        f"{way.name} would be faster but takes {way.memory.total / 1e9:.0f} GB" for way in simpler
    ]
    slower = [way for way in fitting if way is not best]
    if slower:
        worst = max(slower, key=lambda way: way.seconds.total)
        reasons.append(f"{worst.name} would take {worst.seconds.total / best.seconds.total:.2f} ×")
    return best, "; ".join(reasons)
