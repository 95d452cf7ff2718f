"""Future-Seed against a plain re-computation, its settings one by one."""

import dataclasses
import math

import pytest
import torch
from model_cases import random_model, random_tokens

from model.config import ModelConfig
from model.future_seed import FutureSeed, Gates, Schedule, seed_state
from model.mechanisms import registry
from model.state import State

MECHANISM = registry.get("future_seed")
CONFIG = ModelConfig(num_layers=4, width=16, vocab_size=23, head_size=8)
LAYER = 2
B, H, D = 3, 2, 8


def make_below(requires_grad=False):
    generator = torch.Generator().manual_seed(1)
    below = 3 * torch.randn(B, H, D, D, generator=generator, dtype=torch.float64)
    x_last = torch.randn(B, CONFIG.width, generator=generator, dtype=torch.float64)
    return below.requires_grad_(requires_grad), x_last.requires_grad_(requires_grad)


def make_gates(settings, moved=True):
    gates = Gates(CONFIG, settings)
    generator = torch.Generator().manual_seed(2)
    if moved:
        with torch.no_grad():
            for parameter in gates.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
    return gates


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def plain_seed(gates, settings, below, x_last):
    """The formulae of the module, entry by entry in Python numbers."""
    seed = torch.zeros_like(below)
    row = LAYER - settings.layer_start
    depth = row / (CONFIG.num_layers - 1 - settings.layer_start)
    low, high = settings.schedule.min, settings.schedule.max
    ramp = {
        "none": 1.0,
        "linear": low + (high - low) * depth,
        "cosine": low + (high - low) * (1 - math.cos(math.pi * depth)) / 2,
    }[settings.schedule.kind]
    for b in range(B):
        for h in range(H):
            logit = gates.alpha[row, h] if settings.gate == "head" else gates.alpha[row]
            logit = logit.item()
            if settings.gate == "input":
                pairs = zip(x_last[b].tolist(), gates.w[row].tolist(), strict=True)
                logit += sum(x * w for x, w in pairs) / math.sqrt(CONFIG.width)
                logit += gates.b[row].item()
            entries = below[b, h].flatten().tolist()
            rms = math.sqrt(sum(x * x for x in entries) / len(entries))
            factor = settings.seed_scale * ramp * sigmoid(logit)
            factor /= max(1e-6, rms) if settings.norm else 1.0
            values = [factor * x for x in entries]
            if settings.clip > 0:
                values = [min(settings.clip, max(-settings.clip, x)) for x in values]
            seed[b, h] = torch.tensor(values, dtype=seed.dtype).view(D, D)
    return seed


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": True},
        {"clip": 0.7},
        {"norm": True, "clip": 0.2, "seed_scale": 0.5},
        {"schedule": Schedule("cosine", 0.4, 1.0)},
        {"schedule": Schedule("linear", 0.2, 1.5), "layer_start": 2},
    ],
    ids=["plain", "norm", "clip", "all", "cosine", "linear"],
)
def test_the_seed_follows_the_formulae(gate, changes):
    settings = FutureSeed(gate=gate, alpha=-1.0, **changes)
    gates = make_gates(settings)
    below, x_last = make_below()
    found = seed_state(gates, LAYER, below, x_last)
    wanted = plain_seed(gates, settings, below, x_last)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
@pytest.mark.parametrize("detach", [False, True])
def test_detach_cuts_the_layer_below_and_never_the_gate(gate, detach):
    settings = FutureSeed(gate=gate, detach=detach)
    gates = make_gates(settings)
    below, x_last = make_below(requires_grad=True)
    seed_state(gates, LAYER, below, x_last).sum().backward()
    assert (below.grad is None) == detach
    for name, parameter in gates.named_parameters():
        assert parameter.grad[LAYER - 1].abs().sum() > 0, name
        assert parameter.grad[0].abs().sum() == 0, name
    assert parameter.grad.dtype == torch.float32


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_gates_start_at_alpha_and_only_for_seeded_layers(gate):
    settings = FutureSeed(layer_start=2, gate=gate, alpha=-3.0, seed_scale=0.5)
    gates = Gates(CONFIG, settings)
    shapes = {name: tuple(x.shape) for name, x in gates.named_parameters()}
    extra = {"w": (2, 16), "b": (2,)} if gate == "input" else {}
    assert shapes == {"alpha": (2, 2) if gate == "head" else (2,)} | extra
    effective = gates.effective()
    assert list(effective) == [2, 3]
    for value in effective.values():
        assert value.shape == ((2,) if gate == "head" else ())
        assert value.dtype == torch.float32
        # One sigmoid, not a product of two.
        torch.testing.assert_close(value, torch.full_like(value, 0.5 * sigmoid(-3.0)))


