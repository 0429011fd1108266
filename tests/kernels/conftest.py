"""What the tests of single operations share: outputs and every gradient against fp64."""

import pytest
import torch


def outputs_and_gradients(op, inputs, dtype):
    """Output and the gradients of all floating inputs, computed in `dtype`, rerotated in fp64."""
    cast = [x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x for x in inputs]
    out = op(*cast)
    generator = torch.Generator().manual_seed(1)
    grad_out = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    leaves = [x for x in cast if x.requires_grad]
    return [t.double() for t in (out, *torch.autograd.grad(out, leaves, grad_out.to(out.dtype)))]


@pytest.fixture
def agree():
    """agree(op, reference, inputs, plain): `op` equals `reference` in fp64.

    With `plain`, the op in plain PyTorch: in bf16 `op` is at most twice as far from fp64 as that.
    """

    def check(op, reference, inputs, plain=None):
        exact = outputs_and_gradients(reference, inputs, torch.float64)
        for i, (got, want) in enumerate(
            zip(outputs_and_gradients(op, inputs, torch.float64), exact, strict=True)
        ):
            torch.testing.assert_close(
                got, want, rtol=1e-9, atol=1e-10, msg=lambda m, i=i: f"{i}: {m}"
            )
        if plain is None or plain is op:
            return
        ours = outputs_and_gradients(op, inputs, torch.bfloat16)
        theirs = outputs_and_gradients(plain, inputs, torch.bfloat16)
        for i, (got, peer, want) in enumerate(zip(ours, theirs, exact)):
            limit = 2 * (peer - want).norm() + 1e-3 * want.norm()
            assert (got - want).norm() <= limit, f"bf16, {i}: {(got - want).norm()} > {limit}"

    return check
