"""The WKV-7 operator: its formulae, and the chunk form against the loop in float64."""

import pytest
import torch
from model_cases import relative_error
from wkv_cases import TOLERANCES, error, make_mask, make_operands, run, spoil

from model.wkv.backends import BACKENDS
from model.wkv.dispatch import wkv7

PORTABLE = ("reference", "chunked")
"""Back ends that run on any device."""


@pytest.mark.parametrize("mask", ["none", "random"])
@pytest.mark.parametrize("with_s0", [True, False], ids=["s0", "zeros"])
@pytest.mark.parametrize("kind", ["strong", "weak", "repeated"])
@pytest.mark.parametrize("length", [1, 5, 31, 32, 33, 100])
def test_the_chunk_form_equals_the_loop_in_float64(length, kind, with_s0, mask):
    operands = make_operands(length, kind=kind)
    mask_BT = make_mask(mask, length)
    wanted = run(operands, torch.float64, "reference", mask_BT, with_s0)
    for dtype in (torch.float32, torch.float64):
        found = run(operands, dtype, "chunked", mask_BT, with_s0)
        for name, value in wanted.items():
            assert error(found[name], value) <= TOLERANCES[dtype], (name, dtype)


@pytest.mark.parametrize("backend", PORTABLE)
def test_a_step_follows_the_formula_with_rows_as_values(backend):
    r, log_decay, k, v, a, b, s0 = make_operands(2, batch=1, heads=1, size=4)
    S = s0[0, 0]
    for t in range(2):
        S = (
            S @ torch.diag(log_decay[0, t, 0].exp())
            + torch.outer(S @ a[0, t, 0], b[0, t, 0])
            + torch.outer(v[0, t, 0], k[0, t, 0])
        )
    y, sT = wkv7(r, log_decay, k, v, a, b, s0, backend=backend)
    torch.testing.assert_close(sT[0, 0], S, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(y[0, 1, 0], S @ r[0, 1, 0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", PORTABLE)
def test_the_gradients_are_those_of_finite_differences(backend):
    operands = [x.requires_grad_() for x in make_operands(5, batch=1, heads=1, size=3)]
    assert torch.autograd.gradcheck(lambda *x: wkv7(*x, backend=backend), operands)


@pytest.mark.parametrize("backend", PORTABLE)
def test_a_masked_step_is_an_identity_step_whatever_it_holds(backend):
    operands = make_operands(40)
    mask = make_mask("random", 40)
    y, sT = wkv7(*spoil(operands, mask), mask, backend)
    state = operands[6][0, 0]
    for t in range(40):
        if mask[0, t]:
            state = step(operands, t, state)
        torch.testing.assert_close(y[0, t, 0], state @ operands[0][0, t, 0])
    torch.testing.assert_close(sT[0, 0], state)


def step(operands, t, state):
    _, log_decay, k, v, a, b = (x[0, t, 0] for x in operands[:6])
    return state * log_decay.exp() + torch.outer(state @ a, b) + torch.outer(v, k)


@pytest.mark.parametrize("backend", PORTABLE)
def test_no_tokens_leave_the_state_as_it_is(backend):
    operands = make_operands(0)
    y, sT = wkv7(*operands, backend=backend)
    assert y.shape == operands[3].shape
    assert torch.equal(sT, operands[6])


@pytest.mark.parametrize("backend", ["auto", *PORTABLE])
@pytest.mark.parametrize("length", [1, 40])
def test_low_precision_operands_run_in_float32_under_autocast(backend, length):
    operands = [x.bfloat16() for x in make_operands(length)[:6]]
    exact, exact_sT = wkv7(*(x.float() for x in operands), None, backend=backend)
    leaves = [x.clone().requires_grad_() for x in operands]
    with torch.autocast("cpu", torch.bfloat16):
        y, sT = wkv7(*leaves, None, backend=backend)
        grads = torch.autograd.grad(sT.sum() + y.float().sum(), leaves)
    assert y.dtype == torch.bfloat16
    assert sT.dtype == torch.float32
    assert torch.equal(sT, exact_sT)
    assert torch.equal(y, exact.bfloat16())
    wide = [x.float().requires_grad_() for x in operands]
    y, sT = wkv7(*wide, None, backend=backend)
    for found, wanted in zip(grads, torch.autograd.grad(sT.sum() + y.sum(), wide), strict=True):
        # The gradients themselves are rounded to bfloat16.
        assert wanted.norm() == 0 or relative_error(found, wanted) < 3e-3


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'cuda'.*auto, " + ", ".join(BACKENDS)):
        wkv7(*make_operands(1), backend="cuda")
