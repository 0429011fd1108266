"""A pass by which many streams act, kernel by kernel and replayed as a CUDA graph.

    python -m ldm.bench.acting_gpu --out DIR

ldm-v0 in STREAMS streams of three tokens a step, whose segments hold three quarters of their
context: what `ldm plan` calls a pass. Rows: ms a pass.
"""

import argparse
from pathlib import Path

import torch

from ldm.bench import rows
from ldm.bench.gpu_training import COLUMNS, PRESET, ROWS, measure
from ldm.bench.measure import percentiles, scaled
from ldm.bench.scale import DEVICE, DRY, DTYPE, sized, wait
from ldm.bench.synthetic import packed_batch
from ldm.model.decoder import Decoder
from ldm.model.graphed import Graphed
from ldm.model.passes import Passes
from ldm.model.presets import architecture
from ldm.policy.policy import cast_blocks

STREAMS = sized(128, 4)
CONTEXT = sized(2048, 128)
TOKENS = 3


def passes(provider: str):
    """A call of one pass; segments begin anew with their half where they are full."""
    torch.manual_seed(0)
    model = Decoder(architecture(PRESET, rows=ROWS)).to(DEVICE).eval()
    cast_blocks(model, DTYPE)
    record = (lambda function: function) if DRY else Graphed
    extend = model.extend if provider == "launched" else Passes(model, record).extend
    cache = model.new_cache(CONTEXT)
    streams = cache.take(STREAMS, TOKENS)
    batch = packed_batch([TOKENS] * STREAMS, rows=ROWS)
    tokens, counts = batch.tokens.to("cpu"), torch.full((STREAMS,), TOKENS)
    cache.lengths_W[:] = CONTEXT * 3 // 4

    def call() -> None:
        if int(cache.lengths_W.max()) + TOKENS > CONTEXT:
            cache.lengths_W[:] = CONTEXT // 2
        extend(tokens, counts, cache, streams)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    options, found = parser.parse_args(), []
    shape = f"{PRESET}, {STREAMS} streams of {TOKENS} tokens, context {CONTEXT}"
    for provider in ("launched", "replayed"):
        seconds = measure(passes(provider), sized(50, 2), wait)
        row = {"op": "acting", "provider": provider, "mode": "acting", "shape": shape}
        row |= {"metric": "ms"} | scaled(percentiles(seconds), 1e3)
        found.append(rows.append(options.out, row))
    print(rows.table(found, COLUMNS))


if __name__ == "__main__":
    main()
