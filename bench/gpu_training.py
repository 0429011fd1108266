"""Training ldm-v0 on synthetic batches on one GPU: speed beside what a user would build, a profile.

python -m ldm.bench.gpu_training --what speed|profile --out DIR

Providers are whole models of the same sizes, each trained by the same engine and taking turns:

    ours               blocks compiled, attention and embedding as dispatched
    ours, graphs       the same, the step replayed as CUDA graphs
    compile + varlen   plain PyTorch, compiled, with torch.nn.attention.varlen (FA-2)
    compile + mask     the same with SDPA under a mask of segments, in rows of 4,096 tokens
    eager              plain PyTorch as it stands, with varlen
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from ldm.bench import roofs, rows
from ldm.bench.lengths import lengths
from ldm.bench.measure import percentiles, rate, scaled
from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.kernels.packed_attention.dispatch import VARIABLE
from ldm.kernels.rms_norm import plain as norms
from ldm.kernels.rotary import rotary
from ldm.model.decoder import Decoder
from ldm.model.embedding import TokenEmbedding
from ldm.model.presets import architecture
from ldm.train.engine import TorchEngine
from ldm.train.flops import matmul_sizes, peak_flops, segment_squares, step_flops
from ldm.train.graph import GraphEngine

# Row 10: exponential lengths of mean 256, 64 thousand tokens a step.
PRESET, ROWS, TOKENS, LENGTHS = "ldm-v0", 65_536, 65_536, "exp 256"
ROW = 4096  # tokens of a row where a mask tells segments apart
WARM = 5  # steps before any is timed: compilers, graphs
COLUMNS = ("provider", "shape", "metric", "p20", "p50", "p80")


class PlainEmbedding(TokenEmbedding):
    """What PyTorch offers: embedding_bag, a product for every kind over all tokens, a norm."""

    def forward(self, tokens, bag_order_B=None, plan=None, dtype=None) -> torch.Tensor:
        e_ND = F.embedding_bag(
            tokens.bag_ids_B, self.table, tokens.bag_offsets_N1, mode="sum",
            include_last_offset=True,
        )  # fmt: skip
        for kind, weight in enumerate(self.features, 1):
            mine_N1 = (tokens.kinds_N == kind)[:, None]
            e_ND = e_ND + torch.where(mine_N1, tokens.features_NG @ weight, 0.0)
        if len(tokens.patches_PX):
            scaled_PX = (tokens.patches_PX / 127.5 - 1) * tokens.patches_PX.shape[1] ** -0.5
            e_ND = e_ND.index_add(0, tokens.patch_tokens_P, scaled_PX @ self.patch)
        return norms.rms_norm(e_ND, self.norm).to(dtype or e_ND.dtype)


class PlainDecoder(Decoder):
    """The model without anything of ours: plain operations, varlen for the attention."""

    attention = "varlen"

    def __init__(self, sizes, dtype=torch.float32):
        super().__init__(sizes, dtype)
        self.embedding = PlainEmbedding(sizes)

    def compile_blocks(self, backend: str = "inductor") -> None:
        super().compile_blocks(backend)
        self.embedding.compile(backend=backend)
        self.head.losses = torch.compile(self.head.losses, backend=backend)


class MaskedDecoder(PlainDecoder):
    """Attention by SDPA over rows of ROW tokens; a segment that straddles two rows is cut there."""

    def _dispatched_attention(self, batch: PackedBatch):
        steps_N = torch.arange(len(batch.positions_N), device=batch.positions_N.device)
        starts_ST = (steps_N - batch.positions_N).view(-1, ROW)  # names the segment
        causal_TT = torch.ones(ROW, ROW, dtype=torch.bool, device=steps_N.device).tril()
        mask_S1TT = ((starts_ST[:, :, None] == starts_ST[:, None]) & causal_TT)[:, None]
        tables = self.angles(batch.max_seqlen)
        cos_NY, sin_NY = (t.index_select(0, batch.positions_N) for t in tables)

        def attend(qkv_NO):
            q, k, v = self._split(qkv_NO)
            q, k = rotary(q, cos_NY, sin_NY), rotary(k, cos_NY, sin_NY)
            q, k, v = (x.unflatten(0, (-1, ROW)).transpose(1, 2) for x in (q, k, v))
            grouped = k.shape[1] != q.shape[1]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_S1TT, enable_gqa=grouped)
            return out.transpose(1, 2).reshape(len(qkv_NO), -1)

        return attend


PROVIDERS = {  # model, attention (as dispatched if empty), engine, whether blocks are compiled
    "ours": (Decoder, "", TorchEngine, True),
    "ours, graphs": (Decoder, "", GraphEngine, True),
    "compile + varlen": (PlainDecoder, "varlen", TorchEngine, True),
    "compile + mask": (MaskedDecoder, "", TorchEngine, True),
    "eager": (PlainDecoder, "varlen", TorchEngine, False),
}


def step_of(name: str, sizes, batch: PackedBatch, precision: str = "bf16") -> Callable[[], None]:
    """A call that trains one step."""
    model, attention, engine, compiled = PROVIDERS[name]
    torch.manual_seed(0)
    engine = engine(model(sizes), TrainConfig(precision=precision, compile=compiled))

    def step() -> None:
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = attention
        try:
            engine.backward([batch])
            engine.update(1e-4)
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before

    return step


def measure(
    calls: dict[str, Callable], steps: int, finish: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each step, the providers taking turns. finish(): waits for the device."""
    seconds = {name: [] for name in calls}
    for i in range(WARM + steps):
        for name, call in calls.items():
            finish()
            start = time.perf_counter()
            call()
            finish()
            if i >= WARM:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def results(seconds: dict[str, list[float]], sizes, batch: PackedBatch, shape: str, device: str):
    """Rows: ms, useful tokens/s and, on a known GPU, MFU and the share of the measured roof."""
    flops = step_flops(
        **matmul_sizes(sizes), tokens=batch.used_tokens, squares=segment_squares(batch)
    )
    roof, peak = roofs.roof(device), peak_flops(device, "bf16")
    for provider, samples in seconds.items():
        times = percentiles(samples)
        row = {"op": "train_step", "provider": provider, "mode": "training", "shape": shape}
        yield row | {"metric": "ms"} | scaled(times, 1e3)
        yield row | {"metric": "tokens/s"} | rate(times, batch.used_tokens)
        if peak:
            yield row | {"metric": "MFU"} | rate(times, flops / peak)
        if roof and roof.matmul:
            yield row | {"metric": "share of roof"} | rate(times, flops / roof.matmul)


