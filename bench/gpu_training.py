"""Training ldm-v0 on synthetic batches on one GPU: speed beside what a user would build, a profile.

    python -m ldm.bench.gpu_training --what speed --provider NAME --out DIR
    python -m ldm.bench.gpu_training --what profile --out DIR

A provider is a whole model of the same sizes, trained by the same engine, in a process of its own:
what its activations take (about 50 GB at 65,536 tokens) must not be added to another's.

    ours               blocks compiled, attention and embedding as dispatched
    ours, graphs       the same, the step replayed as CUDA graphs
    compile + varlen   plain PyTorch, compiled, with torch.nn.attention.varlen (FA-2)
    compile + flex     plain PyTorch, compiled, with flex attention under a document mask
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ldm.bench import rows
from ldm.bench.attention import document_mask
from ldm.bench.lengths import lengths
from ldm.bench.measure import percentiles, rate, scaled
from ldm.bench.scale import DEVICE, DRY, sized, wait
from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.data.batch import PackedBatch
from ldm.kernels.action_loss.plain import action_loss as plain_loss
from ldm.kernels.packed_attention.dispatch import VARIABLE, Segments
from ldm.kernels.rms_norm import plain as norms
from ldm.kernels.rotary import rotary
from ldm.model.decoder import Decoder
from ldm.model.embedding import TokenEmbedding
from ldm.model.head import ActionHead
from ldm.model.presets import architecture
from ldm.train import roofs
from ldm.train.engine import TorchEngine
from ldm.train.flops import matmul_sizes, peak_flops, segment_squares, step_flops
from ldm.train.graph import GraphEngine

# Row 10: exponential lengths of mean 256, 64 thousand tokens a step.
PRESET, LENGTHS = sized("ldm-v0", "nano"), "exp 256"
ROWS, TOKENS = sized((65_536, 65_536), (512, 256))
WARM = sized(5, 1)  # steps before any is timed: compilers, graphs
COLUMNS = ("provider", "shape", "metric", "p20", "p50", "p80")


class PlainEmbedding(TokenEmbedding):
    """What PyTorch offers: embedding_bag, a product for every kind over all tokens, a norm."""

    def forward(self, tokens, bag_order_B=None, plan=None, dtype=None) -> torch.Tensor:
        e_ND = F.embedding_bag(
            tokens.bag_ids_B, self.table, tokens.bag_offsets_N1, mode="sum",
            include_last_offset=True, per_sample_weights=tokens.bag_weights_B,
        )  # fmt: skip
        for kind, weight in enumerate(self.features, 1):
            mine_N1 = (tokens.kinds_N == kind)[:, None]
            e_ND = e_ND + torch.where(mine_N1, tokens.features_NG @ weight, 0.0)
        scaled_PX = (tokens.patches_PX / 127.5 - 1) * tokens.patches_PX.shape[1] ** -0.5
        e_ND = e_ND.index_add(0, tokens.patch_tokens_P, scaled_PX @ self.patch)
        return norms.rms_norm(e_ND, self.norm).to(dtype or e_ND.dtype)


class PlainHead(ActionHead):
    """Labels, logits and cross-entropy as plain operations."""

    def losses(self, hidden_UD, labels) -> torch.Tensor:
        normed_UD = norms.rms_norm(hidden_UD, self.norm)
        gain_UD, bias_UD = self.own[labels.owners_U].chunk(2, -1)
        return plain_loss(
            normed_UD * (1 + gain_UD) + bias_UD, labels.rows_L, self.gate, self.slot, self.out,
            labels.slots_L, labels.classes_L, labels.values_L, labels.smooth_L,
        )  # fmt: skip


class PlainDecoder(Decoder):
    """The model without anything of ours: plain operations, varlen for the attention."""

    attention = "varlen"

    def __init__(self, sizes, dtype=torch.float32):
        super().__init__(sizes, dtype)
        self.embedding = PlainEmbedding(sizes)
        self.head = PlainHead(sizes)

    def compile_blocks(self, backend: str = "inductor") -> None:
        super().compile_blocks(backend)
        self.embedding.compile(backend=backend)
        self.head.losses = torch.compile(self.head.losses, backend=backend)


class FlexDecoder(PlainDecoder):
    """Attention by flex attention under the mask of `ldm.bench.attention.document_mask`."""

    def _dispatched_attention(self, batch: PackedBatch):
        from torch.nn.attention.flex_attention import flex_attention

        starts_S1, positions_N = batch.cu_seqlens_S1, batch.positions_N
        mask = document_mask(Segments(starts_S1, positions_N, batch.max_seqlen, None))
        tables = self.angles(batch.max_seqlen)
        cos_NC, sin_NC = (t.index_select(0, positions_N) for t in tables)

        def attend(qkv_NX):
            q, k, v = self._split(qkv_NX)
            q, k = rotary(q, cos_NC, sin_NC), rotary(k, cos_NC, sin_NC)
            q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
            out = flex_attention(q, k, v, block_mask=mask, enable_gqa=k.shape[1] != q.shape[1])
            return out[0].transpose(0, 1).reshape(len(qkv_NX), -1)

        return attend


PROVIDERS = {  # model, attention (as dispatched if empty), engine
    "ours": (Decoder, "", TorchEngine),
    "ours, graphs": (Decoder, "", GraphEngine),
    "compile + varlen": (PlainDecoder, "varlen", TorchEngine),
    "compile + flex": (FlexDecoder, "", TorchEngine),
}


GPU_ALONE = ("ours, graphs", "compile + flex")  # flex attention has no backward on a CPU


def step_of(name: str, sizes, batch: PackedBatch, precision: str = "auto") -> Callable[[], None]:
    """A call that trains one step."""
    model, attention, kind = PROVIDERS[name]
    os.environ[VARIABLE] = attention
    torch.manual_seed(0)
    engine = kind(model(sizes), TrainConfig(precision=precision))

    def step() -> None:
        engine.backward([batch])
        engine.update(1e-4)

    return step


def measure(call: Callable, steps: int, finish: Callable[[], None]) -> list[float]:
    """Seconds of each step after WARM. finish(): waits for the device."""
    seconds = []
    for i in range(WARM + steps):
        finish()
        start = time.perf_counter()
        call()
        finish()
        if i >= WARM:
            seconds.append(time.perf_counter() - start)
    return seconds


def results(
    provider: str, seconds: list[float], sizes, batch: PackedBatch, shape: str, device: str
) -> Iterator[dict]:
    """Rows: ms, useful tokens/s and, on a known GPU, MFU and the share of the measured roof."""
    flops = step_flops(
        **matmul_sizes(sizes), tokens=batch.used_tokens, squares=segment_squares(batch)
    )
    roof, peak = roofs.roof(device), peak_flops(device, "bf16")
    times = percentiles(seconds)
    row = {"op": "train_step", "provider": provider, "mode": "training", "shape": shape}
    yield row | {"metric": "ms"} | scaled(times, 1e3)
    yield row | {"metric": "tokens/s"} | rate(times, batch.used_tokens)
    if peak:
        yield row | {"metric": "MFU"} | rate(times, flops / peak)
    if roof and roof.matmul:
        yield row | {"metric": "share of roof"} | rate(times, flops / roof.matmul)


def setting() -> tuple:
    """(sizes, batch in pinned memory where there is a GPU)"""
    batch = packed_batch(lengths(LENGTHS, TOKENS), rows=ROWS, classes=64)
    return architecture(PRESET, rows=ROWS), batch if DRY else pinned(batch)


def pinned(value):
    """A batch whose arrays lie in pinned memory, as the loader hands them over."""
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if is_dataclass(value):
        return replace(value, **{f.name: pinned(getattr(value, f.name)) for f in fields(value)})
    return value


def speed(provider: str, out: Path) -> None:
    if provider in GPU_ALONE and DEVICE != "cuda":
        print(f"{provider}: needs a GPU")
        return
    sizes, batch = setting()
    seconds = measure(step_of(provider, sizes, batch), sized(20, 1), wait)
    shape = f"{PRESET}, {LENGTHS}, {TOKENS} tokens, bf16"
    found = results(provider, seconds, sizes, batch, shape, rows.provenance()["device"])
    print(rows.table([rows.append(out, row) for row in found], COLUMNS))
    if DEVICE == "cuda":
        print(f"memory: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def profile(out: Path) -> None:
    """Time by kernel of three steps of ours: profile.txt."""
    from torch.profiler import ProfilerActivity, profile

    step = step_of("ours", *setting())
    for _ in range(WARM):
        step()
    wait()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profile(activities=activities) as recorded:
        for _ in range(3):
            step()
        wait()
    averages = recorded.key_averages()
    by = f"self_{sized('device', 'cpu')}_time_total"
    text = averages.table(sort_by=by, row_limit=60, max_name_column_width=90)
    (out / "profile.txt").write_text(text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", choices=("speed", "profile"), required=True)
    parser.add_argument("--provider", choices=PROVIDERS, default="ours")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "speed":
        speed(options.provider, options.out)
    else:
        profile(options.out)


if __name__ == "__main__":
    main()
