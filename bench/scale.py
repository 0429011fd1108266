"""How large what a GPU measures is: as it ships or, in a dry run, tiny and on the CPU.

`bench/gpu_suite.py --dry-run` sets LDM_BENCH_DRY for the processes of its parts. Triton's
interpreter gets bf16 wrong, so a dry run computes in fp32.
"""

import os

import torch

DRY = "LDM_BENCH_DRY" in os.environ
DEVICE = "cpu" if DRY else "cuda"
DTYPE = torch.float32 if DRY else torch.bfloat16


def sized(ships, dry):
    """`ships`, or `dry` in a dry run."""
    return dry if DRY else ships


def wait() -> None:
    """Until the device has done what it was asked to do."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