def setting() -> tuple:
    """(sizes, batch in pinned memory)"""
    batch = packed_batch(lengths(LENGTHS, TOKENS), rows=ROWS, classes=64)
    return architecture(PRESET, rows=ROWS), batch


def speed(out: Path) -> None:
    torch._dynamo.config.recompile_limit = 64  # the providers share code
    sizes, batch = setting()
    calls: dict[str, Callable] = {}
    for name in PROVIDERS:
        try:
            calls[name] = step_of(name, sizes, batch)
            calls[name]()
        except Exception as error:  # one that cannot run here must not stop the others
            calls.pop(name, None)
            print(f"{name}: {str(error).splitlines()[0]}")
    seconds = measure(calls, 20, torch.cuda.synchronize)
    shape = f"{PRESET}, {LENGTHS}, {TOKENS} tokens, bf16"
    found = results(seconds, sizes, batch, shape, torch.cuda.get_device_name())
    print(rows.table([rows.append(out, row) for row in found], COLUMNS))
    print(f"memory: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def profile(out: Path) -> None:
    """Time by kernel of three steps of ours: profile.txt."""
    from torch.profiler import ProfilerActivity, profile

    step = step_of("ours", *setting())
    for _ in range(WARM):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    averages = recorded.key_averages()
    text = averages.table(sort_by="self_device_time_total", row_limit=60, max_name_column_width=90)
    (out / "profile.txt").write_text(text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", choices=("speed", "profile"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    {"speed": speed, "profile": profile}[options.what](options.out)


if __name__ == "__main__":
    main()
