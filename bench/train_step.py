"""Training speed of one process on synthetic batches: `python -m ldm.bench.train_step --help`.

A step is forward, backward, clipping and AdamW over one packed batch; tokens are useful tokens (no
padding). Prints one JSON line.
"""

import argparse
import json
import statistics
import time

import torch

from ldm.bench.synthetic import packed_batch, segment_lengths
from ldm.data.batch import PackedBatch
from ldm.model.decoder import Decoder
from ldm.model.memory import keep_freed_memory
from ldm.model.presets import architecture

BIN_TOKENS = 4096


def train_step(model: Decoder, optimiser: torch.optim.Optimizer, batch: PackedBatch) -> None:
    total, count, _ = model.loss(batch)
    (total / count).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


def floor_flops(model: Decoder, batch: PackedBatch) -> float:
    """Matrix arithmetic of a step: 6 per block weight and token; attention 6 · layers · H · D · L.

    L is the causal mean Σ lengths² / Σ lengths, as in the usual model-FLOPs formula.
    """
    a = model.architecture
    lengths = (batch.cu_seqlens_S1[1:] - batch.cu_seqlens_S1[:-1]).double()
    attention = 6 * a.layers * a.heads * a.head_dim * float(lengths.square().sum())
    return 6 * a.block_parameters * batch.used_tokens + attention


def measure(model: Decoder, batches: list[PackedBatch], steps: int) -> list[float]:
    """Seconds of each step after two that warm up."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seconds = []
    for step in range(steps + 2):
        start = time.perf_counter()
        train_step(model, optimiser, batches[step % len(batches)])
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--rows", type=int, default=16_384, help="rows of the table")
    parser.add_argument("--tokens", type=int, default=16_384, help="tokens a step")
    parser.add_argument("--context", type=int, default=128, help="longest segment")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    lengths = segment_lengths(options.tokens, options.context, BIN_TOKENS)
    batches = [packed_batch(lengths, seed, options.rows, classes=64) for seed in range(2)]
    model = Decoder(architecture(options.preset, rows=options.rows), getattr(torch, options.dtype))
    seconds = measure(model, batches, options.steps)
    p20, p50, p80 = statistics.quantiles(seconds, n=10)[1::3]
    batch = batches[0]
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "step_ms": [round(1e3 * s, 1) for s in (p20, p50, p80)],
        "tokens_per_second": round(batch.used_tokens / p50),
        "transitions_per_second": round(batch.transitions / p50),
        "gflop_per_second": round(floor_flops(model, batch) / p50 / 1e9),
        "torch": torch.__version__,
    }
    print(json.dumps(vars(options) | figures))


if __name__ == "__main__":
    main()
