import pytest
import torch

from ldm.bench.synthetic import packed_batch
from ldm.kernels.token_embedding import cpu, naive

ROWS, WIDTH = 20, 10


def one_by_one(table, features, patch, norm, tokens):
    out = []
    patches = dict(zip(tokens.patch_tokens_P.tolist(), tokens.patches_PX.double()))
    for i, kind in enumerate(tokens.kinds_N.tolist()):
        e = torch.zeros(WIDTH, dtype=table.dtype)
        for j in range(tokens.bag_offsets_N1[i], tokens.bag_offsets_N1[i + 1]):
            e = e + table[tokens.bag_ids_B[j]]
        if kind in (1, 2):
            e = e + tokens.features_NF[i].to(e.dtype) @ features[kind - 1]
        if i in patches:
            e = e + (2 * patches[i] / 255 - 1).to(e.dtype) / len(patch) ** 0.5 @ patch
        out.append(e / (e.pow(2).mean() + 1e-6).sqrt() * norm)
    # every weight has a gradient, even where there is no patch or no bag
    return torch.stack(out) + 0 * patch.sum() + 0 * table.sum()


@pytest.mark.parametrize("version", [naive, cpu])
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

    def op(*weights):
        data = (tokens.kinds_N, tokens.bag_ids_B, tokens.bag_offsets_N1, tokens.features_NF)
        return version.token_embedding(
            *weights, *data, tokens.patches_PX, tokens.patch_tokens_P, *order
        )

    agree(op, lambda *weights: one_by_one(*weights, tokens), weights)


def test_the_gradient_of_a_row_in_every_bag_is_summed_in_full_precision():
    """65,536 gradients of 1 sum to 65,536, which steps of bf16 would never reach."""
    count = 65_536
    table = torch.zeros(2, 4, requires_grad=True)
    ids, offsets = torch.zeros(count, dtype=torch.int32), torch.arange(count + 1).int()
    cpu._BagSum.apply(table, ids, offsets, None).sum().backward()
    assert table.grad.tolist() == [[count] * 4, [0] * 4]
