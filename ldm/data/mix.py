"""The mix stage: recorded shards become the training set, globally shuffled and mixture-weighted.

    mix/stream-000/shard-00000.tar   samples of up to BLOCK segments each (encoded.Encoded)
    mix/stream-000/shard-00000.npy   int32 (segments, 4): tokens, bag entries, labels, patches
    mix/manifest.json                streams and shards with their checksums, settings, environments

Two passes, none of which holds more than one shard: each recorded shard is encoded and its segments
are dealt at random to the shards of the mix; then each shard of the mix collects its segments and
shuffles them. The result is a pure function of the recorded data, the recipe's seed, and its
`tokens`, `mix` and `hold_out` settings.
"""

import fnmatch
import hashlib
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ldm.config import Recipe, TokenConfig, build
from ldm.data import encoded, facts, fidelity
from ldm.data.atomic import folder_lock, replacing, write_bytes
from ldm.data.codec import Codec
from ldm.data.encoded import Encoded, Limits
from ldm.data.manifest import WHOLE, read_environment, read_manifest, write_manifest
from ldm.data.modes import decide
from ldm.data.samples import Damage, read_tar, write_tar
from ldm.data.sealed import checksum
from ldm.data.verify import LIST, read_recorded
from ldm.errors import LdmError, nearest
from ldm.parallel.jobs import run_jobs
from ldm.parallel.progress import console
from ldm.seeds import seed_for

BLOCK = 1024  # segments a sample holds at most
SHARD_TOKENS = 1 << 19  # tokens a shard of the mix holds, about
PARTS = ".parts"  # what the first pass leaves for the second


def mix_stage(recipe: Recipe, folder: Path) -> None:
    """Mixes folder/data into folder/mix, unless that is already there for this data and recipe.

    Base tasks that are held out never enter. Raises LdmError for a damaged recorded shard, a weight
    or a hold_out that names nothing, too few segments for the streams, a bin that
    is smaller than the context, a folder another run holds, or a full disk.
    """
    data, mix = Path(folder) / "data", Path(folder) / "mix"
    with folder_lock(mix):
        recorded = read_recorded(data)
        settings = {
            "schema": encoded.SCHEMA,
            "data": recorded["checksum"],
            "seed": recipe.seed,
            "tokens": asdict(recipe.tokens),
            "mix": asdict(recipe.mix),
            "hold_out": recipe.hold_out,
        }
        if _made(mix, settings):
            return
        environments = _chosen(recipe, recorded["environments"])
        _tell_skipped(environments, data)
        asked = [(environment, recipe.tokens, data) for environment in environments]
        environments = run_jobs(known, asked, recipe.workers, "facts", lambda job: job[0]["id"])
        fidelity.tell(environments, recipe.tokens)
        _clear(mix, settings)
        shards = _shards_per_stream(recipe, environments)
        jobs = [
            (recipe, data, mix, shards * recipe.mix.streams, environments[e], e, s)
            for e, environment in enumerate(environments)
            for s, entry in enumerate(environment["shards"])
            if WHOLE not in entry.get("skip", {})
        ]
        parts = run_jobs(encode_part, jobs, recipe.workers, "encode", lambda job: job[4]["id"])
        collects = [
            (recipe, mix, parts, stream, shard)
            for stream in range(recipe.mix.streams)
            for shard in range(shards)
        ]
        entries = run_jobs(collect, collects, recipe.workers, "mix", lambda job: f"stream {job[3]}")
        streams = [entries[i * shards : (i + 1) * shards] for i in range(recipe.mix.streams)]
        streams = [[shard for shard in stream if shard["segments"]] for stream in streams]
        if [] in streams:
            raise LdmError(
                f"{recipe.name}: no segment is left for stream {streams.index([])} of "
                f"{len(streams)}; record more transitions, or lower mix.streams"
            )
        shortest = min(shard["shortest"] for stream in streams for shard in stream)
        content = {"settings": settings, "environments": environments, "streams": streams}
        write_manifest(mix, {**content, "shortest": shortest})
        shutil.rmtree(mix / PARTS)