@pytest.mark.parametrize(
    ("start", "schedule", "wanted"),
    [
        (8, Schedule("cosine", 0.4, 1.0), [0.40, 0.55, 0.85, 1.0]),
        (10, Schedule("cosine", 0.4, 1.0), [0.4, 1.0]),
        (8, Schedule("linear", 0.4, 1.0), [0.4, 0.6, 0.8, 1.0]),
        (9, Schedule("none", 0.4, 0.9), [1.0, 1.0, 1.0]),
        (11, Schedule("linear", 0.25, 1.0), [0.25]),
    ],
)
def test_the_schedule_runs_from_the_first_seeded_layer_to_the_last(start, schedule, wanted):
    settings = FutureSeed(layer_start=start, schedule=schedule)
    strengths = [settings.strength(layer, 12) for layer in range(12)]
    assert strengths == pytest.approx([0.0] * start + wanted)


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_gates_in_another_dtype_still_compute_in_the_states(gate):
    settings = FutureSeed(gate=gate)
    gates = make_gates(settings)
    below, x_last = make_below()
    low = make_gates(settings).bfloat16()
    wanted = seed_state(gates, LAYER, below.float(), x_last)
    found = seed_state(low, LAYER, below.float(), x_last.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def test_no_strength_is_no_seed_even_of_a_state_that_overflowed():
    settings = FutureSeed(seed_scale=0.0)
    below, x_last = make_below()
    assert seed_state(Gates(CONFIG, settings), LAYER, below * math.inf, x_last) is None


def test_the_norm_of_an_empty_state_has_a_finite_gradient():
    settings = FutureSeed(norm=True)
    below, x_last = torch.zeros(B, H, D, D, requires_grad=True), make_below()[1]
    seed = seed_state(Gates(CONFIG, settings), LAYER, below, x_last)
    seed.sum().backward()
    assert (seed == 0).all()
    assert below.grad.isfinite().all()


def test_no_layer_to_seed_is_refused():
    with pytest.raises(ValueError, match="layer_start < num_layers must hold, got layer_start=4"):
        Gates(CONFIG, FutureSeed(layer_start=4))


def run_by_hand(model, tokens, state, settings, gates, last):
    """The pass layer by layer: each seeded layer starts from its state + the seed from below."""
    x = model.emb(tokens)
    v_first, states, below = None, [], None
    for layer, block in enumerate(model.blocks):
        carried = type("Carried", (), {})()
        carried.wkv_BHVK = state.wkv_LBHVK[layer]
        carried.att_shift_BC = state.att_shift_LBC[layer]
        carried.ffn_shift_BC = state.ffn_shift_LBC[layer]
        if layer >= settings.layer_start:
            seed = seed_state(gates, layer, below, x[:, last])
            carried.wkv_BHVK = carried.wkv_BHVK + seed
        x, v_first, after = block(x, v_first, carried, None, "reference")
        below = after.wkv_BHVK
        states.append(below)
    return model.project(model.ln_out(x)), torch.stack(states)


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_the_model_adds_the_seed_from_the_layer_below_to_its_explicit_state(gate):
    settings = FutureSeed(gate=gate, layer_start=2, norm=True)
    model, gates = random_model(CONFIG, dtype=torch.float64), make_gates(settings)
    tokens = random_tokens(2, 40)
    generator = torch.Generator().manual_seed(4)
    zeros = State.zeros(CONFIG, 2, dtype=torch.float64)
    state = State(*(torch.randn(x.shape, generator=generator).to(x) for x in vars(zeros).values()))
    wanted, wanted_wkv = run_by_hand(model, tokens, state, settings, gates, -1)
    logits, after = model(tokens, state, None, [gates])
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(after.wkv_LBHVK, wanted_wkv)


def test_the_input_gate_reads_the_last_valid_position():
    settings = FutureSeed(gate="input")
    model, gates = random_model(CONFIG, dtype=torch.float64), make_gates(settings)
    with torch.no_grad():
        gates.w.mul_(10.0)
    tokens = random_tokens(1, 9)
    mask = torch.tensor([[True] * 6 + [False] * 3])
    state = State.zeros(CONFIG, 1, dtype=torch.float64)
    wanted, _ = run_by_hand(model, tokens[:, :6], state, settings, gates, 5)
    other, _ = run_by_hand(model, tokens[:, :6], state, settings, gates, 4)
    logits, _ = model(tokens, None, mask, [gates])
    torch.testing.assert_close(logits[:, :6], wanted)
    assert (other - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_the_loss_reaches_the_gates_through_the_model(gate, detach):
    settings = FutureSeed(gate=gate, detach=detach)
    model, gates = random_model(CONFIG), Gates(CONFIG, settings)
    tokens = random_tokens(2, 40)
    logits, _ = model(tokens, None, None, [gates])
    logits[:, :5].square().sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in gates.parameters())
    # The seed is the only way from the early outputs back to the prompt's last token.
    last_token = tokens[0, -1]
    assert last_token not in tokens[:, :5]
    embedding = model.emb.weight.grad[last_token].abs().sum()
    assert (embedding > 0) == (not detach)


def test_settings_that_make_no_sense_are_refused():
    for changes in ({"layer_start": 0}, {"clip": -1.0}, {"alpha": math.nan}, {"seed_scale": -1.0}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            dataclasses.replace(FutureSeed(), **changes)
    with pytest.raises(ValueError, match="0 <= min <= max"):
        Schedule("linear", 1.0, 0.5)


@pytest.mark.parametrize("alpha", [-1e6, -710.0, -30.0, 0.0, 30.0, 1e6])
def test_a_gates_upper_bound_has_a_value_however_far_its_logit_lies(alpha):
    bound = MECHANISM.reach(FutureSeed(alpha=alpha), 4, 10)
    assert bound == pytest.approx(torch.tensor(alpha, dtype=torch.float64).sigmoid().item())
    assert MECHANISM.reach(FutureSeed(alpha=alpha, alpha_lr=0.1), 4, 10) == 1.0
