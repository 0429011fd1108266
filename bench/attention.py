"""Packed attention against whatever else computes it: inputs, providers, one call per mode.

A provider is attend(qkv, key_heads, segments) → output. Every one is checked against ours before
it is timed; the imports are in `ldm.kernels.packed_attention.peers`, which the model uses too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import accumulate, pairwise

import torch

from ldm.bench import cost
from ldm.bench.lengths import TOKENS, lengths
from ldm.bench.measure import graphed, interleaved, percentiles, rate, scaled
from ldm.bench.rows import provenance
from ldm.bench.scale import DEVICE, DTYPE, sized
from ldm.kernels.packed_attention import Segments, dispatch, peers
from ldm.kernels.packed_attention.work_list import build
from ldm.kernels.rotary import rotary, rotary_table
from ldm.train import roofs

HEADS = sized(16, 1)
NAMES = ("exp 128", "exp 512", "const 64", "dense 8k", "tiny", "exp 256", "const 128")  # by worth
SHAPES = [(name, HEADS, 64) for name in sized(NAMES, NAMES[:3])]
SHAPES += [(name, HEADS // 2, 128) for name in sized(("dense 8k", "exp 512"), ())]
MODES = ("forward", "backward", "both")
DENSE_LIMIT = 20_000  # tokens up to which a whole mask is affordable
EACH_LIMIT = 2_000  # segments up to which one call for each is worth waiting for
ROTATED_NAMES = ("const 64", "exp 128", "exp 512")
FLEX_NAMES = ("exp 128", "exp 512", "dense 8k")  # it compiles for half a minute a shape


class Absent(Exception):
    """A provider that cannot run here, and why."""


def inputs(name: str, heads: int, dim: int, tokens: int = TOKENS, device: str = DEVICE):
    """(qkv of one fused projection, do, segments, lengths), bf16 (a dry run: fp32)."""
    found = lengths(name, tokens)
    cu = [0, *accumulate(found)]
    generator = torch.Generator(device).manual_seed(0)
    options = {"generator": generator, "device": device, "dtype": DTYPE}
    qkv = torch.randn(cu[-1], 3 * heads, dim, **options)
    do = torch.randn(cu[-1], heads, dim, **options)
    starts = torch.tensor(cu, dtype=torch.int32)
    ends = torch.repeat_interleave(starts[:-1], starts.diff())
    positions = (torch.arange(cu[-1], dtype=torch.int32) - ends).to(device)
    segments = Segments(starts.to(device), positions, max(found), build(cu).to(device))
    return qkv, do, segments, found


def sdpa_each(q, k, v, segments):
    """scaled_dot_product_attention of one segment after another."""
    attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True)
    starts = _host_starts(segments)
    if len(starts) > EACH_LIMIT:
        raise Absent(f"{len(starts) - 1} calls take too long")
    pieces = [[x[a:b].transpose(0, 1)[None] for x in (q, k, v)] for a, b in pairwise(starts)]
    return torch.cat([attend(*piece)[0].transpose(0, 1) for piece in pieces])


@cache
def _host_starts(segments) -> list[int]:
    return segments.cu_seqlens_S1.tolist()


def sdpa_mask(q, k, v, segments):
    """scaled_dot_product_attention once, with a block-diagonal causal mask."""
    x = (t.transpose(0, 1)[None] for t in (q, k, v))
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(*x, attn_mask=_mask(segments))[0].transpose(0, 1)


@cache
def _mask(segments) -> torch.Tensor:
    tokens = len(segments.positions_N)
    if tokens > DENSE_LIMIT:
        raise Absent(f"a mask of {tokens}² is not affordable")
    rows = torch.arange(tokens, device=segments.positions_N.device)
    first = (rows - segments.positions_N)[:, None]
    return ((rows <= rows[:, None]) & (rows >= first))[None, None]


def flex() -> Callable:
    """Compiled flex_attention with a block mask, which is made once a batch, like a work list."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    block_mask = cache(document_mask)

    def attend(q, k, v, segments):
        x = (t.transpose(0, 1)[None] for t in (q, k, v))
        return compiled(*x, block_mask=block_mask(segments))[0].transpose(0, 1)

    return attend


