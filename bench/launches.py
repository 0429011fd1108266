"""What torch.compile launches for a part of the model, without a GPU: names, types, grids, tensors.

    python -m ldm.bench.launches block           one JSON line a launch, ours with machine code

Inductor compiles the part as for a card; a stand-in driver answers for the device, launches and
matrix products are recorded and not run, so that memory is reserved but never touched. A process
of its own, because Triton's interpreter (TRITON_INTERPRET=1) cannot compile and the patches stay.
"""

import json
import math
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib import import_module
from unittest.mock import patch

import torch

from ldm.bench.written import stored
from ldm.parallel.parent import tied

ARCHITECTURE = "sm_90"  # unless asked for another
CHOOSER = "ldm.kernels.dispatch"  # where `architecture(device)` is written
OPERATORS = tuple(
    f"ldm.kernels.{name}.fused" for name in ("packed_attention", "token_embedding", "action_loss")
)
CHOICES = ("ldm.kernels.token_embedding", "ldm.kernels.action_loss")  # call `choose(device, dtype)`


class StandIn:
    """A Triton driver for a GPU that is not there."""

    def __init__(self, target):
        self.get_current_target = lambda: target

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
    """Every launch and product, as dictionaries for JSON; what PyTorch takes a kernel to write."""

    def __init__(self):
        self.lines: list[dict] = []
        self.mutated: dict[str, list[str]] = {}
        self.phase = "forward"

    def launch(self, autotuner, *values, **_) -> None:
        """In place of Inductor's own launch of a Triton kernel."""
        fn, meta, chosen = autotuner.fn, autotuner.triton_meta, autotuner.configs[0]
        names = [n for n in meta["signature"] if meta["signature"][n] != "constexpr"]
        tensors = [
            {"name": name, "bytes": x.numel() * x.element_size()}
            for name, x in zip(names, values, strict=False)
            if torch.is_tensor(x)
        ]
        module = modules().get(fn.__name__)
        line = {
            "phase": self.phase,
            "kernel": fn.__name__,
            "module": module,  # None: Inductor's own
            "programs": math.prod(values[-3:]) if module else None,
            "signature": meta["signature"],
            "constants": {**meta["constants"], **chosen.kwargs},
            "divisible": [i for (i,), facts in meta["configs"][0].items() if facts],
            "tensors": tensors,
            "warps": chosen.num_warps,
            "stages": chosen.num_stages,
        }
        if module:
            line["mutated"] = sorted(self.mutated[fn.__name__])
            line["stored"] = sorted(stored(getattr(import_module(module), fn.__name__)))
        self.lines.append(line)

    def product(self, name: str):
        def record(*values, out=None, **_):
            a, b = values[-2:]
            flops = 2 * a.shape[0] * a.shape[1] * b.shape[1]
            self.lines.append({"phase": self.phase, "kernel": name, "flops": flops})

        return record

    def analysis(self, original):
        def analyse(kernel_index, *arguments):
            from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

            found = original(kernel_index, *arguments)
            name = kernel_side_table.get_kernel(kernel_index).fn.__name__
            self.mutated.setdefault(name, found)
            return found

        return analyse


def modules() -> dict[str, str]:
    """Of the kernels that a trace has met, by name: where they are written."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    return {k.fn.__name__: k.fn.__module__ for k in kernel_side_table.id_to_kernel.values()}


def capability(arch: str) -> int:
    return int(arch.removeprefix("sm_"))


@contextmanager
def recording(arch: str = ARCHITECTURE):
    """Until it ends nothing of Triton runs, and everything is recorded, as for `arch`."""
    import torch._higher_order_ops.triton_kernel_wrap as wrap
    import triton
    from torch._dynamo.device_interface import CpuInterface
    from torch._inductor import config, graph, scheduler
    from torch._inductor.runtime import triton_helpers
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner
    from torch._inductor.select_algorithm import extern_kernels
    from torch._inductor.utils import tensor_is_aligned
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", capability(arch), 32)
    options = getattr(triton_helpers, "get_backend_options_for_target", None)
    triton.runtime.driver.set_active(StandIn(target))
    config.cpu_backend, config.force_disable_caches, config.compile_threads = "triton", True, 1
    recorder = Recorder()
    patches = [
        patch.object(CachingAutotuner, "precompile", lambda *_, **__: None),
        patch.object(CachingAutotuner, "run", lambda self, *a, **k: recorder.launch(self, *a, **k)),
        patch.object(triton.runtime.jit.JITFunction, "run", lambda *_, **__: None),
        patch.object(graph, "should_assume_input_aligned", tensor_is_aligned),  # GPUs' alone are
        patch.object(wrap, "get_mutated_tensors", recorder.analysis(wrap.get_mutated_tensors)),
        patch.object(extern_kernels, "mm", recorder.product("mm"), create=True),
        patch.object(extern_kernels, "addmm", recorder.product("addmm"), create=True),
    ]
    for owner, name, new in (  # where this torch asks
        (scheduler, "_is_gpu_triton_backend", lambda *_: True),
        (CpuInterface, "raise_if_triton_unavailable", lambda *_: None),
        (triton_helpers, "get_backend_options_for_target", lambda _: options(target)),
    ):
        if hasattr(owner, name):
            patches.append(patch.object(owner, name, new))
    for module in (import_module(name) for name in (*CHOICES, *OPERATORS)):
        if getattr(getattr(module, "architecture", None), "__module__", "") == CHOOSER:
            patches.append(patch.object(module, "architecture", lambda device: arch))
        if module.__name__ in CHOICES:
            patches.append(patch.object(module, "choose", lambda *_: "fused"))
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield recorder


def record(part: str, name: str, arch: str = ARCHITECTURE) -> list[dict]:
    """Lines of one step of a part over the lengths `name`, forward and backward, on `arch`.

    part: a function of `ldm.bench.parts`, or "module:function".
    """
    from ldm.bench import parts
    from ldm.bench.lengths import lengths

    module, _, name_of_part = part.rpartition(":")
    make = getattr(import_module(module) if module else parts, name_of_part)
    function, arguments = make(lengths(name))
    with recording(arch) as recorder:
        out = function(*arguments(lengths(name)))
        recorder.phase = "backward"
        out.backward(torch.empty_like(out))
    return recorder.lines


def in_a_process(
    part: str, lengths: str = "exp 128", scalars: str = "as launched", root: str | None = None,
    arch: str = ARCHITECTURE, python: str = sys.executable,
) -> list[dict]:  # fmt: skip
    """Lines of `part` of the tree at `root`, ours with their "code", compiled with scalars "as
    launched" or "fp32", by an interpreter. Raises RuntimeError with what the process said."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if root:
        environment["PYTHONPATH"] = root
    command = [python, "-m", "ldm.bench.launches", part, lengths, scalars, arch]
    result = subprocess.run(
        tied(command), capture_output=True, text=True, env=environment, cwd=root
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def main(
    part: str, name: str = "exp 128", scalars: str = "as launched", arch: str = ARCHITECTURE
) -> None:
    """Prints the launches of a part, ours with their machine code, compiled once each."""
    from ldm.bench.machine_code import compile_launch

    known: dict[str, dict] = {}
    for line in record(part, name, arch):
        if line.get("module"):
            if scalars == "fp32":
                types = line["signature"].items()
                line["signature"] = {k: "fp32" if t == "fp64" else t for k, t in types}
            key = json.dumps([v for k, v in line.items() if k not in ("phase", "programs")])
            if key not in known:
                known[key] = asdict(compile_launch(line, capability(arch)))
            line["code"] = known[key]
        print(json.dumps(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
