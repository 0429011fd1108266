from dataclasses import replace

import pytest
import torch

from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.train.engine import TorchEngine
from ldm.train.graph import GraphEngine, copy_into

SIZES = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "head_dim": 64, "ffn": 96}


def batch(seed: int):
    """Batches of one shape: bags of a fixed size, so that entries are as many."""
    made = packed_batch([20, 7, 13], seed, components=2, bag=0, pad=24)
    return replace(made, used_tokens=40 + seed)


def test_a_batch_is_copied_whole_in_place():
    target, source = batch(0), batch(1)
    places = target.labels.values_L.data_ptr()
    copy_into(target, source)
    assert target.labels.values_L.data_ptr() == places
    assert torch.equal(target.labels.values_L, source.labels.values_L)
    assert torch.equal(target.tokens.features_NG, source.tokens.features_NG)


@pytest.mark.parametrize(
    "other", [packed_batch([20, 7, 12], pad=25), replace(batch(1), max_seqlen=999)]
)
def test_another_shape_than_was_recorded_is_refused(other):
    with pytest.raises(ValueError, match=r"the recorded step has .* fixed capacities"):
        copy_into(batch(0), other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_replayed_step_is_the_step(micro_batches):
    losses, weights = [], []
    for make in (TorchEngine, GraphEngine):
        torch.manual_seed(0)
        model = Decoder(architecture("nano", **SIZES, rows=512, classes=16, slots=8, owners=8))
        engine = make(model, TrainConfig(precision="bf16", compile=False))
        found = []
        for i in range(10):
            loss = engine.backward([batch(i + part) for part in range(micro_batches)])
            norm = engine.update(1e-3 * (i + 1))
            found.append((float(loss.value), float(norm), float(loss.per_label.sum())))
        losses.append(found)
        weights.append(engine.weights())
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=0)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5, msg=name)
