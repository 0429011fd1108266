"""Passes of a model that acts, each recorded as a CUDA graph: one for each of few shapes.

Launching a pass kernel by kernel takes a host about as long as a GPU takes to compute it. So what
a pass reads is padded to a bucket and copied to where a recording reads it. PAD tokens fill up;
what they write goes to the last slot of their slab, which is no row's. How many tokens there may be
grows to what came so far, and stays: streams that begin anew have fewer, and need no other shape.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ldm.data.batch import PAD, Tokens
from ldm.model.cache import PAGE, KVCache, Part, StepLayout, step_layout
from ldm.model.decoder import Decoder
from ldm.model.graphed import Graphed
from ldm.model.memory import each_tensor, sent

MOST = 64  # recordings kept


def bucket(count: int, least: int = 8, octave: int = 8) -> int:
    """The least size that is not smaller: multiples of `least`, then so many to an octave."""
    step = max(least, (1 << max(0, (count - 1).bit_length() - 1)) // octave)
    return -(-count // step) * step


class Passes:
    """`extend` as `Decoder.extend`, from the fourth pass of a shape on as a graph.

    record: makes a callable of a function that reads and writes tensors in place.
    """

    def __init__(self, model: Decoder, record: Callable[[Callable], Callable] = Graphed):
        self.model, self.record = model, record
        self.known: dict[tuple, tuple[list, Callable]] = {}
        self.rooms: dict[tuple, tuple[int, ...]] = {}

    def extend(
        self, tokens: Tokens[torch.Tensor], counts_W: torch.Tensor, cache: KVCache, rows_W
    ) -> torch.Tensor:
        """hidden_WD. A call for few of a slab's rows, which copies keys and values, is not
        recorded."""
        layout = step_layout(counts_W, cache, rows_W)
        if any(part.slots_W is not None for part in layout.parts):
            return self.model.extend(tokens, counts_W, cache, rows_W)
        for part in layout.parts:  # a slot more than its rows, where PAD tokens write
            part.slab.hold(len(part.slab.ids) + 1, part.slab.tokens)
        inputs = list(padded(tokens, layout, self._room(tokens, layout)))
        given = tensors(inputs)
        slabs = tuple((id(part.slab), part.slab.version) for part in layout.parts)
        key = (slabs, *(tuple(tensor.shape) for tensor in given))
        found = self.known.pop(key, None)
        if found is None:
            found = self._recording(inputs, cache)
            while len(self.known) >= MOST:  # the one that was used longest ago
                del self.known[next(iter(self.known))]
        self.known[key] = found
        held, replay = found
        for place, tensor in zip(held, given):
            place.copy_(sent(tensor, place.device))
        hidden_WD = replay()[: len(counts_W)].clone()  # the next replay overwrites it
        cache.grew(rows_W, counts_W)
        return hidden_WD

    def _room(self, tokens: Tokens[torch.Tensor], layout: StepLayout) -> tuple[int, ...]:
        """Sizes for the tokens, bag entries, patches and rows of a call like this one, and for the
        tokens of each slab: the largest so far."""
        counts = [len(tokens.kinds_N) + 1, len(tokens.bag_ids_B), len(tokens.patch_tokens_P)]
        counts += [len(layout.last_W), *(len(part.padded_N) + 1 for part in layout.parts)]
        like = tuple((id(part.slab), _power(part.most)) for part in layout.parts)
        needed = tuple(map(bucket, counts))
        self.rooms[like] = tuple(map(max, needed, self.rooms.get(like, needed)))
        return self.rooms[like]

    def _recording(self, inputs: list, cache: KVCache) -> tuple[list[torch.Tensor], Callable]:
        """Where the tensors of such inputs are read, and what reads them."""
        tokens, layout = each_tensor(inputs, lambda x: torch.empty_like(x, device=cache.device))
        angles = self.model.angles(cache.capacity)
        return tensors([tokens, layout]), self.record(
            lambda: self.model.read(tokens, layout, angles)
        )


def tensors(value) -> list[torch.Tensor]:
    """Every tensor in dataclasses and lists, in order."""
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    each_tensor(value, keep)
    return found


def padded(
    tokens: Tokens[torch.Tensor], layout: StepLayout, room: tuple[int, ...]
) -> tuple[Tokens[torch.Tensor], StepLayout]:
    """The same pass with PAD tokens, empty bag entries and patches of no token up to `room`."""
    size, entries, patches, rows, *sizes = room
    more = Tokens(
        kinds_N=_filled(tokens.kinds_N, size, PAD),
        bag_ids_B=_filled(tokens.bag_ids_B, entries),
        bag_weights_B=_filled(tokens.bag_weights_B, entries),
        bag_offsets_N1=_filled(tokens.bag_offsets_N1, size + 1, int(tokens.bag_offsets_N1[-1])),
        features_NG=_filled(tokens.features_NG, size),
        patches_PX=_filled(tokens.patches_PX, patches),
        patch_tokens_P=_filled(tokens.patch_tokens_P, patches, size),
    )
    first = len(tokens.kinds_N)
    if len(sizes) == 1:  # that slab has all tokens
        sizes = [size]
    parts = [_padded(part, first, n) for part, n in zip(layout.parts, sizes)]
    positions_N = _filled(layout.positions_N, size)
    return more, StepLayout(positions_N, _filled(layout.last_W, rows), parts)


def _padded(part: Part, pad: int, size: int) -> Part:
    """pad: the first PAD token of the call."""
    rows, slab = part.rows + 1, part.slab
    most = _power(part.most)
    longest = min(bucket(part.longest, PAGE, 4), slab.tokens)
    row_N, step_N = part.padded_N // part.most, part.padded_N % part.most
    mask_WTT = torch.zeros(rows, most, longest, dtype=torch.bool)
    mask_WTT[:, :, 0] = True  # what nobody reads must be finite all the same
    mask_WTT[:-1, : part.most, : part.longest] = part.mask_W1TT[:, 0]
    return Part(
        slab=slab,
        tokens_N=None if part.tokens_N is None else _filled(part.tokens_N, size, pad),
        slots_W=None,
        rows=rows,
        places_N=_filled(part.places_N, size, part.rows * slab.tokens),
        padded_N=_filled(row_N * most + step_N, size, part.rows * most),
        most=most,
        longest=longest,
        mask_W1TT=mask_WTT[:, None],
    )


def _power(count: int) -> int:
    """The power of two that is not smaller."""
    return 1 << (count - 1).bit_length()


def _filled(values: torch.Tensor, size: int, fill: int = 0) -> torch.Tensor:
    """Up to `size` along the first axis."""
    missing = size - len(values)
    return F.pad(values, (0, 0) * (values.ndim - 1) + (0, missing), value=fill)
