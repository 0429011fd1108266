"""What rounding must be expected to do to an operation: the model that the bounds come from.

The operation runs in fp64, and after each step forward and backward comes a rounding. In sixteen
bits it is the rounding itself. In fp32 it is drawn at random, which is Parker's Monte-Carlo
arithmetic, with the deviation that the step has (docs/decisions/0008).
"""

import json
from dataclasses import dataclass

import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tests.kernels.bounds import RESULTS, UNIT, in_units

DRAWS = 4
FEW = 16  # terms that a reduction adds in turn


@dataclass(frozen=True)
class Steps:
    """Of fp32, in units: the error of exp and the like; of each term of a product; of each of a
    product's steps of eight terms, which tensor cores truncate."""

    function: float
    term: float
    chop: float


FULL = {
    "fp32": Steps(2, 0, 0),
    # Halves of 11 bits leave 2⁻²² of a term, 4 units; ex2.approx and lg2.approx err by 2 ulp.
    "tf32x3": Steps(4, 4, 1),
}
NARROW = {"fp16": torch.float16, "bf16": torch.bfloat16, "bf16 plain": torch.bfloat16}
EXACT = {
    "abs", "alias", "amax", "arange", "as_strided", "cat", "clone", "_to_copy", "copy_", "detach",
    "empty", "empty_like", "expand", "fill_", "full", "full_like", "gather", "index", "index_copy",
    "index_select", "lift_fresh", "masked_fill", "masked_fill_", "max", "neg", "new_empty",
    "new_empty_strided", "new_full", "new_zeros", "ones", "ones_like", "permute", "select",
    "select_backward", "slice", "slice_backward", "split", "split_with_sizes", "squeeze", "stack",
    "t", "transpose", "unbind", "unsqueeze", "unsafe_view", "_unsafe_view", "view", "where",
    "zeros", "zeros_like",
}  # fmt: skip
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
SUMS = PRODUCTS | {
    "sum", "index_add", "index_put", "_index_put_impl_", "_embedding_bag",
    "_embedding_bag_dense_backward", "embedding_dense_backward",
}  # fmt: skip
FUNCTIONS = {"exp", "exp2", "log", "log2", "sigmoid", "rsqrt"}
aten = torch.ops.aten
IN_STEPS = {
    aten._softmax.default, aten._log_softmax.default, aten._softmax_backward_data.default,
    aten._log_softmax_backward_data.default, aten.silu.default, aten.silu_backward.default,
}  # fmt: skip


