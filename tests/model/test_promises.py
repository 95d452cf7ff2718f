"""Promises 2 and 3: off is off; one pass equals two, and padding changes nothing."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SMALL, random_model, random_tokens, state_parts

from model.future_seed import FutureSeed, Gates, Schedule
from model.state import State

PROPERTY = settings(max_examples=15, deadline=None, derandomize=True)
MODELS = {dtype: random_model(dtype=dtype) for dtype in (torch.float32, torch.float64)}
# Largest seen: 2.9e-6 and 5e-15 (values are of order 1).
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13}

lengths = st.integers(1, 45)
dtypes = st.sampled_from(list(MODELS))
seeds = st.integers(0, 5)
future_seeds = st.one_of(
    st.none(),
    st.builds(
        FutureSeed,
        layer_start=st.integers(1, 2),
        gate=st.sampled_from(["scalar", "head", "input"]),
        alpha=st.floats(-2, 2),
        schedule=st.just(Schedule("linear", 0.5, 1.0)),
        norm=st.booleans(),
        clip=st.sampled_from([0.0, 0.5]),
    ),
)


def random_gates(future_seed, seed=0):
    """Gates off their initial values, so that the input takes part."""
    if future_seed is None:
        return None
    gates = Gates(SMALL, future_seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in gates.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return gates


def random_state(batch_size, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    zeros = State.zeros(SMALL, batch_size, dtype=dtype)
    return State(*(torch.randn(x.shape, generator=generator).to(dtype) for x in state_parts(zeros)))


def assert_equal_states(found, wanted, tolerance=None):
    for ours, theirs in zip(state_parts(found), state_parts(wanted), strict=True):
        if tolerance is None:
            assert torch.equal(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def acting(settings, gates=None):
    """What acts in a small model with these settings: the gates given, or new ones."""
    return () if settings is None else (gates or Gates(SMALL, settings),)


@PROPERTY
@given(dtypes, lengths, st.integers(1, 3), future_seeds, st.booleans(), st.booleans(), seeds)
def test_off_is_off_to_the_bit(dtype, length, batch_size, future_seed, carried, masked, seed):
    future_seed = future_seed or FutureSeed()
    tokens = random_tokens(batch_size, length, seed)
    state = random_state(batch_size, dtype) if carried else None
    mask = random_tokens(batch_size, length, seed + 1, 4) > 0 if masked else None
    wanted, wanted_state = MODELS[dtype](tokens, state, mask)
    zero = dataclasses.replace(future_seed, seed_scale=0.0)
    never = Schedule("linear", 0.0, 0.0)
    for settings_, gates in (
        (None, random_gates(future_seed)),
        (zero, None),
        (zero, random_gates(zero)),
        (dataclasses.replace(future_seed, schedule=never), None),
    ):
        logits, found_state = MODELS[dtype](tokens, state, mask, acting(settings_, gates))
        assert torch.equal(logits, wanted)
        assert_equal_states(found_state, wanted_state)


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_a_gate_that_rounds_to_zero_is_off_to_the_bit(gate):
    future_seed = FutureSeed(gate=gate, alpha=-200.0)
    tokens = random_tokens(2, 40)
    logits, state = MODELS[torch.float32](tokens, acting=acting(future_seed))
    wanted, wanted_state = MODELS[torch.float32](tokens)
    assert torch.equal(logits, wanted)
    assert_equal_states(state, wanted_state)


def test_future_seed_changes_the_early_positions():
    tokens = random_tokens(1, 40)
    off, _ = MODELS[torch.float64](tokens)
    on, _ = MODELS[torch.float64](tokens, acting=acting(FutureSeed(alpha=2.0)))
    assert (on - off)[0, 0].abs().max() > 0.01


@PROPERTY
@given(dtypes, lengths, st.integers(1, 6), future_seeds, st.booleans(), seeds)
def test_one_pass_equals_two(dtype, first, second, future_seed, carried, seed):
    model, tolerance = MODELS[dtype], TOLERANCE[dtype]
    tokens = random_tokens(2, first + second, seed)
    state = random_state(2, dtype) if carried else None
    if future_seed is None:
        wanted, wanted_state = model(tokens, state)
        head, between = model(tokens[:, :first], state)
        tail, final = model(tokens[:, first:], between)
        torch.testing.assert_close(torch.cat([head, tail], 1), wanted, rtol=0, atol=tolerance)
        assert_equal_states(final, wanted_state, tolerance)
    # With the seed in the prompt's pass: any cut of what follows gives the same.
    head, between = model(
        tokens[:, :first], state, None, acting(future_seed, random_gates(future_seed))
    )
    wanted, wanted_state = model(tokens[:, first:], between)
    rows, final = [], between
    for t in range(first, first + second):
        row, final = model(tokens[:, t : t + 1], final)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, 1), wanted, rtol=0, atol=tolerance)
    assert_equal_states(final, wanted_state, tolerance)


@PROPERTY
@given(dtypes, st.lists(lengths, min_size=1, max_size=3), future_seeds, st.booleans(), st.data())
def test_padding_changes_nothing_wherever_it_is(dtype, row_lengths, future_seed, carried, data):
    model, tolerance = MODELS[dtype], TOLERANCE[dtype]
    width = max(row_lengths) + data.draw(st.integers(0, 12))
    place = data.draw(st.sampled_from(["left", "right", "inner"]))
    batch_size = len(row_lengths)
    tokens = random_tokens(batch_size, width, seed=7)
    mask = torch.zeros(batch_size, width, dtype=torch.bool)
    for row, length in enumerate(row_lengths):
        order = {
            "left": torch.arange(width - length, width),
            "right": torch.arange(length),
            "inner": torch.randperm(width, generator=torch.Generator().manual_seed(row))[:length],
        }[place]
        mask[row, order] = True
    state = random_state(batch_size, dtype) if carried else None
    gates = random_gates(future_seed)
    logits, found = model(tokens, state, mask, acting(future_seed, gates))
    assert logits.isfinite().all()
    for row in range(batch_size):
        alone = None
        if state is not None:
            alone = State(*(x[:, row : row + 1] for x in state_parts(state)))
        wanted, wanted_state = model(
            tokens[row, mask[row]][None], alone, None, acting(future_seed, gates)
        )
        torch.testing.assert_close(logits[row, mask[row]], wanted[0], rtol=0, atol=tolerance)
        ours = State(*(x[:, row : row + 1] for x in state_parts(found)))
        assert_equal_states(ours, wanted_state, tolerance)


@PROPERTY
@given(lengths, future_seeds, seeds)
def test_what_stands_at_a_pad_does_not_matter(length, future_seed, seed):
    mask = random_tokens(2, length, seed, 2) > 0
    gates = random_gates(future_seed)
    results = []
    for fill in (0, 5):
        tokens = random_tokens(2, length, seed).masked_fill(~mask, fill)
        results.append(MODELS[torch.float32](tokens, None, mask, acting(future_seed, gates)))
    assert torch.equal(results[0][0][mask], results[1][0][mask])
    assert_equal_states(results[0][1], results[1][1])


@PROPERTY
@given(dtypes, lengths, future_seeds)
def test_a_mask_of_all_true_gives_the_numbers_of_no_mask(dtype, length, future_seed):
    tokens = random_tokens(2, length)
    gates = random_gates(future_seed)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    wanted, wanted_state = MODELS[dtype](tokens, None, None, acting(future_seed, gates))
    logits, state = MODELS[dtype](tokens, None, mask, acting(future_seed, gates))
    assert torch.equal(logits, wanted)
    assert_equal_states(state, wanted_state)


@pytest.mark.parametrize("future_seed", [None, FutureSeed(norm=True, gate="input")])
@pytest.mark.parametrize("length", [0, 4, 40])
def test_a_row_with_nothing_to_read_keeps_its_state(length, future_seed):
    state = random_state(2, torch.float32)
    tokens = random_tokens(2, length)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    logits, found = MODELS[torch.float32](tokens, state, mask, acting(future_seed))
    assert logits.shape == (2, length, SMALL.vocab_size)
    assert logits.isfinite().all()
    assert_equal_states(found, state)


def test_gradients_stay_finite_where_a_row_is_empty():
    model = random_model()
    tokens = random_tokens(2, 9)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0] = False
    future_seed = FutureSeed(norm=True, gate="input", clip=1.0)
    gates = Gates(SMALL, future_seed)
    logits, state = model(tokens, None, mask, acting(future_seed, gates))
    (logits.square().sum() + state.wkv_LBHVK.sum()).backward()
    for parameter in [*model.parameters(), *gates.parameters()]:
        assert parameter.grad.isfinite().all()


def test_what_does_not_fit_is_refused():
    model, tokens = MODELS[torch.float32], random_tokens(2, 3)
    with pytest.raises(ValueError, match=r"mask_BT must be bool of shape \(2, 3\)"):
        model(tokens, None, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask_BT must be bool"):
        model(tokens, None, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"state.wkv_LBHVK has shape \(3, 1, 2, 8, 8\)"):
        model(tokens, State.zeros(SMALL, 1))
    wide = Gates(dataclasses.replace(SMALL, width=2 * SMALL.width), FutureSeed())
    with pytest.raises(ValueError, match="must have its num_heads, 2, got 4"):
        model(tokens, acting=[wide])
    with pytest.raises(ValueError, match="layer_start < num_layers must hold, got layer_start=3"):
        Gates(SMALL, FutureSeed(layer_start=3))


@pytest.mark.parametrize("future_seed", [None, FutureSeed(alpha=1.0)], ids=["off", "on"])
def test_recomputed_layers_keep_less_and_give_the_same_gradients(future_seed):
    tokens = random_tokens(3, 40)
    found = {}
    for recompute in (False, True):
        model = random_model(dtype=torch.float32)
        model.checkpoint_layers = recompute
        gates = random_gates(future_seed)
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x
        )
        with hooks:
            logits, state = model(tokens, acting=acting(future_seed, gates))
        parameters = [*model.parameters(), *(gates.parameters() if gates else [])]
        loss = logits.square().mean() + state.wkv_LBHVK.square().mean()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found[recompute] = (sum(kept), [logits.detach(), *(g for g in gradients if g is not None)])
    assert found[True][0] < 0.4 * found[False][0]
    torch.testing.assert_close(found[True][1], found[False][1], rtol=0, atol=0)
