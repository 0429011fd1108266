import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ldm.bench.synthetic import packed_batch
from ldm.config import TrainConfig
from ldm.errors import LdmError
from ldm.model.decoder import Decoder
from ldm.model.presets import architecture
from ldm.model.recompute import PRODUCTS
from ldm.train.engine import TorchEngine, choose_precision, load_model
from ldm.train.optimizer import block_matrices, orthogonal
from ldm.train.pieces import Pieces, write_tensors

SIZES = architecture(
    "nano", layers=2, width=32, heads=2, kv_heads=1, head_dim=64, ffn=48, rows=512, classes=16,
    slots=8,
)  # fmt: skip


def engine(precision="fp32", **settings) -> TorchEngine:
    torch.manual_seed(0)
    return TorchEngine(Decoder(SIZES), TrainConfig(precision=precision, **settings))


def batch(seed=0):
    return packed_batch([20, 7, 13], seed, components=2, pad=3)


def steps(machine, count, rate=3e-3) -> list[float]:
    losses = []
    for seed in range(count):
        losses.append(float(machine.backward([batch(seed % 2)]).value))
        machine.update(rate)
    return losses


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_overfits_two_batches(precision):
    losses = steps(engine(precision), 80)
    assert sum(losses[-2:]) < 0.5 * sum(losses[:2])


def test_the_loss_is_the_mean_over_labels_and_its_parts_are_kept():
    loss = engine().backward([batch()])
    assert loss.value == pytest.approx(float(loss.per_label.mean()), rel=1e-6)
    assert len(loss.per_label) == len(loss.environments) == len(batch().labels.tokens_L)