def document_mask(segments):
    """Flex's block mask of packed causal segments, by the end of each key's segment: one load a
    key, which vectorises, where comparing two document numbers takes two (torchtitan #3462)."""
    from torch.nn.attention.flex_attention import create_block_mask

    starts = segments.cu_seqlens_S1.long()
    ends_N = torch.repeat_interleave(starts[1:], starts.diff())
    inside = lambda b, h, q, k: (k <= q) & (q < ends_N[k])
    size, device = len(ends_N), ends_N.device
    return create_block_mask(inside, None, None, size, size, device, _compile=device.type == "cuda")


def cudnn() -> Callable:
    """cuDNN's attention through PyTorch's jagged tensors."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    jagged = torch.nested.nested_tensor_from_jagged

    def attend(q, k, v, segments):
        starts, longest = segments.cu_seqlens_S1, segments.max_seqlen
        x = (jagged(t, starts, max_seqlen=longest).transpose(1, 2) for t in (q, k, v))
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            out = torch.nn.functional.scaled_dot_product_attention(*x, is_causal=True)
        return out.transpose(1, 2).values()

    return attend


def peer(make: Callable, *arguments) -> Callable[[], dispatch.Attend]:
    """A maker of attend(q, k, v, segments) as a maker of what the model calls."""
    return lambda: dispatch.apart(make(*arguments))


PROVIDERS: dict[str, Callable[[], dispatch.Attend]] = {
    "ours": lambda: dispatch.load("fused"),
    **{name: peer(peers.flash_attention, name, False) for name in peers.FLASH_MODULES},
    **{f"{name} repeatable": peer(peers.flash_attention, name) for name in peers.FLASH_MODULES},
    "torch varlen": peer(peers.torch_varlen),
    "torch varlen repeatable": peer(peers.torch_varlen),
    "cuDNN": peer(cudnn),
    "flex": peer(flex),
    "sdpa each": peer(lambda: sdpa_each),
    "sdpa mask": peer(lambda: sdpa_mask),
    "plain": lambda: dispatch.load("plain"),
}
KERNELS_ALONE = {name for name in PROVIDERS if name not in ("sdpa each", "sdpa mask", "plain")}


def measure(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Rows for every shape and mode beside all but flex."""
    return compared(SHAPES, [p for p in PROVIDERS if p != "flex"], seconds, notes)