class Rounded(TorchDispatchMode):
    """Rounds what every operation on fp64 tensors gives, as `kind` would."""

    def __init__(self, kind: str, seed: int):
        super().__init__()
        self.kind, self.random = kind, torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.removeprefix("aten::")
        if self.kind in NARROW:
            return self.narrow(func, name, args, kwargs)
        if func in IN_STEPS:
            with self:
                return decomposition_table[func](*args, **kwargs)
        if name in SUMS:  # each is linear in its tensors of numbers
            squares, counts = (
                _first(func(*tree_map_only(torch.Tensor, change, args), **kwargs))
                for change in (_squared, _ones)
            )
        out = func(*args, **kwargs)
        value = _first(out)
        if name in EXACT or not _number(value):
            return out
        steps = FULL[self.kind]
        if name in SUMS:
            self.add(value, self.sum_deviation(name, value, squares, counts))
        elif name == "mean":
            terms = args[0].numel() / value.numel()
            squares = func(args[0].square(), *args[1:], **kwargs) / terms
            counts = torch.full_like(value, terms)
            self.add(value, self.sum_deviation(name, value, squares, counts))
        self.add(value, (steps.function if name in FUNCTIONS else 1) * value.abs() / 3**0.5)
        return out

    def narrow(self, func, name, args, kwargs):
        """The fused kernels round what enters a product; plain PyTorch rounds every result."""
        dtype = NARROW[self.kind]
        if self.kind != "bf16 plain":
            if name in PRODUCTS:
                args = tree_map_only(torch.Tensor, lambda x: x.to(dtype).to(x), args)
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        value = _first(out)
        if name not in EXACT and _number(value):
            value.copy_(value.to(dtype))
        return out

    def sum_deviation(self, name, value, squares, counts):
        """Of the sum y of n = `counts` terms t, in units. A rounding has a third of its square as
        variance; what is rounded are partial sums, and their squares add up to

        - n/2 · Σ t² where terms cancel, n/3 · y² where they have one sign, added in turn: products;
        - log₂ n · Σ t² and 2 y² added as a tree, as reductions of more than a FEW terms are.

        A bag may add the same row again and again: then the n/2 roundings of the partial sums'
        last octave, at 3/4 y on average, are one and the same, and add up to 3/8 n y.
        """
        if name in PRODUCTS:
            steps = FULL[self.kind]
            variance = counts / 6 * squares + counts / 9 * value.square()
            variance += steps.term**2 * squares
            variance += (steps.chop * counts / 8) ** 2 * (squares + value.square())
        elif name in ("sum", "mean"):
            tree = counts.clamp(min=1).log2() / 3 * squares + 2 / 3 * value.square()
            in_turn = counts / 6 * squares + counts / 9 * value.square()
            variance = torch.where(counts <= FEW, in_turn, tree)
        elif name == "_embedding_bag":
            variance = counts / 6 * squares + (3 / 8 * counts * value).square() / 3
        else:
            variance = counts / 6 * squares + counts / 9 * value.square()
        return variance.sqrt()

    def add(self, value, deviation) -> None:
        """Adds a number of this deviation, in units, evenly distributed."""
        drawn = torch.rand(value.shape, generator=self.random, dtype=torch.float64)
        noise = (drawn * 2 - 1) * 3**0.5 * UNIT[self.kind] * deviation
        value.add_(torch.where(value.isfinite(), noise, 0.0))


def _first(out):
    return out[0] if isinstance(out, tuple | list) and out else out


def _number(x) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype == torch.float64


def _squared(x):
    return x.square() if _number(x) else x


def _ones(x):
    return torch.ones_like(x) if _number(x) else x


def expected(kind: str, run, exact, grad_out) -> list[float]:
    """The error of each result in units: the root mean square of draws, and the largest element."""
    draws = []
    for seed in range(1 if kind in NARROW else DRAWS):
        with Rounded(kind, seed):
            made = [x.clone() for x in run()]
        if kind in NARROW:
            made = [x.to(NARROW[kind]) for x in made]
        draws.append([(x - z).square() for x, z in zip(made, exact, strict=True)])
    deviations = [torch.stack(one).mean(0).sqrt() for one in zip(*draws)]
    shifted = [z + d for z, d in zip(exact, deviations, strict=True)]
    return in_units(kind, shifted, exact, grad_out)


# A GPU's arithmetic is expected from what the interpreter runs.
ON_A_GPU = {"fp32": "tf32x3", "fp16": "bf16"}


def record(path: str, operation: str, kind: str, got, run, grad_out) -> None:
    """A line for every result: its error, and in a file called "model" what is expected."""
    exact = run()
    lines = {kind: (in_units(kind, got, exact, grad_out), [0.0] * len(exact))}
    if path.endswith("model"):
        lines[kind] = lines[kind][0], expected(kind, run, exact, grad_out)
        if (other := ON_A_GPU.get(kind)) and fused(operation):
            lines[other] = [0.0] * len(exact), expected(other, run, exact, grad_out)
    with open(path, "a") as file:
        for name, (errors, models) in lines.items():
            for result, error, model in zip(RESULTS[operation], errors, models, strict=True):
                row = {"operation": operation, "kind": name, "result": result}
                file.write(json.dumps(row | {"error": error, "expected": model}) + "\n")


def fused(operation: str) -> bool:
    return operation in ("packed_attention", "action_loss", "token_embedding")
