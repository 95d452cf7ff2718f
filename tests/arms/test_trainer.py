"""An arm in memory: its loss, its optimisers and the order of its data."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_cases import (
    CPU,
    SEED,
    SHAPES,
    Place,
    materials,
    new_run,
    settings,
    weights,
)
from hypothesis import given
from hypothesis import strategies as st

from fstune.arms.trainer import ArmTrainer, BatchStream
from fstune.specs.settings import ArmSettings
from model.checkpoint import load, save
from model.initial import initialise
from model.mechanisms.second_pass.passes import Passes
from model.mechanisms.second_pass.settings import SecondPass
from model.wkv import choice
from tasks.example import Example, Split

# --- The loss.


def answers(count: int = 6) -> Split:
    """Examples with answers of different lengths."""
    return Split.from_examples(
        Example((7, n, 9), tuple(range(20, 21 + n % 4)), (1,), (33,)) for n in range(count)
    )


def loss_by_hand(run: ArmTrainer, split: Split, indices: list[int], weight: float) -> float:
    """The weighted mean NLL over target tokens, from full logits one example at a time."""
    total = weights_sum = 0.0
    subject = run.subject
    for index in indices:
        example = split.example(index)
        with torch.no_grad():
            prompt = torch.tensor([example.prompt])
            acting = list(subject.acting.values())
            logits_BTV, state = subject.model(prompt, acting=acting)
            inside = [logits_BTV[0, place] for place in example.target_positions]
            after_BTV, _ = subject.model(torch.tensor([example.answer]), state=state)
            after = [logits_BTV[0, -1], *after_BTV[0, :-1]]
        wanted = example.target_tokens + example.answer
        first = len(inside)
        for place, (logits_V, token) in enumerate(zip(inside + after, wanted, strict=True)):
            own = weight if place == first else 1.0
            total -= own * float(logits_V.log_softmax(0)[token])
            weights_sum += own
    return total / weights_sum


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.5])
def test_the_loss_is_the_mean_nll_over_target_tokens(tmp_path, weight):
    arm = settings(SEED, train={"first_token_weight": weight, "batch_size": 4, "lr": 0.05})
    data = dataclasses.replace(materials(tmp_path, arm), train=answers())
    run = new_run(tmp_path, arm, data)
    stream = BatchStream(len(data.train), 4, run.arm.seeds.order)
    for step in range(4):
        wanted = loss_by_hand(run, data.train, stream.indices(step), weight)
        assert run.train_step() == pytest.approx(wanted, rel=1e-5)


def test_tokens_are_counted_as_the_model_reads_them(tmp_path):
    run = new_run(tmp_path, settings(train={"batch_size": 4}))
    for _ in range(3):
        run.train_step()
    assert run.tokens == 3 * 4 * len("L=12|M=__|R=12")


def test_prompts_count_as_often_as_they_are_read(tmp_path):
    data = dataclasses.replace(materials(tmp_path, settings()), train=answers())
    counts = []
    for mechanisms in ({}, {"second_pass": {}}, {"second_pass": {}, "future_seed": SEED}):
        run = new_run(tmp_path, settings(train={"batch_size": 6}, **mechanisms), data)
        run.train_step()
        counts.append(run.tokens)
    # Six prompts of 3 tokens.
    assert [count - counts[0] for count in counts] == [0, 18, 18]
    two = dict.fromkeys(("future_seed", "second_pass"), Passes(data.config, SecondPass()))
    run.subject = dataclasses.replace(run.subject, acting=two)
    run.train_step()
    assert run.tokens - counts[-1] == counts[0] + 3 * 18, "each reads again what the other reads"


# --- The optimiser.


def first_step(folder: Path, arm: ArmSettings) -> tuple[ArmTrainer, dict[str, torch.Tensor]]:
    """A run after one step, and how every parameter moved."""
    run = new_run(folder, arm)
    before = weights(run)
    run.train_step()
    return run, {name: value - before[name] for name, value in weights(run).items()}


def test_weight_decay_acts_on_matrices_and_on_nothing_else(tmp_path):
    plain, _ = first_step(tmp_path, settings(SEED, train={"weight_decay": 0.0}))
    decayed, _ = first_step(tmp_path, settings(SEED, train={"weight_decay": 5.0}))
    start = initialise(plain.data.config, plain.arm.seeds.init).state_dict()
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for name, value in plain.subject.model.named_parameters():
        found = decayed.subject.model.get_parameter(name)
        is_matrix = value.squeeze().ndim == 2 and not name.endswith("r_k")
        # AdamW shrinks by lr·decay = 1e-2 · 5 before it steps.
        shrunk = value - 0.05 * start[name] if is_matrix else value
        torch.testing.assert_close(found, shrunk, rtol=1e-5, atol=1e-6)
        kinds[is_matrix].add(name.split(".")[-1])
    assert "r_k" in kinds[False]
    assert {"w1", "w2", "a1", "g2", "weight"} <= kinds[True]
    # The gates have no gradient yet: a new model's time mix puts out zeros.
    gated, _ = first_step(
        tmp_path, settings({"alpha": 2.0, "alpha_lr": 0.1}, train={"weight_decay": 5.0})
    )
    assert gated.subject.acting["future_seed"].alpha.tolist() == [2.0]


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_gates_have_a_learning_rate_of_their_own(tmp_path, gate):
    # Adam's first step is as long as its learning rate. The gates have no gradient then, since
    # a new model's time mix puts out zeros; their second is 0.1/0.19 / √(0.001/0.001999) of it.
    run, moved = first_step(tmp_path, settings(SEED | {"gate": gate, "alpha_lr": 0.125}))
    assert max(float(change.abs().max()) for change in moved.values()) == pytest.approx(
        1e-2, rel=0.02
    )
    run.train_step()
    gates = {
        name: value.detach() for name, value in run.subject.acting["future_seed"].named_parameters()
    }
    gates["alpha"] = gates["alpha"] - SEED["alpha"]
    assert len(gates) == (3 if gate == "input" else 1)
    for value in gates.values():
        # Adam's epsilon shortens the step where a gradient is tiny.
        assert float(value.abs().max()) == pytest.approx(0.7441 * 0.125, rel=0.15)


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_gates_without_a_learning_rate_stay_put(tmp_path, gate):
    run = new_run(tmp_path, settings({"alpha": 0.5, "gate": gate, "alpha_lr": 0.0}))
    for _ in range(3):
        run.train_step()
    for name, value in run.subject.acting["future_seed"].named_parameters():
        assert set(value.flatten().tolist()) == {0.5 if name == "alpha" else 0.0}


def gradient_norm(run: ArmTrainer) -> float:
    grads = [parameter.grad for parameter in run.subject.model.parameters()]
    return math.sqrt(sum(float(grad.double().square().sum()) for grad in grads if grad is not None))


def test_the_models_gradient_is_clipped_to_its_norm(tmp_path):
    free, _ = first_step(tmp_path, settings(SEED, train={"grad_clip": 0.0}))
    norm = gradient_norm(free)
    clipped, _ = first_step(tmp_path, settings(SEED, train={"grad_clip": norm / 10}))
    loose, _ = first_step(tmp_path, settings(SEED, train={"grad_clip": norm * 10}))
    assert gradient_norm(clipped) == pytest.approx(norm / 10, rel=1e-3)
    assert gradient_norm(loose) == norm
    # Gates have a scale of their own and are left alone.
    ours, theirs = (run.subject.acting["future_seed"].alpha for run in (clipped, free))
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("train", "wanted"),
    [
        ({}, [1.0] * 6),
        ({"lr_warmup_steps": 4}, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"lr_schedule": "linear", "lr_total_steps": 5}, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        (
            {"lr_schedule": "linear", "lr_warmup_steps": 2, "lr_total_steps": 6},
            [0.0, 0.5, 1.0, 0.75, 0.5, 0.25],
        ),
        (
            {"lr_schedule": "cosine", "lr_total_steps": 4},
            [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)],
        ),
    ],
    ids=str,
)
def test_the_learning_rate_follows_its_schedule(tmp_path, train, wanted):
    run = new_run(tmp_path, settings(SEED, train=train))
    rates = []
    for _ in wanted:
        rates.append([group["lr"] for group in run._optimizers[0].param_groups])
        run.train_step()
    assert rates == [[pytest.approx(1e-2 * rate, abs=1e-9)] * 2 for rate in wanted]
    # The gates' rate does not follow.
    assert run._optimizers[1].param_groups[0]["lr"] == SEED["alpha_lr"]


def test_every_optimiser_of_the_model_follows_the_schedule_and_no_mechanism_does(tmp_path):
    train = {"optimizer": "muon", "muon": {"lr": 0.5}, "lr_warmup_steps": 4}
    own = {"learned_state": {"lr": 0.25}, "second_pass": {"alpha_lr": 0.125}}
    run = new_run(tmp_path, settings(SEED, train=train, **own))
    rates = []
    for _ in range(3):
        rates.append([each.param_groups[-1]["lr"] for each in run._optimizers])
        run.train_step()
    of_mechanisms = [SEED["alpha_lr"], 0.25, 0.125]
    assert rates == [[0.5 * share, 1e-2 * share, *of_mechanisms] for share in (0, 0.25, 0.5)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_mechanisms_learn_beside_each_other_whatever_trains_the_model(tmp_path, optimizer):
    own = {"learned_state": {"lr": 0.25}, "second_pass": {"alpha_lr": 0.125}}
    run = new_run(tmp_path, settings(SEED, train={"optimizer": optimizer}, **own))
    before = {name: each.state_dict() for name, each in run.subject.acting.items()}
    before = {name: {k: x.clone() for k, x in state.items()} for name, state in before.items()}
    for _ in range(3):
        run.train_step()
    for name, acting in run.subject.acting.items():
        for key, value in acting.state_dict().items():
            assert (value != before[name][key]).any(), (name, key)
    diagnostics = run.outcome().diagnostics
    for name in ("gates", "learned_state", "second_pass", "model"):
        assert diagnostics[f"grad_norm/{name}"] > 0


def test_bf16_keeps_weights_and_optimiser_in_float32(tmp_path):
    arm = settings(SEED, model={"init": SHAPES, "precision": "bf16"})
    place = Place(tmp_path / "half", arm)
    half = place.advance(3)
    saved = place.saved()
    tensors = [*saved["model"].values(), *saved["mechanisms"]["future_seed"].values()]
    tensors += [
        value
        for optimizer in saved["optimizers"]
        for state in optimizer["state"].values()
        for value in state.values()
    ]
    assert {value.dtype for value in tensors} == {torch.float32}
    whole = Place(tmp_path / "whole", settings(SEED)).advance(3)
    assert (half.measures["nll_sum"] != whole.measures["nll_sum"]).all()
    np.testing.assert_allclose(half.measures["nll_sum"], whole.measures["nll_sum"], rtol=0.1)


def test_training_lowers_the_loss(tmp_path):
    place = Place(tmp_path / "one", settings(SEED, train={"batch_size": 5}))
    place.advance(40)
    losses = [progress.loss for progress in place.told if progress.doing == "train"]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_an_arm_from_a_checkpoint_starts_from_its_weights(tmp_path):
    made = settings(SEED)
    trained_run = new_run(tmp_path, made)
    trained_run.train_step()
    save(trained_run.subject.model, tmp_path / "model.pth")
    arm = settings(SEED, model={"checkpoint": str(tmp_path / "model.pth")})
    run = new_run(tmp_path, arm)
    torch.testing.assert_close(weights(run), weights(trained_run), rtol=0, atol=0)
    run.train_step()
    unchanged = load(tmp_path / "model.pth").state_dict()
    torch.testing.assert_close(unchanged, weights(trained_run), rtol=0, atol=0)


# --- The order of the data.


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**48))
def test_every_epoch_is_a_permutation_and_access_is_random(num_examples, batch_size, seed):
    stream = BatchStream(num_examples, batch_size, seed)
    batches = [stream.indices(step) for step in range(2 * num_examples)]
    assert {len(batch) for batch in batches} == {batch_size}
    places = [index for batch in batches for index in batch]
    epochs = [places[k : k + num_examples] for k in range(0, len(places), num_examples)]
    assert all(sorted(epoch) == list(range(num_examples)) for epoch in epochs)
    backwards = BatchStream(num_examples, batch_size, seed)
    for step in reversed(range(len(batches))):
        assert backwards.indices(step) == batches[step]


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = (BatchStream(50, 50, 1).indices(step) for step in (0, 1))
    assert first != second
    assert BatchStream(50, 50, 2).indices(0) != first


def test_both_arms_of_a_pair_see_the_same_batches_and_start_alike(tmp_path):
    baseline, variant = new_run(tmp_path, settings()), new_run(tmp_path, settings(SEED))
    assert baseline.arm.digest != variant.arm.digest
    torch.testing.assert_close(weights(baseline), weights(variant), rtol=0, atol=0)
    for step in range(12):
        assert baseline._batches.indices(step) == variant._batches.indices(step)
    data = materials(tmp_path, settings())
    another = ArmTrainer(data.arm(settings(), 1), data, CPU)
    assert [another._batches.indices(k) for k in range(3)] != [
        baseline._batches.indices(k) for k in range(3)
    ]
    assert (another.subject.model.head.weight != baseline.subject.model.head.weight).any()


def test_a_variant_whose_gate_is_zero_is_its_baseline_bit_for_bit(tmp_path):
    off = {"alpha": 0.0, "alpha_lr": 0.0, "seed_scale": 0.0}
    baseline = Place(tmp_path / "baseline", settings()).advance(5)
    variant = Place(tmp_path / "variant", settings(off)).advance(5)
    np.testing.assert_array_equal(variant.measures["nll_sum"], baseline.measures["nll_sum"])
    np.testing.assert_array_equal(variant.measures["correct"], baseline.measures["correct"])


# --- What computes the recurrence.


def test_what_computed_an_arm_is_kept_with_it_and_goes_on_with_it(tmp_path):
    left_open, named = (
        Place(tmp_path / name, settings(SEED, model={"init": SHAPES, "wkv": name}))
        for name in ("auto", "reference")
    )
    # Prompts of 5 tokens, trained on and evaluated; answers of none.
    assert left_open.advance(1).backends == ("chunked",)
    assert named.advance(1).backends == ("reference",)
    kept = named.store.outcome(named.arm.digest, 1)
    assert kept.backends == ("reference",)
    run = new_run(tmp_path, settings(SEED))
    run.restore(named.store.latest_checkpoint(named.arm.digest)[1] / "run.pt")
    assert run.outcome().backends == ("chunked", "reference")


def test_a_back_end_that_was_passed_over_is_an_event_of_the_arm_once(tmp_path, monkeypatch):
    shape = choice.ShapeClass("cuda:0", True, True, 8, 8, 2, 8)
    measured = choice.Choice("chunked", {"chunked": 1.0}, {"triton": "cannot be built: no cc"})
    monkeypatch.setitem(choice._CHOICES, shape, measured)
    run = new_run(tmp_path, settings(SEED))
    run.train_step()
    run.outcome()
    [event] = run.outcome().events
    assert event.startswith("step 1: WKV back end triton cannot be built: no cc; the next is taken")
    named = new_run(tmp_path, settings(SEED, model={"init": SHAPES, "wkv": "chunked"}))
    assert named.outcome().events == ()
