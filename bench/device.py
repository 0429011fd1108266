"""GPU operations beside attention: the token embedding and the optimiser step."""

from collections.abc import Callable, Iterator

import torch

from ldm.bench import embedding_cost as cost
from ldm.bench.attention import first_line
from ldm.bench.measure import interleaved, percentiles, rate, scaled
from ldm.bench.rows import provenance
from ldm.bench.scale import DEVICE, DTYPE, sized
from ldm.data.batch import PackedBatch
from ldm.kernels.token_embedding import plain
from ldm.kernels.token_embedding import token_embedding as ours
from ldm.train import roofs

WIDTH = cost.WIDTH


def token_embedding(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """The embedding of the cost model's batches at the width of ldm-v0, bf16 table. GB/s are of the
    floor's bytes."""
    for name, batch in cost.batches().items():
        counts = cost.counts(batch, WIDTH)
        floor = {
            "forward": cost.forward_bytes(counts, WIDTH)["floor"],
            "backward": cost.backward_bytes(counts, WIDTH, cost.ROWS)["floor"],
        }
        weights, grad, forwards = embedders(batch.to(DEVICE))
        for mode in floor:
            calls = {}
            for provider, forward in forwards.items():
                try:
                    calls[provider] = call_of(forward, mode, weights, [grad])
                    calls[provider]()
                except Exception as error:  # one that cannot run must not stop the others
                    calls.pop(provider, None)
                    notes(f"{provider}, {mode}: {first_line(error)}")
            shape = f"{name}, {cost.TOKENS} tokens, width {WIDTH}, {cost.ROWS} rows, bf16"
            yield from timed_rows("token_embedding", mode, shape, calls, floor[mode], seconds)


def embedders(batch: PackedBatch):
    """(weights, gradient of the output, providers). Liger embeds one row a token and no more."""
    tokens = batch.tokens
    numbers, patch_bytes = tokens.features_NG.shape[1], tokens.patches_PX.shape[1]
    shapes = ((cost.ROWS, WIDTH), (2, numbers, WIDTH), (patch_bytes, WIDTH), (WIDTH,))
    generator = torch.Generator(DEVICE).manual_seed(0)
    options = {"generator": generator, "device": DEVICE, "dtype": DTYPE}
    weights = [torch.randn(shape, **options).requires_grad_() for shape in shapes]
    inputs = (tokens.kinds_N, tokens.bag_ids_B, tokens.bag_offsets_N1, tokens.features_NG)
    inputs += (tokens.patches_PX, tokens.patch_tokens_P)
    grad = torch.randn(len(tokens.kinds_N), WIDTH, **options)
    compiled = torch.compile(plain.token_embedding)
    first = tokens.bag_ids_B[tokens.bag_offsets_N1[:-1].long().clamp(max=len(tokens.bag_ids_B) - 1)]

    def liger():
        from liger_kernel.ops.experimental.embedding import LigerEmbeddingFunction

        return LigerEmbeddingFunction.apply(weights[0], first)

    return weights, grad, {
        "ours": lambda: ours(*weights, *inputs, plan=batch.embedding),
        "eager": lambda: plain.token_embedding(*weights, *inputs),
        "compile": lambda: compiled(*weights, *inputs),
        "Liger, one row a token": liger,
    }  # fmt: skip


def call_of(forward, mode: str, inputs, grads=None) -> Callable[[], object]:
    """One direction of `forward`, which takes nothing; grads: of its outputs, ones if not given."""
    if mode == "backward":
        outputs = forward()
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        grads = grads or [torch.ones_like(o) for o in outputs]
        leaves = [x for x in inputs if x.requires_grad]
        options = {"retain_graph": True, "allow_unused": True}
        return lambda: torch.autograd.grad(outputs, leaves, grads, **options)

    def run():
        with torch.no_grad():
            return forward()

    return run


def optimiser(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """One AdamW step over 128M fp32 parameters in matrices of 4M: 28 bytes a parameter."""
    makers = {
        "torch fused": lambda p: torch.optim.AdamW(p, fused=True),
        "torch foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    }
    if DEVICE == "cuda":  # elsewhere it compiles for minutes
        makers["deepspeed"] = _deepspeed_adam
    side = sized(2048, 16)
    calls, count = {}, 32 * side * side
    for name, make in makers.items():
        try:
            parameters = [torch.zeros(side, side, device=DEVICE) for _ in range(32)]
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            calls[name] = make(parameters).step
            calls[name]()
        except Exception as error:  # not installed, or its extension does not build here
            calls.pop(name, None)
            notes(f"{name}: {first_line(error)}")
    yield from timed_rows(
        "optimiser", "step", f"{count} fp32 parameters", calls, 28 * count, seconds
    )


def _deepspeed_adam(parameters):
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(parameters)


def timed_rows(
    op: str, mode: str, shape: str, calls, moved: float, seconds: float
) -> Iterator[dict]:
    ceiling = roofs.roof(provenance()["device"])
    for provider, samples in interleaved(calls, DEVICE, seconds).items():
        times = percentiles(samples)
        row = {"op": op, "provider": provider, "mode": mode, "shape": shape}
        yield row | {"metric": "us"} | scaled(times, 1e6)
        yield row | {"metric": "GB/s"} | rate(times, moved / 1e9)
        if ceiling:
            share = rate(times, ceiling.seconds(0, moved))
            yield row | {"metric": "share of roof", "roof": ceiling.name} | share