def known(environment: dict, tokens: TokenConfig, data: Path) -> dict:
    """The entry with its facts, which encoding and acting share; how its actions are decoded is
    decided from its first shard that has not been left out."""
    decided = {**environment, "facts": facts.derive(environment)}
    codec = Codec(decided, tokens)
    if codec.components.smooth.any():
        whole = [s for s in environment["shards"] if WHOLE not in s.get("skip", {})]
        only = {**environment, "shards": whole[:1]}
        for _, trajectories in read_environment(data, only):
            decided["facts"]["decode"] = decide(codec, [t for t in trajectories if len(t)])
    decided["facts"]["fidelity"] = fidelity.findings(decided, tokens)
    return decided


def limits(manifest: dict) -> Limits:
    """What bounds the numbers in a mix. Raises LdmError where an environment cannot be encoded."""
    tokens = build(TokenConfig, manifest["settings"]["tokens"], "manifest.json of the mix: tokens")
    codecs = [Codec(environment, tokens) for environment in manifest["environments"]]
    classes = [int(codec.components.classes.max(initial=1)) for codec in codecs]
    return Limits(tokens.rows, max(classes, default=1), len(codecs))


def read_block(mix: Path, entry: dict, limits: Limits) -> Encoded:
    """All segments of one shard of the mix, verified. Raises LdmError where it is not what the
    manifest says, or holds a number beyond the limits of the mix."""
    path, again = mix / entry["name"], f'delete {mix} and run "ldm mix" again'
    samples = read_tar(path, entry, again)
    try:
        block = encoded.concatenate([Encoded.decode(*sample) for sample in samples.values()])
    except Damage as error:
        raise LdmError(f"shard {path}: not a block of segments: {error}; {again}") from error
    if len(block) != (said := entry["segments"]):
        raise LdmError(f"shard {path} has {len(block)} segments, its manifest says {said}; {again}")
    if wrong := block.problem(limits):
        raise LdmError(f"shard {path}: {wrong}; {again}")
    return block


