"""Training ldm-v0 on synthetic batches on one GPU: speed by attention provider, and a profile.

python -m ldm.bench.gpu_training --what speed|profile --out DIR
"""

import argparse
from pathlib import Path

import torch

from ldm.bench import rows
from ldm.bench.train_step import Options, setting, train_step
from ldm.bench.train_step import rows as measure
from ldm.kernels.packed_attention.dispatch import PROVIDERS, installed
from ldm.kernels.packed_attention.peers import FLASH_MODULES

# Row 10: exponential lengths of mean 256, 64 thousand tokens a step.
SETTING = Options(
    preset="ldm-v0", rows=65_536, tokens=65_536, lengths="exp 256", steps=20, device="cuda"
)
COLUMNS = ("provider", "shape", "metric", "p20", "p50", "p80")


def providers() -> str:
    """Those a user could train with here; naive is too slow to wait for."""
    peers = [name for name in PROVIDERS if name in FLASH_MODULES or name in ("fused", "varlen")]
    return ",".join(name for name in peers if installed(name))


def speed(out: Path) -> None:
    options = Options(**vars(SETTING) | {"attention": providers()})
    found = [rows.append(out, row) for row in measure(options, print)]
    print(rows.table(found, COLUMNS))
    print(f"memory: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def profile(out: Path) -> None:
    """Time by kernel of three steps, as dispatched: profile.txt."""
    from torch.profiler import ProfilerActivity, profile

    model, batches = setting(SETTING)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for _ in range(3):
        train_step(model, optimiser, batches[0])
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(3):
            train_step(model, optimiser, batches[0])
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
