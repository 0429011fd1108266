"""What can be known without a GPU: the ahead-of-time gate and the cost model. No speeds."""

from collections.abc import Callable, Iterator

from ldm.bench import cost
from ldm.bench import gate as ahead_of_time
from ldm.bench.lengths import NAMES, effective_length, lengths
from ldm.bench.measure import exact
from ldm.bench.rows import table
from ldm.kernels.architectures import ARCHITECTURES
from ldm.train.roofs import H200

USED = ("registers", "stack", "shared", "matrix_instructions", "instructions")


def gate(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Rows per shipped configuration and architecture. Raises RuntimeError if one fails."""
    failed = []
    for arch in ARCHITECTURES:
        found = ahead_of_time.in_a_process(arch)
        columns = ("operation", "kernel", "size", "element", "configuration", *USED)
        notes(f"\nahead of time, {arch}\n{table(found, columns)}")
        for line in found:
            shape = "{kernel}, {size}, {element}, {configuration}".format(**line)
            why = ahead_of_time.failures(line, arch)
            failed += [f"{arch} {line['operation']} {shape}: {reason}" for reason in why]
            row = {"op": "gate", "provider": line["operation"], "mode": arch, "shape": shape}
            row |= {"device": arch, "file": "ahead-of-time"}
            yield from (row | {"metric": key} | exact(line[key]) for key in USED)
    if failed:
        raise RuntimeError("configurations that must not ship:\n" + "\n".join(failed))


def cost_model(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Rows of the cost model for 16 heads of 64, on the H200's measured ceilings."""
    for mode in ("forward", "backward"):
        lines = []
        for name in NAMES:
            found = lengths(name)
            line = cost.model(name, found, 16, 16, 64, mode, H200)
            lines.append({"L_eff": effective_length(found)} | line)
            shape = f"{name}, {sum(found)} tokens, 16 heads, hd64, bf16"
            row = {"op": "cost", "mode": mode, "shape": shape, "device": H200.name}
            row["file"] = "ahead-of-time"
            for metric in ("GFLOP", "MB", "floor us", "roof TFLOP/s"):
                yield row | {"provider": "any", "metric": metric} | exact(line[metric])
            if mode == "forward":
                for provider in ("ours", *cost.PEER_TILES):
                    share = {"provider": provider, "metric": "useful tile share"}
                    yield row | share | exact(line[provider])
        columns = ("lengths", "segments", "L_eff", "GFLOP", "MB", "floor us", "roof TFLOP/s")
        tiles = ("ours", *cost.PEER_TILES) if mode == "forward" else ()
        notes(f"\npacked attention {mode}, 16 heads of 64, bf16, {H200.name}")
        notes(table(lines, columns + tiles))
