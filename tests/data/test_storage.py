"""Recorded data and the mix under s3://, in a server of this process: the same bytes as on disk."""

import json
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import webdataset
import zstandard
from examples import flat, recipe, record, run_here

from ldm.data import mix, storage
from ldm.data.loader import Loader
from ldm.data.manifest import read_environment, read_manifest
from ldm.data.shards import write_shard
from ldm.data.storage import at, place
from ldm.data.verify import verify
from ldm.errors import LdmError

server = pytest.importorskip("moto.server")
exceptions = pytest.importorskip("botocore.exceptions")
pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The URL of an empty bucket, and the address at which it answers without credentials."""
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("WDS_CACHE", str(cache))
        at("s3://data/x").fs.mkdir("data")
        yield "s3://data", f"{address}/data", cache
    running.stop()


@pytest.fixture(scope="module")
def made(bucket, tmp_path_factory):
    """The same recorded data and mix on disk, and in the bucket: two recipes and two folders."""
    folder = tmp_path_factory.mktemp("run") / "test"
    environments = record(folder)
    there = replace(recipe(), storage=bucket[0])
    target = place(there, folder, "data")
    for entry in environments:
        for shard, trajectories in read_environment(folder / "data", entry):
            made = write_shard(target / shard["name"], trajectories)
            assert made == {k: shard[k] for k in made}
    target.joinpath("manifest.json").write_bytes((folder / "data/manifest.json").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix, "run_jobs", run_here)
        patch.setattr(mix, "SHARD_BYTES", 100_000)
        mix.mix_stage(recipe(), folder)
        mix.mix_stage(there, folder)
    return there, folder


def test_the_mix_in_the_bucket_is_that_on_disk(made):
    there, folder = made
    found = place(there, folder, "mix")
    assert read_manifest(found, "mix") == read_manifest(folder / "mix", "mix")
    sizes = storage.sizes(found)
    assert sizes == {k: v for k, v in storage.sizes(folder / "mix").items() if k != ".lock"}
    for name in sizes:
        assert (found / name).read_bytes() == (folder / "mix" / name).read_bytes()
    said = verify(place(there, folder, "data"))
    assert said == verify(folder / "data") and "statistics" in " ".join(said)  # these are made up


def test_a_second_run_writes_nothing(made, monkeypatch):
    monkeypatch.setattr(mix, "run_jobs", None)
    mix.mix_stage(*made)


def test_the_loader_reads_it_and_keeps_a_cache_within_its_limit(made, bucket, monkeypatch):
    there, folder = made
    with closing(Loader(folder / "mix")) as loader:
        expected = [flat(batch) for batch in islice(loader, 20)]
    cache = bucket[2]
    shutil.rmtree(cache)

    def check():
        with closing(Loader(place(there, folder, "mix"))) as loader:
            for batch, other in zip(loader, expected):
                assert all(np.array_equal(a, other[name]) for name, a in flat(batch).items())

    check()
    shards = [s for stream in read_manifest(folder / "mix")["streams"] for s in stream]
    assert {f.stem for f in cache.iterdir()} == {shard["sha256"] for shard in shards}
    for file in cache.iterdir():  # and one that was damaged is fetched anew
        file.write_bytes(b"nothing")
    check()
    shutil.rmtree(cache)
    limit = 2 * max(shard["bytes"] for shard in shards)
    monkeypatch.setenv("WDS_CACHE_SIZE", str(limit))
    check()
    # webdataset makes room before it fetches: the newest comes on top, one for each of two threads
    assert (
        sum(f.stat().st_size for f in cache.iterdir())
        <= 2 * limit
        < sum(shard["bytes"] for shard in shards)
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="webdataset reads http:// by curl")
@pytest.mark.parametrize("part", ["data", "mix"])
def test_plain_webdataset_reads_every_shard(made, bucket, part):
    there, folder = made
    names = [name for name in storage.sizes(place(there, folder, part)) if name.endswith(".tar")]
    store = place(there, folder, part)
    store.fs.chmod(store.path, "public-read", recursive=True)  # curl has no credentials
    urls = [f"{bucket[1]}/test/{part}/{name}" for name in names]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len({sample["__url__"] for sample in samples}) == len(names) > 1
    for sample in samples:
        arrays = json.loads(sample["json"])["arrays"]
        size = sum(int(np.prod(a["shape"])) * np.dtype(a["dtype"]).itemsize for a in arrays)
        assert len(zstandard.decompress(sample["zst"])) == size


def test_what_was_changed_or_is_gone_is_named(made):
    there, folder = made
    data = place(there, folder, "data")
    entry = read_manifest(data)["environments"][0]
    path = data / entry["shards"][0]["name"]
    whole = path.read_bytes()
    shutil.rmtree(storage.os.environ["WDS_CACHE"], ignore_errors=True)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(LdmError, match=r"shard s3://data/test/data/.*00000.tar is damaged"):
        list(read_environment(data, entry))
    path.write_bytes(whole[:-512])
    with pytest.raises(LdmError, match=r"s3://data/.* it was cut short or replaced"):
        list(read_environment(data, entry))
    path.unlink()
    with pytest.raises(LdmError, match=r"s3://data/.*00000.tar is missing; .*ldm record"):
        list(read_environment(data, entry))
    path.write_bytes(whole)
    assert len(list(read_environment(data, entry))) == 2


def test_a_pipe_is_opened_nowhere(made, bucket, tmp_path, monkeypatch):
    with pytest.raises(LdmError, match=r'storage "pipe:touch .*knows no such protocol'):
        at(f"pipe:touch {tmp_path}/a")
    there, folder = made
    data = place(there, folder, "data")
    entry = read_manifest(data)["environments"][0]
    evil = [{**shard, "name": f"pipe:touch {tmp_path}/a"} for shard in entry["shards"]]
    shutil.rmtree(bucket[2], ignore_errors=True)
    for where in (data, folder / "data"):
        with pytest.raises(LdmError, match="is missing"):
            list(read_environment(where, {**entry, "shards": evil}))
    monkeypatch.setenv("GOPEN_REWRITE", f"ldm.s3:=pipe:touch {tmp_path}/a ")
    with pytest.raises(LdmError, match=r"cannot rewrite URLs"):
        list(read_environment(data, entry))
    assert not (tmp_path / "a").exists() and webdataset.utils.enforce_security is False


@pytest.mark.parametrize("where, words", [("s9://x/y", "knows no such"), ("://", "knows no such")])
def test_a_url_of_an_unknown_kind_is_refused(where, words):
    with pytest.raises(LdmError, match=rf'storage "{where}": .*{words}.*s3://bucket/folder'):
        at(where)


def test_a_store_that_does_not_answer_is_told(made, monkeypatch):
    """And a mistake of ours is not taken for that."""
    where = place(*made, "data")
    closed = exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    for error, expected in ((closed, LdmError), (AttributeError("x"), AttributeError)):

        def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr(where.fs, "info", fails)
        with pytest.raises(expected, match=r"s3://data/.*manifest.json cannot be reached|^x$"):
            read_manifest(where)


def test_nothing_is_read_or_written_without_webdataset(made, tmp_path, monkeypatch):
    _, folder = made
    entry = read_manifest(folder / "data")["environments"][0]
    ((_, trajectories), *_) = read_environment(folder / "data", entry)
    for name in list(sys.modules):
        if name.partition(".")[0] == "webdataset":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        write_shard(tmp_path / "a.tar", trajectories)
    assert not list(Path(tmp_path).iterdir())
    with closing(Loader(folder / "mix")) as loader, pytest.raises(ImportError):
        next(loader)
