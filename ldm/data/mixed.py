"""A shard of the mix: shuffled segments of all environments, in blocks.

    mix/stream-000/shard-00000.tar   samples of one block of segments each (encoded.Encoded)
    mix/stream-000/shard-00000.npy   int32 (segments, 4): tokens, bag entries, labels, patches

A block is what a reader unpacks at once: all blocks of a shard have equally many segments, give or
take one, of BLOCK_BYTES together at most, about.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from ldm.config import TokenConfig, build
from ldm.data.atomic import replacing
from ldm.data.codec import Codec
from ldm.data.door import read_bytes
from ldm.data.encoded import Encoded, Limits, gather
from ldm.data.samples import Damage, Sample, read_tar, write_tar
from ldm.errors import LdmError

BLOCK_BYTES = 16 << 20  # of a block's arrays, about
HEADER = 4096  # bytes of a .npy file before its numbers at most


def write(
    mix: Path, name: str, blocks: list[Encoded], rng: np.random.Generator
) -> tuple[dict, dict[str, str]]:
    """Writes the segments of some blocks, shuffled by `rng`, as a shard: its manifest entry, and
    the SHA-256 of each of its files."""
    lengths = [len(block) for block in blocks]
    order = rng.permutation(sum(lengths))
    source = np.repeat(np.arange(len(blocks), dtype=np.int32), lengths)[order]
    segment = np.concatenate([np.arange(n) for n in lengths])[order]
    count = round(sum(block.nbytes for block in blocks) / BLOCK_BYTES)
    count = min(max(1, count), len(order))
    edges, rows, largest, steps = block_edges(len(order), count), [], 0, 0

    def samples():
        nonlocal largest, steps
        for start, end in pairwise(edges):
            block = gather(blocks, source[start:end], segment[start:end])
            rows.append(np.stack([np.diff(block.offsets[axis]) for axis in "NBLP"], 1))
            largest, steps = max(largest, block.nbytes), steps + int(block.steps_S.sum())
            yield block.encode()

    written = write_tar(mix / name, samples())
    sizes = np.concatenate(rows).astype(np.int32)
    path = (mix / name).with_suffix(".npy")
    with replacing(path) as temporary, open(temporary, "w+b") as file:
        np.save(file, sizes)
        file.seek(0)
        index = hashlib.file_digest(file, "sha256").hexdigest()
    files = {name: written["sha256"], str(Path(name).with_suffix(".npy")): index}
    entry = {
        "name": name,
        **written,
        "segments": len(sizes),
        "blocks": len(edges) - 1,
        "largest": largest,
        "tokens": int(sizes[:, 0].sum()),
        "transitions": steps,
        "shortest": int(sizes[:, 0].min()),
        "index_sha256": hashlib.sha256(sizes.tobytes()).hexdigest(),
    }
    return entry, files


def block_edges(segments: int, blocks: int) -> np.ndarray:
    """Where each block of a shard starts, and the last ends; int64."""
    return np.arange(blocks + 1) * segments // blocks


def limits(manifest: dict) -> Limits:
    """What bounds the numbers in a mix. Raises LdmError where an environment cannot be encoded."""
    tokens = build(TokenConfig, manifest["settings"]["tokens"], "manifest.json of the mix: tokens")
    codecs = [Codec(environment, tokens) for environment in manifest["environments"]]
    classes = [int(codec.components.classes.max(initial=1)) for codec in codecs]
    return Limits(tokens.rows, max(classes, default=1), len(codecs))


def read_samples(mix: Path, entry: dict) -> list[Sample]:
    """The blocks of one shard, still packed. Raises LdmError where it is not what the manifest
    says."""
    samples = read_tar(mix / entry["name"], entry, _again(mix))
    if len(samples) != entry["blocks"]:
        raise LdmError(
            f"shard {mix / entry['name']} has {len(samples)} blocks, its manifest.json says "
            f"{entry['blocks']}; {_again(mix)}"
        )
    return list(samples.values())


def decode(mix: Path, entry: dict, number: int, sample: Sample, limits: Limits) -> Encoded:
    """Block `number` of a shard. Raises LdmError where it is not what the manifest says, or holds a
    number beyond the limits of the mix."""
    path, edges = mix / entry["name"], block_edges(entry["segments"], entry["blocks"])
    try:
        block = Encoded.decode(*sample)
    except Damage as error:
        raise LdmError(f"shard {path}: not a block of segments: {error}; {_again(mix)}") from error
    if len(block) != (said := int(edges[number + 1] - edges[number])):
        raise LdmError(
            f"shard {path}: block {number} has {len(block)} segments, its manifest.json says "
            f"{said}; {_again(mix)}"
        )
    if block.nbytes > entry["largest"]:
        raise LdmError(
            f"shard {path}: block {number} has {block.nbytes} bytes, its manifest.json says at "
            f"most {entry['largest']}; {_again(mix)}"
        )
    if wrong := block.problem(limits):
        raise LdmError(f"shard {path}: block {number}: {wrong}; {_again(mix)}")
    return block


def read_blocks(mix: Path, entry: dict, limits: Limits) -> list[Encoded]:
    """All blocks of one shard. Errors as for `read_samples` and `decode`."""
    samples = read_samples(mix, entry)
    return [decode(mix, entry, i, sample, limits) for i, sample in enumerate(samples)]


def read_index(mix: Path, entry: dict) -> np.ndarray:
    """int32 (segments, 4): tokens, bag entries, labels, patches. Raises LdmError where it is not
    what the manifest says."""
    path = (mix / entry["name"]).with_suffix(".npy")
    size = 16 * entry["segments"]
    content = read_bytes(path, _again(mix), size + HEADER)
    rows = content[-size:]  # what is before them is numpy's header, of a form that is known
    if len(rows) != size or hashlib.sha256(rows).hexdigest() != entry["index_sha256"]:
        raise LdmError(f"{path} is damaged: it is not what its manifest.json says; {_again(mix)}")
    return np.frombuffer(rows, "<i4").reshape(-1, 4)


def _again(mix: Path) -> str:
    return f'delete {mix} and run "ldm mix" again'
