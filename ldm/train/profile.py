"""`ldm profile RECIPE`: where the time and the memory of a training step go.

A window of steps of the recipe's own training, on its own mix, under torch.profiler. Every
operator, on any thread, is charged to a part: by the `record_function` range around it; in the
backward by the range of the forward operator it belongs to; in the blocks by what it does. Beside
the time stands the floor of `ldm.train.cost` under what this machine does at most, measured by one
matrix product and one copy before the window.

    runs/<name>/profile/profile.json    the table, as a machine reads it
    runs/<name>/profile/trace.json.gz   for chrome://tracing or ui.perfetto.dev
"""

import time
from contextlib import closing
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, record_function

from ldm.config import Recipe
from ldm.data.atomic import write_json
from ldm.data.loader import MicroBatches
from ldm.data.manifest import read_manifest
from ldm.data.storage import place
from ldm.model.decoder import Decoder
from ldm.train.build import checkpoints_of, engine_name, fit_architecture, shapes_for, start
from ldm.train.cost import Roof, Work, measure_roof, step_work
from ldm.train.engine import DTYPES
from ldm.train.metrics import device_name, memory_bytes
from ldm.train.ranks import Alone, Ranks

PARTS = (
    "embedding",
    "attention",
    "products",
    "norms",
    "loss",
    "optimiser",
    "communication",
    "data",
    "other",
)
LABELS = {
    "products": "matrix products",
    "norms": "norms, activations",
    "data": "waiting for data",
    "other": "other, idle",
}
WARM, TIMED, STEPS = 3, 8, 4
PREFIX = "ldm."
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul")
KERNELS = {  # parts by words in the names of GPU kernels that no range is known of
    "communication": ("nccl",),
    "attention": (
        "flash", "fmha", "forward_kernel", "short_backward", "rotate_kernel", "query_kernel",
        "key_kernel", "segment_kernel",
    ),
    "products": ("gemm", "cutlass", "nvjet", "cublas", "xmma"),
    "optimiser": ("multi_tensor", "adam"),
}  # fmt: skip


@dataclass
class Row:
    """A part of the step: seconds of one step in it, and the least it could take."""

    part: str
    seconds: float
    share: float
    flops: float
    bytes: float
    floor: float


def profile_stage(recipe: Recipe, folder: Path) -> None:
    """Profiles on folder/mix from the run's newest checkpoint or, where there is none, with weights
    as they start; writes nothing but folder/profile.

    Raises LdmError where there is no mix, or the recipe cannot be trained here.
    """
    manifest = read_manifest(place(recipe, folder, "mix"), "mix")
    sizes = fit_architecture(recipe, manifest["environments"])
    ranks = Ranks() if engine_name(recipe.train) == "deepspeed" else Alone()
    checkpoints = checkpoints_of(recipe, folder, sizes, manifest)
    model, engine, step = start(recipe, sizes, checkpoints, checkpoints.newest_whole(ranks))
    parameters = sum(p.numel() for p in model.parameters())
    cuda, count = engine.device.type == "cuda", recipe.train.micro_batches
    roof = measure_roof(engine.device, DTYPES[engine.precision])
    shapes = shapes_for(engine, step + WARM + TIMED + STEPS + 1)
    shapes["memory"] = recipe.train.loader_mb << 20
    loader = MicroBatches(
        place(recipe, folder, "mix"), engine.rank, engine.world, step, count, **shapes
    )
    with closing(loader):
        train(engine, loader, WARM, recipe.train.lr)
        seconds, batches = train(engine, loader, TIMED, recipe.train.lr)
        with profiler(cuda) as recorded:
            under, window = train(engine, loader, STEPS, recipe.train.lr)
        kept = kept_bytes(model, next(loader), engine.device)
    size = DTYPES[engine.precision].itemsize
    work = [step_work(sizes, step, parameters, size) for step in window]
    rows = table(charge(recorded.events(), cuda, 1 if cuda else count), work, roof, under)
    report = {
        "device": device_name(engine.device),
        "precision": engine.precision,
        "from_step": step,
        "threads": torch.get_num_threads(),
        "micro_batches": count,
        "ms_per_step": seconds / TIMED * 1e3,
        "ms_per_step_profiled": under / STEPS * 1e3,
        "tokens_per_s": sum(b.used_tokens for step in batches for b in step) / seconds,
        "gflops": roof.flops / 1e9,
        "gbytes_per_s": roof.bandwidth / 1e9,
        "parts": [asdict(row) for row in rows],
        "memory_bytes": memory(parameters, engine, window[-1], kept),
    }
    if engine.rank == 0:
        target = folder / "profile"
        target.mkdir(exist_ok=True)
        recorded.export_chrome_trace(str(target / "trace.json.gz"))
        write_json(target / "profile.json", report)
        show(report, rows)
        print(f"wrote {target / 'profile.json'} and {target / 'trace.json.gz'}")


def train(engine, loader, count: int, rate: float) -> tuple[float, list]:
    """`count` steps as the loop makes them: seconds of all, batches of each."""
    start, seen = time.perf_counter(), []
    for _ in range(count):
        with record_function(PREFIX + "data"):
            batches = next(loader)
        engine.backward(batches)
        engine.update(rate)
        seen.append(batches)
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    return time.perf_counter() - start, seen


def profiler(cuda: bool):
    """Of all threads."""
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    threads = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    return torch.profiler.profile(activities=activities, experimental_config=threads)


