"""The second pass against a plain re-computation, layer by layer."""

import dataclasses

import pytest
import torch
from model_cases import SMALL, random_model, random_tokens, state_parts

from model.mechanisms.second_pass.passes import Passes
from model.mechanisms.second_pass.settings import SecondPass
from model.state import LayerState, State

CASES = [
    SecondPass(),
    SecondPass(layer_start=2, norm=True),
    SecondPass(layer_start=1, gate="head"),
    SecondPass(gate="head", norm=True, detach=True),
]


def moved_passes(settings):
    passes = Passes(SMALL, settings)
    with torch.no_grad():
        passes.alpha += torch.randn(passes.alpha.shape, generator=torch.Generator().manual_seed(1))
    return passes


def read_once(model, tokens, starts):
    """The pass layer by layer, each from the state given for it: logits and states after it."""
    x, v_first, after = model.emb(tokens), None, []
    for block, start in zip(model.blocks, starts, strict=True):
        x, v_first, end = block(x, v_first, start, None, "reference")
        after.append(end)
    return model.project(model.ln_out(x)), after


def read_by_hand(model, tokens, state, passes):
    starts = list(map(LayerState, *(part.unbind() for part in state_parts(state))))
    _, first = read_once(model, tokens, starts)
    settings = passes.settings
    again = starts[: settings.layer_start]
    for start, end, alpha in zip(
        starts[settings.layer_start :], first[settings.layer_start :], passes.alpha, strict=True
    ):
        base = end.wkv_BHVK.detach() if settings.detach else end.wkv_BHVK
        if settings.norm:
            base = base / base.pow(2).mean((-2, -1), keepdim=True).sqrt()
        gate_H11 = alpha.double().expand(SMALL.num_heads).sigmoid()[:, None, None]
        again.append(start._replace(wkv_BHVK=start.wkv_BHVK + gate_H11 * base))
    return read_once(model, tokens, again)


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_each_layer_begins_again_from_its_own_last_state(settings):
    model, passes = random_model(dtype=torch.float64), moved_passes(settings)
    tokens = random_tokens(2, 30)
    with torch.no_grad():
        _, explicit = model(random_tokens(2, 5, seed=1))
    parameters = [passes.alpha, *model.parameters()]
    wanted, after = read_by_hand(model, tokens, explicit, passes)
    logits, state = model(tokens, explicit, acting=[passes])
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-13)
    torch.testing.assert_close(state.wkv_LBHVK, torch.stack([each.wkv_BHVK for each in after]))
    torch.testing.assert_close(
        state.att_shift_LBC, torch.stack([each.att_shift_BC for each in after])
    )
    ours, theirs = (
        torch.autograd.grad(each.square().mean(), parameters, allow_unused=True)
        for each in (logits, wanted)
    )
    torch.testing.assert_close(ours, theirs)
    plain, _ = model(tokens, explicit)
    assert (logits - plain).abs().max() > 1e-3


@pytest.mark.parametrize("settings", CASES, ids=str)
@torch.no_grad()
def test_shut_gates_are_a_second_reading_that_changes_nothing(settings):
    shut = Passes(SMALL, dataclasses.replace(settings, alpha=-200.0))
    model, tokens = random_model(), random_tokens(2, 30)
    wanted, wanted_state = model(tokens)
    logits, state = model(tokens, acting=[shut])
    assert torch.equal(logits, wanted)
    for ours, theirs in zip(state_parts(state), state_parts(wanted_state), strict=True):
        assert torch.equal(ours, theirs)


def test_the_first_position_knows_the_last_token():
    passes = Passes(SMALL, SecondPass(alpha=1.0))
    model, tokens = random_model(), random_tokens(1, 30)
    others = tokens.clone()
    others[0, -1] = (tokens[0, -1] + 1) % SMALL.vocab_size
    with torch.no_grad():
        one, other = (model(each, acting=[passes])[0][0, 0] for each in (tokens, others))
        plain, same = (model(each)[0][0, 0] for each in (tokens, others))
    assert (one - other).abs().max() > 1e-4
    assert torch.equal(plain, same)


def test_a_gate_opens_as_its_logit_says_and_zero_states_have_finite_gradients():
    model = random_model()
    for block in model.blocks:
        torch.nn.init.zeros_(block.att.value.weight)
        torch.nn.init.zeros_(block.att.key.weight)
    passes = Passes(SMALL, SecondPass(norm=True, gate="head"))
    logits, _ = model(random_tokens(1, 3), State.zeros(SMALL, 1), acting=[passes])
    logits.square().mean().backward()
    assert all(each.grad.isfinite().all() for each in [passes.alpha, *model.parameters()])
    assert passes.values()["second_gate/L01.H1"] == pytest.approx(0.1192, abs=1e-4)
