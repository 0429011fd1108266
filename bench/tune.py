"""Finds the best configuration of every kernel on the GPU that is there.

    python -m ldm.bench.tune kernels [OPERATION…] [--rounds 20] [--out DIR]
        rows of kernels/OPERATION/configurations.json, or of DIR/OPERATION.json
    python -m ldm.bench.tune dispatch --results FILE [--out DIR]
        rows of packed attention's dispatch.json, from results that `ldm bench` wrote

A candidate must first compile ahead of time without stack and within the shared memory, in every
variant that ships; then it takes turns with the default on inputs that spend their time in its
kernel. It is kept where its geometric mean over them is at least LEAST faster.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from itertools import product
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median

from ldm.bench import rows
from ldm.bench.scale import DRY, sized
from ldm.bench.tune_operations import OPERATIONS
from ldm.kernels import dispatch as devices
from ldm.kernels import tuned
from ldm.kernels.packed_attention import dispatch

LEAST = 0.02
BITS = 16  # what is tuned: fp32 is for tests and small models


def compiles(operation: str, kernel: str, size: int, arch: str, chosen, bits: int = BITS) -> bool:
    """Ahead of time, in every variant of so many bits: no stack, shared memory within the limit."""
    from ldm.kernels.ahead_of_time import compile_for
    from ldm.kernels.architectures import ARCHITECTURES, nearest

    module = import_module(f"ldm.kernels.{operation}.shipped")
    variants = {
        (name, element)
        for name, _, element, _ in module.shipped(arch)
        if name.split()[0] == kernel and (element == "fp32") == (bits == 32)
    }
    try:
        for name, element in sorted(variants):
            used = compile_for(arch=arch, **module.arguments(name, size, element, chosen))
            if used.stack or used.shared > ARCHITECTURES[nearest(arch)].shared:
                return False
    except Exception as error:
        print(f"{operation} {kernel} {size} {chosen}: does not compile: {error}"[:200], flush=True)
        return False
    return True


def pruned(operation: str, kernel: str, size: int, arch: str) -> list:
    """The default first, then every other candidate that compiles cleanly."""
    subject = OPERATIONS[operation]
    first = subject.tuned.default(kernel, size, arch, BITS)
    others = [c for c in subject.candidates(kernel, size) if c != first]
    if DRY:  # the interpreter compiles nothing
        return [first, *others[:1]]
    jobs = [(operation, kernel, size, arch, c) for c in others]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        clean = list(pool.map(compiles, *zip(*jobs)))
    return [first, *(c for c, good in zip(others, clean) if good)]


def tune(operation: str, kernel: str, size: int, arch: str, rounds: int) -> tuple[object, float]:
    """(best configuration, its time over the default's): all once, then the best four at length."""
    subject = OPERATIONS[operation]
    found = pruned(operation, kernel, size, arch)
    calls = subject.calls(kernel, size)
    first = found[0]
    for turns, keep in ((sized(3, 1), 4), (rounds, 1)):
        scores = {c: [] for c in found}
        for _ in range(turns):
            for chosen in found:
                subject.tuned.use(kernel, size, arch, BITS, chosen)
                scores[chosen].append(_times(calls))
        score = {c: fmean(log(median(column)) for column in zip(*t)) for c, t in scores.items()}
        ranked = sorted(score, key=score.get)
        found = list(dict.fromkeys([*ranked[:keep], first]))
    best = ranked[0]
    return best, exp(score[best] - score[first])


def _times(calls) -> list[float]:
    """Seconds of each call; inf where it cannot be launched."""
    from triton.runtime.errors import OutOfResources

    from ldm.bench.measure import cpu_seconds, cuda_seconds

    try:
        for call in calls:
            call()
        return [cpu_seconds(call, 1) if DRY else cuda_seconds(call, 5) for call in calls]
    except OutOfResources:
        return [float("inf")] * len(calls)


def tune_all(operation: str, path: Path, rounds: int) -> None:
    """Writes a row after every kernel, so that a run that is stopped keeps what it found."""
    import torch

    arch = "sm_90" if DRY else devices.architecture(torch.device("cuda"))
    subject = OPERATIONS[operation]
    kernels, sizes = (sized(list(x), list(x)[:1]) for x in (subject.modes, subject.sizes))
    for size, kernel in product(sizes, kernels):
        best, ratio = tune(operation, kernel, size, arch, rounds)
        keep = ratio <= 1 - LEAST
        chosen = best if keep else subject.tuned.default(kernel, size, arch, BITS)
        row = subject.tuned.use(kernel, size, arch, BITS, chosen)
        name = f"{arch} {operation} {kernel} {size}"
        print(f"{name}: {best}, {ratio:.3f} of the default's time", flush=True)
        if keep:
            replace_rows(path, [row], tuned.KEY)


def replace_rows(path: Path, new: list[dict], key: tuple[str, ...]) -> None:
    """Puts rows in a JSON list in place of those with the same key, one row a line."""
    old = json.loads(path.read_text()) if path.exists() else []
    kept = {tuple(row[k] for k in key): row for row in [*old, *new]}
    lines = ",\n".join(json.dumps(row) for _, row in sorted(kept.items()))
    path.write_text(f"[\n{lines}\n]\n" if lines else "[]\n")


def dispatch_rows(results: list[dict]) -> list[dict]:
    """Who is fastest forward and backward together, from the shortest longest segment up.

    For every architecture in the results, which name it (`arch` of their provenance).

    Only providers whose backward is repeatable count. Ours keeps a distribution unless another is
    LEAST faster.
    """
    providers = {"ours": "fused", "torch varlen repeatable": "varlen"}
    providers |= {f"{name} repeatable": name for name in dispatch.peers.FLASH_MODULES}
    times: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    for row in results:
        wanted = (row["op"], row["mode"], row["metric"]) == ("packed_attention", "both", "us")
        if wanted and row["provider"] in providers:
            dim = int(row["shape"].split("hd")[1].split(",")[0])
            of_shape = times.setdefault((row["arch"], dim), {}).setdefault(row["longest"], {})
            of_shape[providers[row["provider"]]] = row["p50"]
    rows_found = []
    for (arch, dim), shapes in sorted(times.items()):
        below, last = 0, "fused"
        for longest, by_provider in sorted(shapes.items()):
            fastest = min(by_provider, key=by_provider.get)
            ours = by_provider.get("fused", float("inf"))
            chosen = fastest if by_provider[fastest] < (1 - LEAST) * ours else "fused"
            if chosen != last:
                row = {"arch": arch, "head_dim": dim, "bits": 16, "longer_than": below}
                rows_found.append(row | {"provider": chosen})
            below, last = longest, chosen
    return rows_found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("kernels", "dispatch"))
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(OPERATIONS)}; default: all")
    parser.add_argument(
        "--rounds", type=int, default=sized(20, 1), help="timed rounds of the last four"
    )
    parser.add_argument("--results", type=Path, help="of `ldm bench`; default: of this GPU in out")
    parser.add_argument("--out", type=Path, help="default: where launches read them")
    options = parser.parse_args()
    unknown = set(options.operations) - OPERATIONS.keys()
    if unknown:
        parser.error(f"no operation {sorted(unknown)}: expected {', '.join(OPERATIONS)}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "kernels":
        for operation in options.operations or OPERATIONS:
            path = options.out / f"{operation}.json" if options.out else tuned.path(operation)
            tune_all(operation, path, options.rounds)
        return
    folder = options.out or tuned.path("packed_attention").parent
    found = dispatch_rows(rows.read(options.results or rows.path(folder)))
    replace_rows(folder / "dispatch.json", found, ("arch", "head_dim", "bits", "longer_than"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