def test_gradients_are_clipped_to_the_norm_and_told_before_it():
    machine = engine(clip=0.01)
    machine.backward([batch()])
    before = torch.cat([p.grad.flatten() for p in machine.model.parameters()])
    machine.optimizer.zero_grad = lambda **_: None  # leave the clipped ones to look at
    assert machine.update(0.0) == pytest.approx(float(before.norm()), rel=1e-5)
    after = torch.cat([p.grad.flatten() for p in machine.model.parameters()])
    assert float(before.norm()) > 0.1 and float(after.norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(value):
    machine = engine()
    steps(machine, 2)
    before = {name: weight.clone() for name, weight in machine.model.state_dict().items()}
    state = [t.clone() for row in machine.optimizer.state.values() for t in row.values()]
    machine.backward([batch()])
    machine.model.head.out.grad[0, 0] = value
    assert not machine.update(1e-3).isfinite()
    assert all(
        torch.equal(weight, before[name]) for name, weight in machine.model.state_dict().items()
    )
    after = [t for row in machine.optimizer.state.values() for t in row.values()]
    assert all(torch.equal(*pair) for pair in zip(state, after))


def test_a_batch_without_patches_still_gives_every_weight_a_gradient():
    machine = engine()
    machine.backward([batch()])  # ranks reduce the same gradients, whatever their batches hold
    assert all(p.grad is not None for p in machine.model.parameters())


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_micro_batches_add_up_to_the_batch_whether_in_threads_or_in_turn(micro_batches):
    parts = [packed_batch([length, 5], length, components=2) for length in (9, 20, 14)]
    ours, alone = engine(micro_batches=micro_batches), engine()
    loss = ours.backward(parts)
    labels = sum(len(part.labels.tokens_L) for part in parts)
    total = sum(alone.model.loss(part)[0] for part in parts) / labels
    total.backward()
    assert loss.value == pytest.approx(float(total.detach()), rel=1e-5)
    assert len(loss.per_label) == labels
    for got, want in zip(ours.model.parameters(), alone.model.parameters()):
        torch.testing.assert_close(got.grad, want.grad)
    first = [p.grad.clone() for p in ours.model.parameters()]
    ours.backward(parts)
    assert all(torch.equal(x, p.grad) for x, p in zip(first, ours.model.parameters()))


def test_only_matrices_decay():
    machine = engine(weight_decay=0.5)
    decayed, kept = machine.optimizer.param_groups
    assert decayed["weight_decay"] == 0.5 and all(p.ndim >= 2 for p in decayed["params"])
    assert kept["weight_decay"] == 0.0 and all(p.ndim == 1 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(machine.model.parameters()))


@pytest.mark.parametrize("settings", [{}, {"optimizer": "muon"}, {"average": 0.9}])
def test_saved_and_loaded_it_goes_on_to_the_same_bits(tmp_path, settings):
    one = engine(**settings)
    steps(one, 3)
    tensors = {piece.key: (piece.values.shape, [piece.values.detach()]) for piece in one.pieces()}
    write_tensors(tmp_path / "rank.safetensors", tensors)
    held = Pieces([tmp_path / "rank.safetensors"])
    random = torch.get_rng_state()
    two = TorchEngine(load_model(SIZES, held), TrainConfig(precision="fp32", **settings))
    assert torch.equal(torch.get_rng_state(), random)  # no weights were drawn on the way
    two.load(held, one.updates)
    assert steps(one, 4) == steps(two, 4)
    pairs = zip(one.pieces(), two.pieces(), strict=True)
    assert all(a.key == b.key and torch.equal(a.values, b.values) for a, b in pairs)


def test_precision_is_as_asked_or_known_to_be_fast():
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == "fp32" and choose_precision("bf16", cpu) == "bf16"
    assert choose_precision("auto", torch.device("cuda")) == "bf16"
    with pytest.raises(LdmError, match=r'"auto", "bf16" or "fp32", got "fp16"'):
        choose_precision("fp16", cpu)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in PRODUCTS
        return function(*args, **kwargs or {})


def test_what_is_computed_again_gives_the_same_gradients_and_no_product_twice_unless_asked():
    counts, gradients = {}, {}
    for recompute in ("none", "selective", "full"):
        machine = engine(recompute=recompute)
        with Products() as products:
            machine.backward([batch()])
        counts[recompute] = products.count
        gradients[recompute] = [p.grad.clone() for p in machine.parameters]
    assert counts["none"] == counts["selective"] < counts["full"]
    for other in ("selective", "full"):
        assert all(torch.equal(*pair) for pair in zip(gradients["none"], gradients[other]))


def test_a_clip_of_zero_clips_nothing():
    wide, off = engine(clip=1e9), engine(clip=0.0)
    assert steps(wide, 3) == steps(off, 3)


def test_muon_turns_the_matrices_of_the_blocks_by_part_and_leaves_the_rest_to_adamw():
    machine, other = engine(optimizer="muon", weight_decay=0.0), engine(weight_decay=0.0)
    before = {name: weight.clone() for name, weight in machine.model.named_parameters()}
    steps(machine, 1, rate=2e-3), steps(other, 1, rate=2e-3)
    qkv = machine.model.blocks[0].qkv - before["blocks.0.qkv"]
    for part in qkv.split(block_matrices(machine.model)["blocks.0.qkv"]):  # query, key, value
        scale = 0.02 * max(1, len(part) / part.shape[1]) ** 0.5
        found = torch.linalg.svdvals(part.detach().double()) / scale
        assert 0.5 < float(found.median()) < 1.4 and float(found.max()) < 1.4
    assert torch.equal(machine.model.head.out, other.model.head.out)
    assert {k for row in machine.optimizer.state.values() for k in row} == {
        "momentum",
        "step",
        "exp_avg",
        "exp_avg_sq",
    }


def test_matrices_of_one_shape_are_turned_together_as_each_alone():
    torch.manual_seed(0)
    matrices = [torch.randn(size) for size in ((16, 16), (24, 16), (16, 24), (16, 16))]
    together = orthogonal(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        (alone,) = orthogonal([matrix])
        torch.testing.assert_close(found, alone, rtol=0, atol=0.02)
        left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        # the nearest with orthonormal rows or columns; five iterations leave values of 0.7 to 1.2
        assert float((found.double() * (left @ right)).sum()) > 0.95 * float(found.norm()) * 4
        assert float(torch.linalg.svdvals(found).min()) > 0.5


def test_users_get_the_average_of_weights_where_there_is_one():
    machine = engine(average=0.5)
    start = machine.model.head.out.detach().clone()
    expected = start.clone()
    for _ in range(3):
        steps(machine, 1)
        expected = 0.5 * expected + 0.5 * machine.model.head.out.detach()
    found = {p.name: p.values for p in machine.pieces() if p.kind == "average"}
    torch.testing.assert_close(found["head.out"].view_as(expected), expected)
