"""GPU operations beside attention: the token embedding and the optimiser step."""

from collections.abc import Callable, Iterator

import torch

from ldm.bench import roofs
from ldm.bench.attention import first_line
from ldm.bench.lengths import lengths
from ldm.bench.measure import interleaved, percentiles, rate, scaled
from ldm.bench.rows import provenance
from ldm.bench.synthetic import packed_batch
from ldm.kernels.token_embedding import naive
from ldm.kernels.token_embedding import token_embedding as ours
from ldm.model.presets import architecture

TOKENS, ROWS = 32_768, 65_536


def token_embedding(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """The embedding of one batch at the width of ldm-v0, bf16 table."""
    batch = packed_batch(lengths("exp 256", TOKENS), rows=ROWS, patches=256).to("cuda")
    tokens, width = batch.tokens, architecture("ldm-v0").width
    patch_bytes = tokens.patches_PX.shape[1]
    shapes = (
        (ROWS, width),
        (2, tokens.features_NF.shape[1], width),
        (patch_bytes, width),
        (width,),
    )
    generator = torch.Generator("cuda").manual_seed(0)
    options = {"generator": generator, "device": "cuda", "dtype": torch.bfloat16}
    weights = [torch.randn(shape, **options).requires_grad_() for shape in shapes]
    inputs = (tokens.kinds_N, tokens.bag_ids_B, tokens.bag_offsets_N1, tokens.features_NF)
    inputs += (tokens.patches_PX, tokens.patch_tokens_P)
    grad = torch.randn(TOKENS, width, **options)
    compiled = torch.compile(naive.token_embedding)
    forwards = {
        "ours": lambda: ours(*weights, *inputs, plan=batch.embedding),
        "eager": lambda: naive.token_embedding(*weights, *inputs),
        "compile": lambda: compiled(*weights, *inputs),
    }
    read = len(tokens.bag_ids_B) * width * 2 + tokens.features_NF.nbytes + tokens.patches_PX.nbytes
    moved = {"forward": read + grad.nbytes, "backward": read + grad.nbytes + weights[0].nbytes}
    for mode in ("forward", "backward"):
        calls = {}
        for name, forward in forwards.items():
            try:
                calls[name] = _call(forward, mode, weights, grad)
                calls[name]()
            except Exception as error:  # one that cannot run must not stop the others
                calls.pop(name, None)
                notes(f"{name}, {mode}: {first_line(error)}")
        shape = f"exp 256, {TOKENS} tokens, width {width}, {ROWS} rows, bf16"
        yield from _rows("token_embedding", mode, shape, calls, moved[mode], seconds)


def _call(forward, mode: str, weights, grad) -> Callable[[], object]:
    if mode == "backward":
        out = forward()
        return lambda: torch.autograd.grad(out, weights, grad, retain_graph=True)

    def run():
        with torch.no_grad():
            return forward()

    return run


def optimiser(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """One AdamW step over 128M fp32 parameters in matrices of 4M: 28 bytes a parameter."""
    makers = {
        "torch fused": lambda p: torch.optim.AdamW(p, fused=True),
        "torch foreach": lambda p: torch.optim.AdamW(p, foreach=True),
        "deepspeed": _deepspeed_adam,
    }
    calls, count = {}, 32 * 2048 * 2048
    for name, make in makers.items():
        try:
            parameters = [torch.zeros(2048, 2048, device="cuda") for _ in range(32)]
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            calls[name] = make(parameters).step
            calls[name]()
        except Exception as error:  # not installed, or its extension does not build here
            calls.pop(name, None)
            notes(f"{name}: {first_line(error)}")
    yield from _rows("optimiser", "step", f"{count} fp32 parameters", calls, 28 * count, seconds)


def _deepspeed_adam(parameters):
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(parameters)


def _rows(op: str, mode: str, shape: str, calls, moved: float, seconds: float) -> Iterator[dict]:
    ceiling = roofs.roof(provenance()["device"])
    for provider, samples in interleaved(calls, "cuda", seconds).items():
        times = percentiles(samples)
        row = {"op": op, "provider": provider, "mode": mode, "shape": shape}
        yield row | {"metric": "us"} | scaled(times, 1e6)
        yield row | {"metric": "GB/s"} | rate(times, moved / 1e9)
        if ceiling:
            share = rate(times, ceiling.seconds(0, moved))
            yield row | {"metric": "share of roof", "roof": ceiling.name} | share
