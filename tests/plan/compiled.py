"""Bytes a token that a compiled block keeps, as torch.compile makes it for a GPU; no GPU is needed.

A process of its own, as for `ldm.bench.launches`.
"""

import torch
from torch.autograd.graph import saved_tensors_hooks

from ldm.bench import launches, parts
from ldm.bench.lengths import lengths

TOKENS = 16_384


def main() -> None:
    found = lengths("exp 256", TOKENS)
    block, arguments = parts.block(found)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with launches.recording():
        given = arguments(found)
        weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            block(*given)
    print(sum(size for place, size in kept.items() if place not in weights) / TOKENS)


if __name__ == "__main__":
    main()
