import pytest
import torch

from ldm.config import TokenConfig
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture

torch.set_num_threads(1)  # threads would only wait for each other: the models are tiny


@pytest.fixture
def tokens():
    return TokenConfig(rows=512, context=30, action_bins=9)


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}
    return Decoder(architecture("nano", **sizes, rows=512, classes=16, patch_bytes=256, owners=8))
