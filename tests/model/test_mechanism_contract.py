"""What is true of every mechanism, whatever it does; a new one is tested by being registered."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from model_cases import SMALL, random_model, random_tokens, state_parts

from model.checkpoint import load_mechanism, save_mechanism
from model.mechanisms import registry
from model.mechanisms.mechanism import Context
from model.state import State

VARIANTS: Mapping[str, list[dict[str, Any]]] = {
    "future_seed": [{"gate": "head", "clip": 0.5}, {"gate": "input", "norm": True}],
    "learned_state": [{"layer_start": 2}],
    "second_pass": [{"gate": "head", "layer_start": 1}, {"norm": True, "detach": True}],
}
"""Settings beside the defaults that take another way through a mechanism's code."""

ALONE = [
    (name, registry.get(name).Settings(**changes))
    for name in registry.names()
    for changes in ({}, *VARIANTS.get(name, []))
]
TOGETHER = [(name, registry.get(name).Settings()) for name in registry.names()]
BATCH, LENGTH = 3, 21

# Sums in another order, at values of order 1; largest seen 2e-15.
close = partial(torch.testing.assert_close, rtol=0, atol=1e-13)
each_alone = pytest.mark.parametrize(("name", "settings"), ALONE)
each_name = pytest.mark.parametrize("name", registry.names())
each_and_all = pytest.mark.parametrize(
    "mechanisms", [[each] for each in ALONE] + [TOGETHER], ids=lambda each: str(dict(each))
)


def moved(mechanisms, dtype=torch.float32):
    """What acts, its parameters off their start."""
    generator = torch.Generator().manual_seed(1)
    found = [registry.get(name).build(SMALL, settings).to(dtype) for name, settings in mechanisms]
    with torch.no_grad():
        for parameter in torch.nn.ModuleList(found).parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return found


def model_with(acting, dtype=torch.float64):
    model = random_model(dtype=dtype)
    model.attach(acting)
    return model


