"""`ldm plan`: memory, time, data and cores of a recipe on a cluster, and what to choose."""

from dataclasses import asdict, replace

from rich.console import Console
from rich.table import Table

from ldm.config import ModelConfig, Recipe, load_recipe
from ldm.errors import LdmError
from ldm.model.decoder import whole_parameters
from ldm.model.presets import PRESETS
from ldm.plan import data as quantities
from ldm.plan.acting import STREAMS, pass_seconds
from ldm.plan.choose import Problem, Way, choose, ways
from ldm.plan.cluster import cluster

WIDTH = 150  # of the tables
MOST_TOKENS, MOST_GPUS = 1e12, 1024
RECIPES = ("ldm-v0", "1b", "7b")  # presets with a recipe of their name


def recipe_of(name: str) -> Recipe:
    """The recipe `name`; of a preset that has none, ldm-v0's with that preset."""
    if name in PRESETS and name not in RECIPES:
        return replace(load_recipe("ldm-v0"), name=name, model=ModelConfig(name))
    return load_recipe(name)


def plan(
    name: str,
    gpu: str,
    gpus: int,
    network: float,
    streams: int | None,
    tokens: float | None,
    length: float,
    per_transition: float,
    environments: int,
) -> None:
    """Prints the plan. Raises LdmError for what cannot be planned."""
    recipe = recipe_of(name)
    if streams is not None:
        recipe = replace(recipe, mix=replace(recipe.mix, streams=max(1, streams)))
    if not 0 < gpus <= MOST_GPUS:
        raise LdmError(f"--gpus: expected 1 to {MOST_GPUS:,}, got {gpus}")
    step_tokens = recipe.mix.streams * recipe.mix.bin_tokens
    tokens = recipe.train.steps * step_tokens if tokens is None else tokens
    if not step_tokens <= tokens <= MOST_TOKENS:
        raise LdmError(
            f"--tokens: expected {step_tokens:,}, one step, to {MOST_TOKENS:.0e}, got {tokens:g}"
        )
    problem = Problem(recipe, cluster(gpu, gpus, network), length, environments)
    found = ways(problem)
    best, why = choose(found)
    parameters = whole_parameters(problem.sizes)
    console = Console(width=WIDTH)
    console.print(
        f"{recipe.model.preset}: {parameters / 1e6:,.0f} M parameters on {gpus} {gpu}, "
        f"{network:g} Gbit/s a GPU between nodes; steps of {step_tokens:,} tokens, segments of "
        f"effectively {length:g}, bf16; {problem.cluster.gpu.usable / 1e9:.0f} GB of a GPU usable"
    )
    console.print(memory_table(found))
    console.print(time_table(found, tokens / step_tokens, gpus))
    console.print(f"[bold]choose[/bold] {why}")
    if best is not None:
        console.print("  " + flags(best))
    facts = quantities.data(recipe, tokens, environments, parameters, per_transition)
    sheet = data_table(facts, best, tokens / step_tokens, gpus)
    context = recipe.tokens.context
    acting = pass_seconds(problem.sizes, STREAMS, context, per_transition, problem.cluster.gpu)
    sheet.add_row(
        "acting",
        f"{acting * 1e3:,.1f} ms a pass of {STREAMS} streams, {STREAMS / acting:,.0f} steps a "
        "second and GPU",
    )
    console.print(sheet)


def memory_table(found: list[Way]) -> Table:
    """GB of one GPU by part, at the moment that holds most."""
    names = list(asdict(found[0].memory))
    sheet = _sheet("GB of a GPU", *names, "all", "micro-batch", "largest")
    for way in found:
        parts = [f"{value / 1e9:,.1f}" for value in asdict(way.memory).values()]
        whole = f"{way.memory.total / 1e9:,.1f}{'' if way.fits else ' ✗'}"
        bins = f"{way.setting.micro_batches} × {way.bins} bins"
        sheet.add_row(way.name, *parts, whole, bins, f"{way.largest:,}" if way.largest else "none")
    return sheet


def time_table(found: list[Way], steps: float, gpus: int) -> Table:
    """ms of a step by part; hours of the run."""
    names = list(asdict(found[0].seconds))
    sheet = _sheet("ms of a step", *names, "all", "MFU", "hours", "GPU hours")
    for way in found:
        parts = [f"{value * 1e3:,.1f}" for value in asdict(way.seconds).values()]
        hours = steps * way.seconds.total / 3600
        sheet.add_row(
            way.name + ("" if way.fits else " ✗"),
            *parts,
            f"{way.seconds.total * 1e3:,.1f}",
            f"{way.mfu:.0%}",
            f"{hours:,.1f}",
            f"{hours * gpus:,.0f}",
        )
    return sheet


def data_table(facts: quantities.Data, best: Way | None, steps: float, gpus: int) -> Table:
    sheet = Table(box=None, show_header=False)
    sheet.add_row(
        "data", f"{facts.transitions:.3g} transitions, each seen {facts.passes:.1f} times"
    )
    held = (facts.recorded, facts.mixed, facts.checkpoints)
    recorded, mixed, checkpoints = (f"{value / 1e12:,.2f} TB" for value in held)
    sheet.add_row("storage", f"{recorded} recorded, {mixed} mixed, {checkpoints} of checkpoints")
    parts = (facts.generation_hours, facts.mix_hours, facts.evaluation_hours)
    made, mix, played = (f"{hours:,.0f}" for hours in parts)
    sheet.add_row("core hours", f"{made} to record, {mix} to mix, {played} to evaluate once")
    if best is not None:
        hours = steps * best.seconds.total / 3600
        cores = (facts.generation_hours + facts.mix_hours) / hours / gpus
        ten = 10 * facts.evaluation_hours / hours / gpus
        sheet.add_row(
            "cores a GPU",
            f"{cores:,.1f} record and mix while it trains, {ten:,.1f} evaluate ten times",
        )
    return sheet


def flags(way: Way) -> str:
    """The flags of `ldm train` that make it so."""
    setting = way.setting
    found = [
        f"--train.zero-stage {setting.stage}",
        f"--train.recompute {setting.recompute}",
        f"--train.micro-batches {setting.micro_batches}",
    ]
    return " ".join(found + ([] if way.compiled else ["--train.no-compile"]))


def _sheet(first: str, *titles: str) -> Table:
    sheet = Table(box=None, header_style="bold")
    for title in (first, *titles):
        sheet.add_column(title, justify="left" if title == first else "right")
    return sheet
