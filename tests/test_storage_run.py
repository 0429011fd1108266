"""The whole flow by the command with its data in a store of objects: the same as on disk."""

import json
import os

import pytest

from tests.test_pipeline import RECIPE, finish

server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


@pytest.mark.slow
def test_a_run_with_its_data_in_a_bucket_ends_as_on_disk(tmp_path, monkeypatch):
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
    ends = []
    for name, extra in (("disk", ()), ("store", ("--storage", "s3://data/runs"))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tiny.toml").write_text(RECIPE)
        finish(folder, "run", "tiny.toml", *extra)
        run = folder / "runs/tiny"
        manifests = {}
        for part in ("data", "mix"):
            assert (run / part / "manifest.json").exists() is (name == "disk")
            if name == "disk":
                manifests[part] = json.loads((run / part / "manifest.json").read_bytes())
            else:
                manifests[part] = json.loads(store.cat_file(f"data/runs/tiny/{part}/manifest.json"))
        report = json.loads((run / "report.json").read_bytes())
        ends.append([manifests, report["environments"], report["summary"]])
    running.stop()
    assert ends[0] == ends[1]
    assert {f.suffix for f in (tmp_path / "cache").iterdir()} == {".tar"}
    assert os.listdir(tmp_path / "store/runs/tiny/train/checkpoints")