def random_state(dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    zeros = State.zeros(SMALL, BATCH, dtype=dtype)
    return State(*(torch.randn(x.shape, generator=generator).to(dtype) for x in state_parts(zeros)))


def row_of(state, row):
    return state.take(torch.tensor([row]))


def masks():
    """Rows of 5, 21 and 12 tokens, padded on the left or on the right."""
    place = torch.arange(LENGTH)
    lengths = torch.tensor([[5], [LENGTH], [12]])
    return {"right": place < lengths, "left": place >= LENGTH - lengths}


def as_read(acting, mask_BT):
    """The mask of what comes out: a mechanism may put something of its own into a prompt."""
    x_BTC = torch.zeros(*mask_BT.shape, SMALL.width, dtype=torch.float64)
    for each in acting:
        x_BTC, mask_BT = each.prompt(x_BTC, mask_BT)
    return mask_BT


def assert_equal(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


def assert_close(found, wanted):
    for ours, theirs in zip(state_parts(found), state_parts(wanted), strict=True):
        close(ours, theirs)


@each_and_all
@torch.no_grad()
def test_a_mechanism_that_was_taken_away_leaves_nothing_behind(mechanisms):
    tokens, acting = random_tokens(BATCH, LENGTH), moved(mechanisms)
    never, state = random_model()(tokens)
    model = model_with(acting, torch.float32)
    on, _ = model(tokens, acting=acting)
    assert (on - never).abs().max() > 1e-3 * never.std()
    model.attach([])
    off, state_off = model(tokens)
    assert torch.equal(off, never)
    assert_equal(state_parts(state_off), state_parts(state))
    assert_equal(model.state_dict().values(), random_model().state_dict().values())


@each_and_all
@torch.no_grad()
def test_what_comes_out_has_the_models_shapes(mechanisms):
    acting = moved(mechanisms)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    logits, state = model_with(acting)(random_tokens(BATCH, LENGTH), acting=acting)
    assert logits.shape == (*as_read(acting, mask).shape, SMALL.vocab_size)
    state.require(SMALL, BATCH)
    assert {part.dtype for part in state_parts(state)} == {torch.float64}


@pytest.mark.parametrize("side", ["left", "right"])
@each_and_all
@torch.no_grad()
def test_padding_changes_nothing(mechanisms, side):
    tokens, state, mask = random_tokens(BATCH, LENGTH), random_state(), masks()[side]
    acting = moved(mechanisms)
    model = model_with(acting)
    logits, after = model(tokens, state, mask, acting)
    assert logits.isfinite().all()
    for row in range(BATCH):
        own = tokens[row, mask[row]][None]
        alone, alone_after = model(own, row_of(state, row), None, acting)
        close(logits[row, as_read(acting, mask)[row]], alone[0])
        assert_close(row_of(after, row), alone_after)


@pytest.mark.parametrize("cut", [1, 4, 8])
@each_and_all
@torch.no_grad()
def test_what_follows_a_prompt_may_be_cut_anywhere(mechanisms, cut):
    acting = moved(mechanisms)
    model, tokens, rest = model_with(acting), random_tokens(BATCH, LENGTH), random_tokens(BATCH, 9)
    _, prompt = model(tokens, random_state(), None, acting)
    wanted, end = model(rest, prompt)
    first, between = model(rest[:, :cut], prompt)
    second, found = model(rest[:, cut:], between)
    close(torch.cat([first, second], 1), wanted)
    assert_close(found, end)


@each_and_all
@torch.no_grad()
def test_a_row_with_nothing_to_read_keeps_its_state(mechanisms):
    acting, state = moved(mechanisms), random_state()
    model, tokens, mask = model_with(acting), random_tokens(BATCH, LENGTH), masks()["left"]
    mask[1] = False
    logits, after = model(tokens, state, mask, acting)
    assert logits.isfinite().all()
    assert_equal(state_parts(row_of(after, 1)), state_parts(row_of(state, 1)))
    _, after = model(tokens[:, :0], state, None, acting)
    assert_equal(state_parts(after), state_parts(state))


@each_and_all
def test_gradients_are_those_of_finite_differences(mechanisms):
    acting = moved(mechanisms, torch.float64)
    model, tokens, mask = model_with(acting), random_tokens(BATCH, LENGTH), masks()["right"]

    def loss():
        logits, state = model(tokens, random_state(), mask, acting)
        return logits[mask].square().mean() + state.wkv_LBHVK.square().mean()

    loss().backward()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in torch.nn.ModuleList(acting).named_parameters():
        way = torch.randn(parameter.shape, generator=generator).double()
        slope = float((parameter.grad * way).sum())
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * way
                values.append(float(loss()))
                parameter -= step * way
        # The third derivative's share, and rounding over the step, are both under 1e-8.
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5), name
        assert slope != 0.0, name


@each_and_all
def test_recomputed_layers_give_the_same_gradients(mechanisms):
    tokens, mask, found = random_tokens(BATCH, LENGTH), masks()["left"], []
    for recompute in (False, True):
        acting = moved(mechanisms)
        model = model_with(acting, torch.float32)
        model.checkpoint_layers = recompute
        logits, state = model(tokens, None, mask, acting)
        (logits[mask].square().mean() + state.wkv_LBHVK.square().mean()).backward()
        parameters = [*model.parameters(), *torch.nn.ModuleList(acting).parameters()]
        found.append([each.grad for each in parameters if each.grad is not None])
    assert_equal(*found)


@each_alone
@torch.no_grad()
def test_its_file_holds_all_of_it(name, settings, tmp_path):
    (acting,) = moved([(name, settings)])
    save_mechanism(acting, name, tmp_path / "file.safetensors")
    found_name, found = load_mechanism(tmp_path / "file.safetensors", SMALL)
    assert (found_name, found.settings) == (name, settings)
    assert found.state_dict().keys() == acting.state_dict().keys()
    tokens = random_tokens(BATCH, LENGTH)
    logits, _ = model_with([found])(tokens, acting=[found])
    assert torch.equal(logits, model_with([acting])(tokens, acting=[acting])[0])


@each_name
def test_one_that_was_made_for_another_model_is_refused(name):
    wider = dataclasses.replace(SMALL, width=2 * SMALL.width)
    acting = registry.get(name).build(wider, registry.get(name).Settings())
    with pytest.raises(ValueError, match="must have its num_heads, 2, got 4"):
        random_model()(random_tokens(1, 2), acting=[acting])
    with pytest.raises(ValueError, match="must have its num_heads, 2, got 4"):
        random_model().attach([acting])


@each_alone
def test_settings_go_round_as_json(name, settings):
    written = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert registry.get(name).settings_of(written) == settings


@each_alone
def test_settings_are_equal_to_themselves(name, settings):
    mechanism = registry.get(name)
    learning = dataclasses.replace(settings, **{mechanism.rate: 0.1})
    for each in (settings, learning):
        assert mechanism.equal(each, each, SMALL, travel=100.0)


def paths(settings: Any, at: str = "") -> Iterator[str]:
    """Every setting's name below the section."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        inner = dataclasses.is_dataclass(value)
        yield from paths(value, f"{at}{field.name}.") if inner else [f"{at}{field.name}"]


@each_alone
def test_these_settings_do_something(name, settings):
    idle = list(registry.get(name).idle(settings, Context(SMALL.num_layers)))
    assert [each for each in idle if each.extent == "mechanism"] == []
    # What may remain is a setting that only another value of a second one gives an effect.
    named = {each.setting for each in idle} | {each.unless[0] for each in idle if each.unless}
    assert named <= set(paths(settings))


@each_name
def test_a_layer_that_the_model_has_not_is_told_before_and_refused_by_the_model(name):
    mechanism = registry.get(name)
    if "layer_start" not in paths(mechanism.Settings()):
        return  # it begins at no layer
    settings = mechanism.Settings(layer_start=SMALL.num_layers)
    told = list(mechanism.idle(settings, Context(SMALL.num_layers)))
    assert [(each.setting, each.extent, each.sure) for each in told] == [
        ("layer_start", "mechanism", True)
    ]
    with pytest.raises(ValueError, match="layer_start < num_layers must hold, got layer_start=3"):
        mechanism.build(SMALL, settings)


@each_alone
def test_its_reach_bounds_its_values_before_training_and_wherever_that_leads(name, settings):
    mechanism = registry.get(name)
    learning = dataclasses.replace(settings, **{mechanism.rate: 0.1})
    frozen, learnt = (mechanism.reach(each, SMALL.num_layers, 100) for each in (settings, learning))
    if frozen is None:
        assert learnt is None
        return
    started = mechanism.build(SMALL, settings).values()
    profile = mechanism.profile(settings, SMALL.num_layers)
    assert max(started.values(), default=0.0) <= frozen * (1 + 1e-6)  # float32
    assert profile is None or max(profile.before.values()) <= frozen
    [trained] = moved([(name, learning)])
    assert max(trained.values().values(), default=0.0) <= learnt


@each_alone
def test_a_profile_is_of_quantities_that_diagnostics_have(name, settings):
    mechanism = registry.get(name)
    profile = mechanism.profile(settings, SMALL.num_layers)
    values = mechanism.build(SMALL, settings).values()
    if profile is not None:
        for layer, before in profile.before.items():
            assert values[f"{profile.quantity}/L{layer:02d}"] == pytest.approx(before)
        assert "{number}" in profile.caption
    assert mechanism.depth(values) in {None, SMALL.num_layers}