def encode_part(
    recipe: Recipe, data: Path, mix: Path, buckets: int, environment: dict, index: int, shard: int
) -> Path:
    """First pass, one recorded shard: a zip with the segments that each of `buckets` shards of the
    mix gets from it."""
    path = mix / PARTS / f"{index:05d}-{shard:05d}.zip"
    seal = path.with_suffix(".sha256")  # written last: a zip's own directory has no checksum
    if path.is_file() and seal.is_file() and seal.read_bytes() == _digest(path):
        return path
    rng = np.random.default_rng(seed_for("mix", recipe.seed, environment["id"], shard))
    spans = environment["hidden_state_spans_episodes"]
    only = {**environment, "shards": [environment["shards"][shard]]}
    trajectories = [t for _, part in read_environment(data, only) for t in part]
    block = encoded.encode(
        Codec(environment, recipe.tokens), trajectories, index, shard, spans, rng
    )
    weight = recipe.mix.weights.get(environment["id"], 1.0)
    copies = int(weight) + (rng.random(len(block)) < weight % 1)
    chosen = np.repeat(np.arange(len(block)), copies)
    bucket = rng.integers(0, buckets, len(chosen))
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for number in np.unique(bucket):
            meta, content = block.select(chosen[bucket == number]).encode()
            file.writestr(zipfile.ZipInfo(f"{number}.json"), meta)
            file.writestr(zipfile.ZipInfo(f"{number}.zst"), content)
    write_bytes(seal, _digest(path))
    return path


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _part(path: Path, number: int) -> Encoded | None:
    """What a shard of the mix gets from one part. Raises LdmError where the part is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            if f"{number}.json" not in file.NameToInfo:
                return None
            members = [file.getinfo(f"{number}.{suffix}") for suffix in ("json", "zst")]
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its members are packed")
            return Encoded.decode(*map(file.read, members))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, *Damage) as error:
        raise LdmError(f'{path} is damaged ({error}); delete it and run "ldm mix" again') from error


def collect(recipe: Recipe, mix: Path, parts: list[Path], stream: int, shard: int) -> dict:
    """Second pass, one shard of the mix: its manifest entry."""
    number = shard * recipe.mix.streams + stream
    blocks = [block for part in parts if (block := _part(part, number)) is not None]
    name = f"stream-{stream:03d}/shard-{shard:05d}.tar"
    if not blocks:
        return {"name": name, "segments": 0}
    block = encoded.concatenate(blocks)
    rng = np.random.default_rng(seed_for("shuffle", recipe.seed, stream, shard))
    order = rng.permutation(len(block))
    samples = (block.select(order[i : i + BLOCK]).encode() for i in range(0, len(order), BLOCK))
    written = write_tar(mix / name, samples)
    sizes = np.stack([np.diff(block.offsets[axis])[order] for axis in "NBLP"], 1).astype(np.int32)
    with replacing((mix / name).with_suffix(".npy")) as temporary, open(temporary, "wb") as file:
        np.save(file, sizes)
    return {
        "name": name,
        **written,
        "segments": len(block),
        "tokens": int(block.tokens_S.sum()),
        "transitions": int(block.steps_S.sum()),
        "shortest": int(block.tokens_S.min()),
        "index_sha256": hashlib.sha256(sizes.tobytes()).hexdigest(),
    }


def _made(mix: Path, settings: dict) -> bool:
    """Whether the mix of these settings is there, whole by name and size."""
    try:
        manifest = read_manifest(mix, "mix")
    except LdmError:
        return False
    return manifest["settings"] == settings and all(
        (mix / shard["name"]).is_file() and (mix / shard["name"]).stat().st_size == shard["bytes"]
        for stream in manifest["streams"]
        for shard in stream
    )


def _chosen(recipe: Recipe, recorded: list[dict]) -> list[dict]:
    """The environments to mix."""
    names = [environment["id"] for environment in recorded]
    for name, weight in recipe.mix.weights.items():
        if name not in names and name not in recipe.environments:
            raise LdmError(
                f'mix.weights: no environment "{name}" in the recorded data{nearest(name, names)}'
            )
        if weight < 0:
            raise LdmError(f"mix.weights: {name} has weight {weight}, expected 0 or more")
    if recipe.mix.bin_tokens < recipe.tokens.context:
        raise LdmError(
            f"mix.bin_tokens is {recipe.mix.bin_tokens}, a segment has up to "
            f"{recipe.tokens.context} tokens (tokens.context): raise mix.bin_tokens"
        )
    tasks = {environment["base_task"] for environment in recorded}
    for name in recipe.hold_out:
        if name != "rule" and not fnmatch.filter(tasks, name):
            raise LdmError(f'hold_out: no base task "{name}" in the recipe{nearest(name, tasks)}')
    chosen = [
        e
        for e in recorded
        if not recipe.holds_out(e["base_task"], e["held_out"])
        and recipe.mix.weights.get(e["id"], 1.0) > 0
    ]
    if not chosen:
        raise LdmError(
            f"{recipe.name}: every recorded environment is held out or has weight 0; hold_out = [] "
            "holds none out"
        )
    return chosen


def _tell_skipped(environments: list[dict], data: Path) -> None:
    """Says what the skip list leaves out."""
    for environment in environments:
        if skipped := sum(len(shard.get("skip", ())) for shard in environment["shards"]):
            line = f"left out of {environment['id']}, as {data / LIST} says: {skipped} broken parts"
            console.print(line, style="yellow", markup=False, highlight=False)


def _clear(mix: Path, settings: dict) -> None:
    """Removes another recipe's mix, manifest first; parts of a killed run of this one stay."""
    (mix / "manifest.json").unlink(missing_ok=True)
    for stream in mix.glob("stream-*"):
        shutil.rmtree(stream)
    parts, key = mix / PARTS, mix / PARTS / "key"
    if not key.is_file() or key.read_bytes() != checksum(settings).encode():
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        key.write_text(checksum(settings))


def _shards_per_stream(recipe: Recipe, environments: list[dict]) -> int:
    tokens = sum(
        Codec(e, recipe.tokens).tokens_per_step
        * e["transitions"]
        * recipe.mix.weights.get(e["id"], 1.0)
        for e in environments
    )
    return max(1, round(tokens / recipe.mix.streams / SHARD_TOKENS))
