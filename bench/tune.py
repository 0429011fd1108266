"""Finds the best configuration of every attention kernel on the GPU that is there.

    python -m ldm.bench.tune kernels [--rounds 20]        rows of configurations.json
    python -m ldm.bench.tune dispatch --results FILE [--out DIR]
                                                           rows of dispatch.json, from results that
                                                           `ldm bench` wrote, on any machine

A candidate must first compile ahead of time without stack and within the shared memory; then it
takes turns with the default on the operation's own distributions. It is kept where its geometric
mean over them is at least LEAST faster.
"""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median

from ldm.bench import rows
from ldm.kernels.packed_attention import configurations as known
from ldm.kernels.packed_attention import dispatch
from ldm.kernels.packed_attention.configurations import Configuration
from ldm.kernels.packed_attention.work_list import LONG, SHORT

LEAST = 0.02
TUNING_TOKENS = 131_072  # enough that no launch waits for Python
# kernel → (mode that runs it, distributions that spend their time in it)
JUDGED_BY = {
    "forward_short": ("forward", ("const 64", "tiny")),
    "forward_long": ("forward", ("exp 128", "exp 512", "dense 8k")),
    "backward_short": ("backward", ("const 64", "tiny")),
    "key": ("backward", ("exp 128", "exp 512", "dense 8k")),
    "query": ("backward", ("exp 128", "exp 512", "dense 8k")),
}


def candidates(kernel: str) -> Iterator[Configuration]:
    """Block sizes that divide the tile; warps and stages that make sense for them."""
    tile = SHORT if kernel.endswith("_short") else LONG
    if tile == SHORT:  # holds a whole tile, no loop to pipeline
        yield from (Configuration(SHORT, SHORT, warps, 1) for warps in (4, 8))
        return
    for m, n, warps, stages in product((32, 64, 128), (32, 64, 128), (4, 8), (2, 3)):
        owned = n if kernel == "key" else m  # the rows that programs share out
        if owned <= tile and max(m, n) >= 64 and (m * n > 32 * 64 or warps == 4):
            yield Configuration(m, n, warps, stages)


def compiles(kernel: str, dim: int, arch: str, chosen: Configuration) -> bool:
    """Ahead of time, plain and turned: no stack, shared memory within the limit."""
    from ldm.kernels.ahead_of_time import SHARED_LIMIT, compile_for
    from ldm.kernels.packed_attention.shipped import SIXTEEN_BITS, arguments

    names = [name for name in SIXTEEN_BITS if name in (kernel, f"{kernel} turned")]
    try:
        used = [compile_for(arch=arch, **arguments(name, dim, "bf16", chosen)) for name in names]
    except Exception as error:
        print(f"{kernel} hd{dim} {chosen}: does not compile: {error}"[:200], flush=True)
        return False
    return all(u.stack == 0 and u.shared <= SHARED_LIMIT[arch] for u in used)


def pruned(kernel: str, dim: int, arch: str) -> list[Configuration]:
    """The default first, then every other candidate that compiles cleanly."""
    first = known.default(kernel, dim, arch)
    others = [c for c in candidates(kernel) if c != first]
    jobs = [(kernel, dim, arch, c) for c in others]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        clean = list(pool.map(compiles, *zip(*jobs)))
    return [first, *(c for c, good in zip(others, clean) if good)]


def use(kernel: str, dim: int, arch: str, chosen: Configuration) -> None:
    """Makes launches of this process take `chosen`."""
    known.tuned()[arch, known.triton_version(), dim, kernel] = chosen
    known.configuration.cache_clear()


def tune(kernel: str, dim: int, arch: str, rounds: int) -> tuple[Configuration, float]:
    """(best configuration, its time over the default's): all once, then the best four at length."""
    from ldm.bench.attention import PROVIDERS, call_of, inputs

    mode, names = JUDGED_BY[kernel]
    calls = []
    for name in names:
        qkv, do, segments, _ = inputs(name, 1024 // dim, dim, TUNING_TOKENS)
        calls.append(call_of(PROVIDERS["ours"](), "ours", mode, qkv, do, segments))
    found = pruned(kernel, dim, arch)
    first = found[0]
    for turns, keep in ((3, 4), (rounds, 1)):
        scores = {c: [] for c in found}
        for _ in range(turns):
            for chosen in found:
                use(kernel, dim, arch, chosen)
                scores[chosen].append(_times(calls))
        score = {c: fmean(log(median(column)) for column in zip(*t)) for c, t in scores.items()}
        ranked = sorted(score, key=score.get)
        found = list(dict.fromkeys([*ranked[:keep], first]))
    best = ranked[0]
    return best, exp(score[best] - score[first])


def _times(calls) -> list[float]:
    """Seconds of each call; inf where it cannot be launched."""
    from triton.runtime.errors import OutOfResources

    from ldm.bench.measure import cuda_seconds

    try:
        for call in calls:
            call()
        return [cuda_seconds(call, 5) for call in calls]
    except OutOfResources:
        return [float("inf")] * len(calls)


def tune_all(path: Path, rounds: int) -> None:
    """Writes a row after every kernel, so that a run that is stopped keeps what it found."""
    import torch

    arch = dispatch.architecture(torch.device("cuda"))
    for dim, kernel in product(known.HEAD_DIMS, JUDGED_BY):
        best, ratio = tune(kernel, dim, arch, rounds)
        keep = ratio <= 1 - LEAST
        chosen = best if keep else known.default(kernel, dim, arch)
        use(kernel, dim, arch, chosen)
        print(f"{arch} {kernel} hd{dim}: {best}, {ratio:.3f} of the default's time", flush=True)
        if keep:
            row = known.as_row(arch, dim, kernel, chosen)
            replace_rows(path, [row], ("arch", "triton", "head_dim", "kernel"))


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
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds of the last four")
    parser.add_argument("--results", type=Path, help="of `ldm bench`; default: of this GPU in out")
    parser.add_argument("--out", type=Path, default=Path(dispatch.__file__).parent)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "kernels":
        tune_all(options.out / "configurations.json", options.rounds)
        return
    found = dispatch_rows(rows.read(options.results or rows.path(options.out)))
    replace_rows(options.out / "dispatch.json", found, ("arch", "head_dim", "bits", "longer_than"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
