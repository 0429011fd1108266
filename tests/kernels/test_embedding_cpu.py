import pytest
import torch

from ldm.bench.synthetic import packed_batch
from ldm.kernels.token_embedding import cpu, plain, reference

ROWS, WIDTH = 20, 10


@pytest.mark.bounds
@pytest.mark.parametrize("version", [plain, cpu])
@pytest.mark.parametrize("sorted_by", ["packer", "backward"])
@pytest.mark.parametrize(
    "case",
    [
        {"lengths": [7, 1, 12], "patches": 3, "pad": 5},
        {"lengths": [7, 1, 12], "patches": 0},
        {"lengths": [4], "bag": 0},
        {"lengths": [1]},
    ],
)
def test_token_embedding(agree, version, sorted_by, case):
    batch = packed_batch(**case, rows=ROWS)
    tokens = batch.tokens
    torch.manual_seed(0)
    weights = [torch.randn(s) for s in ((ROWS, WIDTH), (2, 64, WIDTH), (256, WIDTH), (WIDTH,))]
    order = (batch.bag_order_B if sorted_by == "packer" else None,) if version is cpu else ()

    data = (tokens.kinds_N, tokens.bag_ids_B, tokens.bag_weights_B, tokens.bag_offsets_N1)
    data = (*data, tokens.features_NG, tokens.patches_PX, tokens.patch_tokens_P)
    agree(
        "token_embedding",
        lambda *weights: version.token_embedding(*weights, *data, *order),
        lambda *weights: reference.token_embedding(*weights, *data),
        weights,
    )


def test_the_gradient_of_a_row_in_every_bag_is_summed_in_full_precision():
    """65,536 gradients of 1 sum to 65,536, which steps of bf16 would never reach."""
    count = 65_536
    table = torch.zeros(2, 4, requires_grad=True)
    ids, offsets = torch.zeros(count, dtype=torch.int32), torch.arange(count + 1).int()
    cpu._BagSum.apply(table, ids, torch.ones(count), offsets, None).sum().backward()
    assert table.grad.tolist() == [[count] * 4, [0] * 4]
