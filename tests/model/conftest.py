import pytest
import torch

from ldm.model.decoder import Decoder
from ldm.model.presets import architecture


@pytest.fixture
def small():
    """Builds a small decoder with fixed weights; keywords change its sizes."""

    def build(**changes) -> Decoder:
        torch.manual_seed(0)
        sizes = {"layers": 3, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 48}
        sizes |= {"rows": 512, "classes": 16, "slots": 8}
        return Decoder(architecture("nano", **sizes | changes))

    return build
