"""What torch.compile launches for a part of the model, without a GPU: names, types, grids, tensors.

    python -m ldm.bench.launches block 65536        JSON, one line a launch

Inductor compiles the part as for sm_90; a stand-in driver answers for the device, launches and
matrix products are recorded and not run, so that memory is reserved but never touched. A process
of its own, because Triton's interpreter (TRITON_INTERPRET=1) cannot compile and the patches stay.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from itertools import accumulate
from unittest.mock import patch

import torch

ARCHITECTURE = "sm_90"  # of the configurations that a launch chooses
CAPABILITY = 90
CHOOSER = "ldm.kernels.dispatch"  # where `architecture(device)` is written


class StandIn:
    """A Triton driver for a GPU that is not there."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", CAPABILITY, 32)

    def get_active_torch_device(self):
        return torch.device("cpu")

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=0):
        return 0

    @staticmethod
    def is_active():
        return True


class Recorder:
    """Every launch and product since the last `mark`, as dictionaries for JSON."""

    def __init__(self):
        self.lines: list[dict] = []
        self.phase = "forward"

    def launch(self, autotuner, *values, **_) -> None:
        """In place of Inductor's own launch of a Triton kernel."""
        fn, meta = autotuner.fn, autotuner.triton_meta
        chosen = autotuner.configs[0]
        names = [n for n in meta["signature"] if meta["signature"][n] != "constexpr"]
        tensors = [
            {"name": name, "shape": list(x.shape), "bytes": x.numel() * x.element_size()}
            for name, x in zip(names, values, strict=False)
            if torch.is_tensor(x)
        ]
        module = modules().get(fn.__name__)
        options = {"warps": chosen.num_warps, "stages": chosen.num_stages}
        self.lines.append(
            {
                "phase": self.phase,
                "kernel": fn.__name__,
                "module": module,  # None: Inductor's own
                "programs": math.prod(values[-3:]) if module else None,
                "signature": meta["signature"],
                "constants": {**meta["constants"], **chosen.kwargs},
                "divisible": [i for (i,), facts in meta["configs"][0].items() if facts],
                "tensors": tensors,
            }
            | options
        )

    def product(self, name: str):
        def record(*values, out=None, **_):
            a, b = values[-2:]
            flops = 2 * a.shape[0] * a.shape[1] * b.shape[1]
            line = {"phase": self.phase, "kernel": name, "flops": flops}
            self.lines.append(line)

        return record


def modules() -> dict[str, str]:
    """Of the kernels that a trace has met, by name: where they are written."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    return {k.fn.__name__: k.fn.__module__ for k in kernel_side_table.id_to_kernel.values()}


def record(build, backward: bool = True) -> list[dict]:
    """Lines of one compiled call: build() → (function, arguments), forward and backward."""
    import triton
    from torch._inductor import config, scheduler
    from torch._inductor.runtime import triton_heuristics
    from torch._inductor.select_algorithm import extern_kernels

    triton.runtime.driver.set_active(StandIn())
    recorder = Recorder()
    config.cpu_backend, config.force_disable_caches, config.compile_threads = "triton", True, 1
    tuner = triton_heuristics.CachingAutotuner
    ours = [m for m in list(sys.modules.values()) if getattr(m, "__name__", "").startswith("ldm.")]
    with (
        patch.object(tuner, "precompile", lambda *_, **__: None),
        patch.object(tuner, "run", lambda self, *a, **k: recorder.launch(self, *a, **k)),
        patch.object(scheduler, "_is_gpu_triton_backend", lambda *_: True),
        patch.object(extern_kernels, "mm", recorder.product("mm"), create=True),
        patch.object(extern_kernels, "addmm", recorder.product("addmm"), create=True),
    ):
        for module in ours:
            if getattr(getattr(module, "architecture", None), "__module__", "") == CHOOSER:
                module.architecture = lambda device: ARCHITECTURE
        function, arguments = build()
        out = function(*arguments)
        if backward:
            recorder.phase = "backward"
            out.backward(torch.empty_like(out))
    return recorder.lines


def block(lengths: list[int], preset: str = "ldm-v0") -> list[dict]:
    """Launches of a block of `preset`, forward and backward, bf16 over segments of `lengths`."""
    from ldm.kernels import gated_mlp, norm_linear
    from ldm.kernels.packed_attention import Segments, dispatch, fused
    from ldm.kernels.packed_attention.work_list import build
    from ldm.kernels.rotary import rotary_table
    from ldm.model.decoder import Block
    from ldm.model.presets import architecture

    for module in (norm_linear, gated_mlp):  # what a GPU runs
        module.cpu = module.naive
    fused._check_lengths = lambda *_: None
    a = architecture(preset)
    cu_seqlens = [0, *accumulate(lengths)]
    tokens, longest = cu_seqlens[-1], max(lengths)

    def whole():
        positions_N = torch.zeros(tokens, dtype=torch.int32)
        starts = torch.tensor(cu_seqlens, dtype=torch.int32)
        angles = rotary_table(1 << (longest - 1).bit_length(), a.head_dim)
        segments = Segments(starts, positions_N, longest, build(cu_seqlens), angles)
        provider = dispatch.load("fused")

        def attend(qkv_NX):
            heads = (a.heads, a.kv_heads, a.kv_heads)
            q, k, v = qkv_NX.unflatten(-1, (-1, a.head_dim)).split(heads, dim=1)
            return provider(q, k, v, segments).flatten(1)

        part = Block(a)  # fp32 weights, cast in every step
        part.compile(fullgraph=True, dynamic=False)
        x_ND = torch.empty(tokens, a.width, dtype=torch.bfloat16, requires_grad=True)
        return part, (x_ND, attend)

    return record(whole)


def in_a_process(
    part: str, lengths: str, scalars: str = "as launched", root: str | None = None
) -> list[dict]:
    """Lines of `part` of the tree at `root`, ours with their "code", compiled with scalars "as
    launched" or "fp32". Raises RuntimeError with what the process said."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if root:
        environment["PYTHONPATH"] = root
    command = [sys.executable, "-m", "ldm.bench.launches", part, lengths, scalars]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def main(part: str, name: str, scalars: str) -> None:
    """Prints the launches of a part, ours with their machine code."""
    from ldm.bench.lengths import lengths
    from ldm.bench.machine_code import compile_launch

    known: dict[str, dict] = {}
    for line in {"block": block}[part](lengths(name)):
        if line.get("module"):
            if scalars == "fp32":
                types = line["signature"].items()
                line["signature"] = {k: "fp32" if t == "fp64" else t for k, t in types}
            key = json.dumps([v for k, v in line.items() if k not in ("phase", "programs")])
            if key not in known:
                known[key] = asdict(compile_launch(line, CAPABILITY))
            line["code"] = known[key]
        print(json.dumps(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