def charge(events: list[FunctionEvent], cuda: bool, threads: int) -> dict[str, float]:
    """Seconds of the window by part: of kernels on CUDA, else the mean of `threads` threads.

    Where several threads share the forward and backward, what the first thread does alone between
    two steps keeps all of them waiting.
    """
    forward = {
        (event.thread, event.sequence_nr): part
        for event in events
        if event.sequence_nr >= 0 and not event.fwd_thread and (part := range_of(event, {}))
    }
    alone = {event.thread for event in events if event.name == PREFIX + "data"}
    spent = dict.fromkeys(PARTS, 0.0)
    for event in events:
        part = range_of(event, forward)
        if cuda:
            for kernel in event.kernels:
                spent[part or kernel_part(kernel.name)] += kernel.duration / 1e6
            if part == "data":
                spent[part] += event.self_cpu_time_total / 1e6
        elif event.device_type == torch.autograd.DeviceType.CPU:
            shares = 1 if event.thread in alone else threads
            spent[part or operator_part(event.name)] += event.self_cpu_time_total / 1e6 / shares
    return spent


def range_of(event: FunctionEvent, forward: dict) -> str | None:
    """The part whose range is around the event, or around its operator's forward."""
    around: FunctionEvent | None = event
    while around is not None:
        event = around
        if event.name.startswith(PREFIX):
            return event.name.removeprefix(PREFIX)
        if event.name.startswith(("c10d::", "gloo:", "nccl:")):
            return "communication"
        if event.fwd_thread and (event.fwd_thread, event.sequence_nr) in forward:
            return forward[event.fwd_thread, event.sequence_nr]
        around = event.cpu_parent
    return None


def operator_part(name: str) -> str:
    if not name.startswith("aten::"):
        return "other"
    return "products" if name.removeprefix("aten::") in PRODUCTS else "norms"


def kernel_part(name: str) -> str:
    lower = name.lower()
    found = (part for part, words in KERNELS.items() if any(word in lower for word in words))
    return next(found, "norms")


def table(spent: dict[str, float], work: list[dict[str, Work]], roof: Roof, total: float) -> list:
    """Rows of one step; total: seconds of the window, what no part has being `other`."""
    spent = spent | {"other": spent["other"] + max(0.0, total - sum(spent.values()))}
    rows = []
    for part in PARTS:
        done = [step[part] for step in work if part in step]
        flops, moved = (sum(getattr(w, k) for w in done) / len(work) for k in ("flops", "bytes"))
        floor = Work(flops, moved).seconds(roof)
        rows.append(Row(part, spent[part] / len(work), spent[part] / total, flops, moved, floor))
    return rows


def kept_bytes(model: Decoder, batches: list, device: torch.device) -> int:
    """What the forward of a step keeps for its backward, each storage once."""
    found = {}
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    losses = []  # alive, so that no storage is found twice
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        for batch in batches:
            losses.append(model.loss(batch.to(device)))
    return sum(found.values())


def memory(parameters: int, engine, batches: list, kept: int) -> dict[str, int]:
    """Bytes by what they hold; "peak": of the GPU, or of the whole process."""
    states = engine.optimizer.state_dict()["state"].values()
    held = sum(t.nbytes for row in states for t in row.values() if torch.is_tensor(t))
    return {
        "parameters": 4 * parameters,
        "gradients": 4 * parameters * (len(batches) if engine.device.type == "cpu" else 1),
        "optimiser state": held,
        "activations kept": kept,
        "batches": sum(nbytes(batch) for batch in batches),
        "peak": memory_bytes(engine.device),
    }


def nbytes(batch) -> int:
    """Of all arrays of a batch."""
    values = [getattr(batch, field.name) for field in fields(batch)]
    own = sum(value.nbytes for value in values if torch.is_tensor(value))
    return own + sum(nbytes(value) for value in values if is_dataclass(value))


def show(report: dict, rows: list[Row]) -> None:
    """The table, for people."""
    console = Console()
    console.print(
        f"{report['device']}, {report['precision']}, {report['micro_batches']} micro-batches: "
        f"{report['ms_per_step']:.1f} ms a step, {report['tokens_per_s'] / 1e3:.1f}k tokens/s "
        f"({report['ms_per_step_profiled']:.1f} ms under the profiler)\n"
        f"this machine: {report['gflops']:,.0f} GFLOP/s, copies {report['gbytes_per_s']:.1f} GB/s"
    )
    sheet = Table(box=None, header_style="bold")
    for title in ("part", "ms", "share", "GFLOP/s", "GB/s", "floor ms", "times floor"):
        sheet.add_column(title, justify="left" if title == "part" else "right")
    for row in rows:
        sheet.add_row(
            LABELS.get(row.part, row.part),
            f"{row.seconds * 1e3:,.1f}",
            f"{row.share:.1%}",
            f"{row.flops / row.seconds / 1e9:,.0f}" if row.flops else "",
            f"{row.bytes / row.seconds / 1e9:,.1f}" if row.bytes else "",
            f"{row.floor * 1e3:,.1f}" if row.floor else "",
            f"{row.seconds / row.floor:,.1f}" if row.floor else "",
        )
    console.print(sheet)
    held = ", ".join(f"{k} {v / 1e6:,.0f} MB" for k, v in report["memory_bytes"].items())
    console.print(f"memory: {held}")
