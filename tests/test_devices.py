import pytest
import torch

from ldm.errors import LdmError
from ldm.parallel import devices


def test_each_process_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "_held", [])
    assert devices.processes(64, "local") == 2 and devices.processes(64, "ray") == 64
    assert [devices.claim(tmp_path).index for _ in range(2)] == [0, 1]
    with pytest.raises(LdmError, match="2 processes hold this machine's 2 GPUs already"):
        devices.claim(tmp_path)
    with pytest.MonkeyPatch.context() as patch:  # another machine, the same folder
        patch.setattr("socket.gethostname", lambda: "another")
        assert [devices.claim(tmp_path).index for _ in range(2)] == [0, 1]
    devices._held.pop(0).close()  # that process is gone
    assert devices.claim(tmp_path) == torch.device("cuda", 0)


def test_without_a_gpu_all_share_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.processes(3, "local") == 3 and devices.claim(tmp_path).type == "cpu"
    assert not list(tmp_path.iterdir())
