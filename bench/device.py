"""GPU operations beside attention: the token embedding and the optimiser step."""

from collections.abc import Callable, Iterator
from functools import partial

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
    floor's bytes, of peers that only sum bags of theirs."""
    for name, batch in cost.batches().items():
        counts, size = cost.counts(batch, WIDTH), DTYPE.itemsize
        floor = {
            "forward": cost.forward_bytes(counts, WIDTH)["floor"],
            "backward": cost.backward_bytes(counts, WIDTH, cost.ROWS)["floor"],
        }
        of_bags = {
            "forward": WIDTH * size * (counts.tokens + counts.distinct) + 4 * counts.entries,
            "backward": WIDTH * size * (counts.tokens + cost.ROWS) + 4 * counts.entries,
        }
        batch = batch.to(DEVICE)
        weights, grad, forwards = embedders(batch)
        peers = bag_peers(batch, cost.ROWS, WIDTH, notes)
        for mode in floor:
            calls = {}
            for provider, (forward, leaves) in (
                {name: (each, weights) for name, each in forwards.items()} | peers
            ).items():
                try:
                    calls[provider] = call_of(forward, mode, leaves, [grad])
                    calls[provider]()
                except Exception as error:  # one that cannot run must not stop the others
                    calls.pop(provider, None)
                    notes(f"{provider}, {mode}: {first_line(error)}")
            shape = f"{name}, {cost.TOKENS} tokens, width {WIDTH}, {cost.ROWS} rows, bf16"
            moved = dict.fromkeys(calls, floor[mode]) | dict.fromkeys(peers, of_bags[mode])
            yield from timed_rows("token_embedding", mode, shape, calls, moved, seconds)


def bag_peers(
    batch: PackedBatch, rows: int, width: int, notes: Callable[[str], None]
) -> dict[str, tuple[Callable, list[torch.Tensor]]]:
    """Functions, and the table that each takes a dense gradient of, which sum the bags of `batch`
    and no more: no numbers, no patches, no norm.

    FBGEMM's table batched embedding has no bf16 and takes fp16 of the same size; each of its
    releases is built for one torch: pip install --no-deps fbgemm-gpu==1.8.* for 2.13.
    """
    ids, offsets = batch.tokens.bag_ids_B, batch.tokens.bag_offsets_N1
    weights = batch.tokens.bag_weights_B
    table = torch.randn(rows, width, device=DEVICE, dtype=DTYPE).requires_grad_()
    bag = partial(torch.nn.functional.embedding_bag, mode="sum", include_last_offset=True)
    bag = partial(bag, per_sample_weights=weights.to(DTYPE))
    found = {"EmbeddingBag, bags alone": (lambda: bag(ids, table, offsets), [table])}
    try:
        found["FBGEMM TBE, bags alone"] = _fbgemm(ids, offsets, weights, table)
    except (ImportError, OSError) as error:  # not installed, or built for another torch
        notes(f"FBGEMM TBE: {first_line(error)}")
    return found


def _fbgemm(ids, offsets, weights, table):
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        DenseTableBatchedEmbeddingBagsCodegen as Bags,
    )

    kind = SparseType.FP32 if DTYPE.itemsize == 4 else SparseType.FP16
    own = table.detach().to(kind.as_dtype()).requires_grad_()
    bags = Bags([own.shape], weights_precision=kind, output_dtype=kind, use_cpu=DEVICE == "cpu")
    del bags.weights
    bags.weights = own.view(-1)  # a table that we hold, so that its gradient can be asked for
    ids, offsets = ids.long(), offsets.long()
    return lambda: bags(ids, offsets, weights), [own]


def embedders(batch: PackedBatch):
    """(weights, gradient of the output, providers). Liger embeds one row a token and no more."""
    tokens = batch.tokens
    numbers, patch_bytes = tokens.features_NG.shape[1], tokens.patches_PX.shape[1]
    shapes = ((cost.ROWS, WIDTH), (2, numbers, WIDTH), (patch_bytes, WIDTH), (WIDTH,))
    generator = torch.Generator(DEVICE).manual_seed(0)
    options = {"generator": generator, "device": DEVICE, "dtype": DTYPE}
    weights = [torch.randn(shape, **options).requires_grad_() for shape in shapes]
    inputs = [tokens.kinds_N, tokens.bag_ids_B, tokens.bag_weights_B, tokens.bag_offsets_N1]
    inputs += [tokens.features_NG, tokens.patches_PX, tokens.patch_tokens_P]
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
        grads = [grad.to(o.dtype) for grad, o in zip(grads, outputs, strict=True)]
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
    moved = dict.fromkeys(calls, 28.0 * count)
    yield from timed_rows("optimiser", "step", f"{count} fp32 parameters", calls, moved, seconds)


def _deepspeed_adam(parameters):
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(parameters)


def timed_rows(
    op: str, mode: str, shape: str, calls, moved: dict[str, float], seconds: float
) -> Iterator[dict]:
    """moved: bytes that anyone must move for what a provider computes."""
    ceiling = roofs.roof(provenance()["device"])
    for provider, samples in interleaved(calls, DEVICE, seconds).items():
        times = percentiles(samples)
        row = {"op": op, "provider": provider, "mode": mode, "shape": shape}
        yield row | {"metric": "us"} | scaled(times, 1e6)
        yield row | {"metric": "GB/s"} | rate(times, moved[provider] / 1e9)
        if ceiling:
            share = rate(times, ceiling.seconds(0, moved[provider]))
            yield row | {"metric": "share of roof", "roof": ceiling.name} | share
