import pytest
import torch

from ldm.bench.synthetic import packed_batch, slice_tokens

LENGTHS = [1, 33, 2, 64, 65, 17]


def test_segments_and_padding_do_not_see_each_other(small):
    model = small()
    batch = packed_batch(LENGTHS, patches=3, pad=9)
    hidden = model(batch)
    for start, end in zip(batch.cu_seqlens_S1[:-1].tolist(), batch.cu_seqlens_S1[1:].tolist()):
        if end > start:
            cache = model.new_cache(end - start)
            cache.take(1)
            tokens = slice_tokens(batch.tokens, torch.arange(start, end))
            alone = model.extend(tokens, torch.tensor([end - start]), cache)
            torch.testing.assert_close(alone[0], hidden[end - 1], rtol=1e-4, atol=1e-5)


def test_the_future_is_not_seen(small):
    model = small()
    batch = packed_batch([40])
    before = model(batch)
    batch.tokens.features_NG[30] += 1
    after = model(batch)
    assert torch.equal(before[:30], after[:30])
    assert not torch.isclose(before[30:], after[30:]).all(-1).any()


def test_loss_is_the_sum_over_labels_and_counts_them(small):
    model = small()
    batch = packed_batch(LENGTHS, components=3)
    total, count, losses = model.loss(batch)
    assert count == len(batch.labels.tokens_L) == len(losses)
    assert total.dtype == losses.dtype == torch.float32
    torch.testing.assert_close(total, losses.sum())
    assert (losses > 0).all()


def test_every_parameter_gets_a_gradient(small):
    model = small()
    model.loss(packed_batch(LENGTHS, components=2, patches=3))[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_bf16_stays_near_fp32(small):
    model = small()
    batch = packed_batch(LENGTHS, components=2, patches=3)
    exact, _, _ = model.loss(batch)
    exact.backward()
    wide = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    model.compute_dtype = torch.bfloat16
    rough, _, _ = model.loss(batch)
    rough.backward()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0)
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - wide[name]).norm() / wide[name].norm()
        assert error < 0.06, (name, error)


@pytest.mark.parametrize("heads", [2, 4])
def test_any_head_sharing_runs(small, heads):
    model = small(kv_heads=heads)
    assert torch.isfinite(model.loss(packed_batch([5, 1]))[0])
