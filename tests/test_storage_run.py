"""The whole flow by the command with its data in a store of objects: the same as on disk, in
processes of this machine and on a Ray cluster that loses workers."""

import json
import os

import pytest

from tests.test_pipeline import RECIPE, finish, lose_workers

server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with the bucket "data", for this process and those it starts."""
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    import s3fs

    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.mkdir("data")
    yield store
    running.stop()


@pytest.mark.slow
def test_a_run_with_its_data_in_a_bucket_ends_as_on_disk(store, tmp_path):
    ends = {}
    for name, extra in (
        ("disk", ()),
        ("store", ("--storage", "s3://data/store")),
        ("ray", ("--storage", "s3://data/ray", "--runner", "ray")),
    ):
        if name == "ray":
            pytest.importorskip("ray")
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tiny.toml").write_text(RECIPE)
        if name == "ray":
            lose_workers(folder, *extra)
            finish(folder, "report", "tiny.toml", *extra)
        else:
            finish(folder, "run", "tiny.toml", *extra)
        run, manifests = folder / "runs/tiny", {}
        for part in ("data", "mix"):
            assert (run / part / "manifest.json").exists() is (name == "disk")
            if name == "disk":
                manifests[part] = json.loads((run / part / "manifest.json").read_bytes())
            else:
                place = f"data/{name}/tiny/{part}"
                manifests[part] = json.loads(store.cat_file(f"{place}/manifest.json"))
                assert f"{place}/.lock" not in store.ls(place)
        report = json.loads((run / "report.json").read_bytes())
        ends[name] = [manifests, report["environments"], report["summary"]]
        assert os.listdir(run / "train/checkpoints")
    assert ends["disk"] == ends["store"] == ends["ray"]
    assert {f.suffix for f in (tmp_path / "cache").iterdir()} == {".tar"}
