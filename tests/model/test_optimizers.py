"""Optimisers against independent formulae, and which parameters each of them has."""

import math

import pytest
import torch
from model_cases import SMALL, random_model, relative_error

from model.optimizers import registry
from model.optimizers.muon import MuonSettings
from model.optimizers.optimizer import Shared

SHARED = Shared(lr=0.01, betas=(0.9, 0.99), weight_decay=0.5)
STEPS = 3

# Share of the way moved. Torch's iterations are in bfloat16, of 8 bits: largest seen 0.037. With an
# iteration more or less, or without Nesterov's look ahead, it is 0.28 and more.
BF16 = 0.05
FLOAT32 = 1e-5


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=generator) for name, x in model.named_parameters()}


def trained(name, settings=None):
    """A model's weights before some steps, and after each of them."""
    model = random_model()
    optimizers = registry.get(name).build(model, SHARED, settings)
    found = [{name: x.detach().clone() for name, x in model.named_parameters()}]
    for step in range(STEPS):
        for name, gradient in gradients(model, step).items():
            model.get_parameter(name).grad = gradient
        for optimizer in optimizers:
            optimizer.step()
        found.append({name: x.detach().clone() for name, x in model.named_parameters()})
    return found


def in_layers(name):
    """Whether a parameter is a matrix inside a layer, by what RWKV-7 has there."""
    *place, last = name.split(".")
    projections = {"receptance", "key", "value", "output"}
    low_rank = {f"{part}{factor}" for part in "wavg" for factor in (1, 2)}
    return place[0] == "blocks" and (place[-1] in projections or last in low_rank)


def orthogonal(matrix, steps):
    """Newton and Schulz' quintic as what it does to singular values (Jordan et al., 2024)."""
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    sizes = sizes / sizes.norm()
    for _ in range(steps):
        sizes = 3.4445 * sizes - 4.775 * sizes**3 + 2.0315 * sizes**5
    return u @ torch.diag(sizes) @ v


def muon_by_hand(settings, name, before):
    """The weights after each step, in float64."""
    weight, mean = before.double(), torch.zeros_like(before, dtype=torch.float64)
    rows, columns = weight.shape
    scale = math.sqrt(max(1.0, rows / columns))
    if settings.scale == "match_rms_adamw":
        scale = 0.2 * math.sqrt(max(rows, columns))
    for step in range(STEPS):
        gradient = gradients(random_model(), step)[name].double()
        mean = settings.momentum * mean + (1 - settings.momentum) * gradient
        ahead = settings.momentum * mean + (1 - settings.momentum) * gradient
        update = orthogonal(ahead if settings.nesterov else mean, settings.steps)
        weight = weight * (1 - settings.lr * SHARED.weight_decay) - settings.lr * scale * update
        yield weight


@pytest.mark.parametrize(
    "settings",
    [
        MuonSettings(),
        MuonSettings(lr=0.1, momentum=0.5, nesterov=False),
        MuonSettings(momentum=0.5),
        MuonSettings(steps=3, scale="match_rms_adamw"),
    ],
    ids=str,
)
def test_muon_moves_matrices_inside_layers_as_by_hand(settings):
    found = trained("muon", settings)
    errors = []
    for name in filter(in_layers, found[0]):
        before = found[0][name].double()
        for after, wanted in zip(
            found[1:], muon_by_hand(settings, name, found[0][name]), strict=True
        ):
            errors.append(relative_error(after[name].double() - before, wanted - before))
    assert max(errors) <= BF16


def adamw_by_hand(name, before):
    weight = before.double()
    decay = SHARED.weight_decay if before.ndim == 2 and not name.endswith("r_k") else 0.0
    first = second = torch.zeros_like(weight)
    beta1, beta2 = SHARED.betas
    for step in range(STEPS):
        gradient = gradients(random_model(), step)[name].double()
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        scaled = first / (1 - beta1 ** (step + 1))
        root = (second / (1 - beta2 ** (step + 1))).sqrt()
        weight = weight * (1 - SHARED.lr * decay) - SHARED.lr * scaled / (root + 1e-8)
        yield weight


@pytest.mark.parametrize(("optimizer", "settings"), [("adamw", None), ("muon", MuonSettings())])
def test_all_else_moves_as_adamw_by_hand(optimizer, settings):
    found = trained(optimizer, settings)
    others = [name for name in found[0] if optimizer == "adamw" or not in_layers(name)]
    for name in others:
        before = found[0][name].double()
        for after, wanted in zip(found[1:], adamw_by_hand(name, found[0][name]), strict=True):
            moved = relative_error(after[name].double() - before, wanted - before)
            assert moved <= FLOAT32, name


def test_muon_leaves_embedding_head_vectors_and_per_head_factors_to_adamw():
    model = random_model()
    muon, adamw = registry.get("muon").build(model, SHARED, MuonSettings())
    names = {id(x): name for name, x in model.named_parameters()}
    theirs = [
        {names[id(x)] for group in optimizer.param_groups for x in group["params"]}
        for optimizer in (muon, adamw)
    ]
    assert theirs[0] == set(filter(in_layers, names.values()))
    assert theirs[1] == set(names.values()) - theirs[0]
    assert {"emb.weight", "head.weight", "ln_out.weight"} <= theirs[1]
    assert {f"blocks.{layer}.att.r_k" for layer in range(SMALL.num_layers)} <= theirs[1]
    assert {group["lr"] for group in adamw.param_groups} == {SHARED.lr}
    assert {group["lr"] for group in muon.param_groups} == {MuonSettings().lr}


@pytest.mark.parametrize("name", registry.names())
def test_an_optimiser_trains_every_parameter_once_and_keeps_what_it_says(name):
    model, optimizer = random_model(), registry.get(name)
    settings = None if optimizer.Settings is None else optimizer.Settings()
    made = optimizer.build(model, SHARED, settings)
    trained = [x for each in made for group in each.param_groups for x in group["params"]]
    assert sorted(map(id, trained)) == sorted(map(id, model.parameters()))
    for parameter_name, gradient in gradients(model, 0).items():
        model.get_parameter(parameter_name).grad = gradient
    for each in made:
        each.step()
    states = {x: state for each in made for x, state in each.state.items()}
    for parameter_name, x in model.named_parameters():
        kept = sum(
            value.nbytes for value in states[x].values() if torch.is_tensor(value) and value.ndim
        )
        wanted = optimizer.state_bytes(parameter_name, x.shape)
        assert kept == wanted * x.numel(), parameter_name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 0.0}, "0 < lr < inf must hold, got 0.0"),
        ({"lr": math.inf}, "0 < lr < inf"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"steps": 0}, "1 <= steps < 100"),
        ({"steps": 100}, "1 <= steps < 100"),
    ],
    ids=str,
)
def test_settings_of_muon_that_make_no_sense_are_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        MuonSettings(**changes)


def test_an_unknown_optimiser_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="no optimizer is called 'lion'; known: adamw, muon"):
        registry.get("lion")