def beside_flex(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Rows of ours and flex, which compiles for half a minute a shape."""
    shapes = [(name, HEADS, 64) for name in sized(FLEX_NAMES, FLEX_NAMES[:1])]
    return compared(shapes, ["ours", "flex"], seconds, notes)


def compared(shapes, providers, seconds: float, notes) -> Iterator[dict]:
    """Rows of the providers that work; `notes` is told who cannot run, and why. Ours must."""
    for name, heads, dim in shapes:
        qkv, do, segments, found = inputs(name, heads, dim)
        attends = working(qkv, segments, name, providers, notes)
        for mode in MODES:
            calls, timers = {}, {}
            for provider, attend in attends.items():
                if mode == "forward" and provider.endswith("repeatable"):
                    continue  # the same kernel
                try:
                    call = call_of(attend, provider, mode, qkv, do, segments)
                    call()
                    timer = "stream"
                    if mode == "forward" and provider in KERNELS_ALONE:
                        call, timer = graphed(call)
                    calls[provider], timers[provider] = call, timer
                except Exception as error:
                    if provider == "ours":
                        raise
                    notes(f"{provider}, {mode}, {name}: {first_line(error)}")
            shape = f"{name}, {sum(found)} tokens, {heads} heads, hd{dim}, bf16"
            samples = interleaved(calls, DEVICE, seconds)
            yield from _rows(samples, timers, mode, shape, found, heads, dim)
        _mask.cache_clear()
        _host_starts.cache_clear()
        del qkv, do, segments, attends, calls
        torch.compiler.reset()  # or the next shape is compiled for any shape, or not at all
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def rotated(seconds: float, notes: Callable[[str], None]) -> Iterator[dict]:
    """Rotary positions and attention: ours rotates in its loads, others in a pass before."""
    compiled, varlen = torch.compile(_rotated, dynamic=False), peers.torch_varlen()
    ours = PROVIDERS["ours"]()
    for name in sized(ROTATED_NAMES, ROTATED_NAMES[:1]):
        qkv, do, segments, found = inputs(name, HEADS, 64)
        angles = rotary_table(segments.max_seqlen, 64, DEVICE)
        segments = replace(segments, angles=angles)
        attends = {
            "ours": ours,
            "ours, rotated apart": lambda x, n, s: ours(
                _rotated_apart(_rotated, x, s), n, replace(s, angles=None)
            ),
        }
        if DEVICE == "cuda":
            by_compile = lambda x, n, s: varlen(*_rotated_apart(compiled, x, s).split(n, dim=1), s)
            attends["varlen, rotated by compile"] = by_compile
        for mode in MODES:
            calls = {p: call_of(a, p, mode, qkv, do, segments) for p, a in attends.items()}
            samples = interleaved(calls, DEVICE, seconds)
            shape = f"{name}, {sum(found)} tokens, {HEADS} heads, hd64, bf16"
            timers = dict.fromkeys(calls, "stream")
            yield from _rows(samples, timers, mode, shape, found, HEADS, 64, op="rotated_attention")


def _rotated_apart(rotate, qkv_NOZ, segments):
    q_NHZ, k_NKZ, v_NKZ = qkv_NOZ.chunk(3, dim=1)
    return torch.cat([*rotate(q_NHZ, k_NKZ, segments), v_NKZ], dim=1)


def _rotated(q_NHZ, k_NKZ, segments):
    return rotary(q_NHZ, *segments.angles_N), rotary(k_NKZ, *segments.angles_N)


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def key_heads(qkv) -> int:
    """As many as query heads."""
    return qkv.shape[1] // 3


def working(qkv, segments, name: str, providers, notes) -> dict[str, Callable]:
    """The providers that run here and give what ours gives."""
    ours = PROVIDERS["ours"]()
    expected = ours(qkv, key_heads(qkv), segments)
    found = {"ours": ours}
    for provider in providers:
        if provider == "ours":
            continue
        try:
            attend = PROVIDERS[provider]()
            error = (attend(qkv, key_heads(qkv), segments) - expected).abs().max().item()
            if not error < 0.05:
                raise Absent(f"differs from ours by {error}")
            found[provider] = attend
        except Exception as error:  # a peer's own failure must not stop the others
            notes(f"{provider}, {name}: {first_line(error)}")
    return found


def call_of(attend, provider: str, mode: str, qkv, do, segments) -> Callable[[], object]:
    """The call to be timed. backward: the graph of one forward, kept, differentiated again."""
    if mode == "forward":

        def forward():
            with torch.no_grad():
                return attend(qkv, key_heads(qkv), segments)

        return forward
    leaves = [qkv.detach().requires_grad_()]
    repeatable = provider == "torch varlen repeatable"

    def gradients(out):
        # Not warn_only, which leaves ATen's flash backward as it is; an operation that cannot
        # repeat raises. Filling every empty tensor with NaN would be charged to the peer.
        torch.use_deterministic_algorithms(repeatable)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            return torch.autograd.grad(out, leaves, do, retain_graph=mode == "backward")
        finally:
            torch.use_deterministic_algorithms(False)

    if mode == "backward":
        kept = attend(*leaves, key_heads(qkv), segments)
        return lambda: gradients(kept)
    return lambda: gradients(attend(*leaves, key_heads(qkv), segments))


def _rows(
    samples, timers, mode, shape, found, heads, dim, op: str = "packed_attention"
) -> Iterator[dict]:
    work = cost.flops(found, heads, dim, mode)
    moved = cost.bytes_moved(found, heads, heads, dim, mode)
    ceiling = roofs.roof(provenance()["device"])
    for provider, values in samples.items():
        times = percentiles(values)
        key = {"op": op, "provider": provider, "mode": mode, "shape": shape}
        key |= {"timer": timers[provider], "longest": max(found)}
        yield key | {"metric": "us"} | scaled(times, 1e6)
        speed = rate(times, work / 1e12)
        yield key | {"metric": "TFLOP/s"} | speed
        if ceiling:
            floor = ceiling.seconds(work, moved)
            yield key | {"metric": "share of roof", "roof": ceiling.name} | rate(times, floor)
