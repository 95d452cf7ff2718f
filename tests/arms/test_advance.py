import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arm_cases import (
    CPU,
    SEED,
    SHAPES,
    Place,
    assert_same_numbers,
    materials,
    settings,
    trained,
)
from hypothesis import given
from hypothesis import strategies as st

from fstune.arms.advance import DivergedError, advance
from fstune.arms.arm import ArmSpec
from fstune.arms.inputs import ArmInputs, gather
from fstune.arms.store import Divergence
from fstune.arms.trainer import ArmTrainer, BatchStream
from fstune.errors import InputError
from fstune.specs.settings import ArmSettings
from model.checkpoint import load, save
from model.config import ModelConfig
from model.initial import initialise
from tasks.example import Example, Split


def new_run(folder: Path, arm_settings: ArmSettings, data: ArmInputs | None = None) -> ArmTrainer:
    data = data or materials(folder, arm_settings)
    return ArmTrainer(data.arm(arm_settings, 0), data, CPU)


def weights(run: ArmTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.subject.model.state_dict().items()}


def assert_same_checkpoint(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    del found["train_wall_s"], wanted["train_wall_s"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


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


def test_a_checkpoint_that_became_another_file_makes_other_arms(tmp_path):
    arm = on_a_checkpoint(tmp_path)
    path = tmp_path / "model.pth"
    first, content = materials(tmp_path, arm), path.read_bytes()
    path.write_bytes(content)
    assert materials(tmp_path, arm) is first, "written anew, but the same"
    path.write_bytes(content + b"more")
    second = materials(tmp_path, arm)
    assert second.arm(arm, 0).digest != first.arm(arm, 0).digest
    path.unlink()
    with pytest.raises(InputError, match=r"model\.checkpoint: .*No such file"):
        materials(tmp_path, arm)


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


# --- Stopping and going on.

INTERRUPTED = settings(
    SEED, train={"lr_schedule": "cosine", "lr_total_steps": 8, "lr_warmup_steps": 2}
)


@pytest.mark.parametrize("stop", range(1, 6))
def test_an_arm_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, stop):
    through = Place(tmp_path / "through", INTERRUPTED)
    wanted = through.advance(6)
    Place(tmp_path / "stopped", INTERRUPTED).advance(stop)
    resumed = Place(tmp_path / "stopped", INTERRUPTED)
    torch.rand(7)  # a random stream that stands elsewhere
    found = resumed.advance(6)
    assert trained(resumed.told) == list(range(stop + 1, 7))
    assert_same_numbers(found, wanted)
    assert found.train_tokens == wanted.train_tokens
    assert_same_checkpoint(resumed.saved(), through.saved())


class Killed(BaseException):
    """Ends a process as a kill would: nothing catches it."""


@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_arm_killed_between_evaluations_goes_on_from_the_last(tmp_path, step):
    through = Place(tmp_path / "through", INTERRUPTED, every=2)
    wanted = through.advance(6)
    killed = Place(tmp_path / "killed", INTERRUPTED, every=2)

    def kill(progress: Any) -> None:
        if progress.doing == "train" and progress.step == step:
            raise Killed

    bench_that_kills = dataclasses.replace(killed.bench, on_progress=kill)
    with pytest.raises(Killed):
        advance(killed.arm, killed.data, 6, bench_that_kills)
    found = killed.advance(6)
    assert trained(killed.told) == list(range(step - step % 2 + 1, 7))
    assert_same_numbers(found, wanted)
    assert_same_checkpoint(killed.saved(), through.saved())
    for at in (2, 4):
        assert_same_numbers(
            killed.store.outcome(killed.arm.digest, at),
            through.store.outcome(through.arm.digest, at),
        )


def test_a_kill_between_checkpoint_and_evaluation_costs_no_training(tmp_path):
    wanted = Place(tmp_path / "through", INTERRUPTED).advance(4)
    killed = Place(tmp_path / "killed", INTERRUPTED)

    def kill(progress: Any) -> None:
        if progress.doing == "evaluate":
            raise Killed

    with pytest.raises(Killed):
        advance(killed.arm, killed.data, 4, dataclasses.replace(killed.bench, on_progress=kill))
    assert killed.store.evaluated_steps(killed.arm.digest) == []
    found = killed.advance(4)
    assert [progress.doing for progress in killed.told] == ["evaluate"]
    assert_same_numbers(found, wanted)


def test_what_is_stored_is_not_done_again(tmp_path):
    place = Place(tmp_path / "one", settings(SEED))
    first = place.advance(3)
    place.told.clear()
    again = place.advance(3)
    assert place.told == []
    assert again.ended_at == first.ended_at


def test_evaluations_on_the_way_are_stored(tmp_path):
    place = Place(tmp_path / "one", settings(SEED), every=3)
    place.advance(4)
    assert place.store.evaluated_steps(place.arm.digest) == [3, 4]
    place.advance(10)
    assert place.store.evaluated_steps(place.arm.digest) == [3, 4, 6, 9, 10]
    assert trained(place.told) == list(range(1, 11))
    alone = Place(tmp_path / "alone", settings(SEED)).advance(6)
    assert_same_numbers(place.store.outcome(place.arm.digest, 6), alone)


def test_an_arm_that_is_past_a_step_is_evaluated_there_and_keeps_its_later_checkpoint(tmp_path):
    place = Place(tmp_path / "one", settings(SEED))
    later = place.advance(6)
    before = place.saved()
    place.told.clear()
    earlier = place.advance(4)
    assert trained(place.told) == [1, 2, 3, 4]
    assert_same_numbers(earlier, Place(tmp_path / "alone", settings(SEED)).advance(4))
    kept = (place.store.root / place.arm.digest / "checkpoints").iterdir()
    assert [path.name for path in kept] == ["000000006"]
    assert_same_checkpoint(place.saved(), before)
    place.told.clear()
    place.advance(8)
    assert trained(place.told) == [7, 8]
    assert place.store.outcome(place.arm.digest, 6).ended_at == later.ended_at


def test_an_arm_with_a_damaged_checkpoint_is_trained_again_to_the_same_numbers(tmp_path):
    place = Place(tmp_path / "one", settings(SEED))
    place.advance(3)
    _, folder = place.store.latest_checkpoint(place.arm.digest)
    (folder / "run.pt").write_bytes((folder / "run.pt").read_bytes()[:-100])
    place.told.clear()
    found = place.advance(5)
    assert trained(place.told) == [1, 2, 3, 4, 5]
    assert_same_numbers(found, Place(tmp_path / "alone", settings(SEED)).advance(5))


# --- Divergence.

WILD = settings(SEED, train={"lr": 1e30})


def test_a_loss_that_is_not_finite_ends_the_arm_and_is_remembered(tmp_path):
    place = Place(tmp_path / "wild", WILD)
    with pytest.raises(
        DivergedError, match=r"arm [0-9a-f]{16}: loss (nan|inf) at step 2$"
    ) as caught:
        place.advance(9)
    assert caught.value.divergence.step == 2
    assert trained(place.told) == [1]
    assert place.store.divergence(place.arm.digest) == caught.value.divergence
    place.told.clear()
    for to_step in (9, 2, 100):
        with pytest.raises(DivergedError) as again:
            place.advance(to_step)
        assert again.value.divergence == caught.value.divergence
    assert place.told == []


def test_a_step_that_diverges_moves_nothing(tmp_path):
    run = new_run(tmp_path, settings(SEED))
    with torch.no_grad():
        run.subject.model.head.weight[0, 0] = math.nan
    before = weights(run)
    assert math.isnan(run.train_step())
    torch.testing.assert_close(weights(run), before, rtol=0, atol=0, equal_nan=True)


def test_an_evaluation_that_is_not_finite_ends_the_arm_too(tmp_path):
    # The first loss is that of the untouched model; only the evaluation sees what the step did.
    place = Place(tmp_path / "wild", WILD)
    with pytest.raises(DivergedError, match=r"loss (nan|inf) at step 1$"):
        place.advance(1)
    assert place.store.evaluated_steps(place.arm.digest) == []
    assert place.store.divergence(place.arm.digest).step == 1


def test_an_arm_that_diverged_later_is_still_evaluated_before(tmp_path):
    place = Place(tmp_path / "one", settings(SEED))
    place.store.register(place.arm)
    place.store.save_divergence(place.arm.digest, Divergence(5, "nan"))
    assert place.advance(4).step == 4
    with pytest.raises(DivergedError):
        place.advance(5)


# --- ArmInputs.


def test_materials_are_gathered_once_for_all_arms_of_a_context(tmp_path):
    one = gather(settings(SEED), tmp_path)
    assert gather(settings(), tmp_path) is one
    assert gather(settings(train={"lr": 0.5}), tmp_path) is one
    assert gather(settings(task={**settings().task.__dict__, "length": 3}), tmp_path) is not one


def test_an_arm_is_made_of_the_contents_it_stands_on(tmp_path):
    data = materials(tmp_path, settings(SEED))
    arm = data.arm(settings(SEED), 2)
    assert isinstance(arm, ArmSpec)
    assert arm.seeds.index == 2
    assert (arm.train_digest, arm.evaluated_digest) == (data.train.digest, data.evaluated.digest)
    assert arm.checkpoint_digest is None


# --- Gates alone.

GATES_ONLY = {"parameters": "gates"}


def on_a_checkpoint(folder: Path, **values: Any) -> ArmSettings:
    """Settings with a model in which every weight takes part: a new one puts out nothing."""
    model = initialise(ModelConfig(**SHAPES), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save(model, folder / "model.pth")
    return settings(model={"checkpoint": str(folder / "model.pth")}, **values)


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_of_gates_alone_nothing_else_moves(tmp_path, gate):
    arm = on_a_checkpoint(tmp_path, future_seed=SEED | {"gate": gate}, train=GATES_ONLY)
    place = Place(tmp_path / "arm", arm)
    outcome = place.advance(5)
    saved = place.saved()
    assert saved["step"] == 5
    for name, tensor in load(tmp_path / "model.pth").state_dict().items():
        assert torch.equal(tensor, saved["model"][name]), name
    for name, tensor in saved["mechanisms"]["future_seed"].items():
        assert (tensor != 0.0).all(), name
    assert outcome.diagnostics["unmoved_share"] == 1.0
    assert outcome.diagnostics["grad_norm/gates"] > 0
    assert outcome.train_tokens > 0
    assert trained(place.told) == [1, 2, 3, 4, 5]


def test_gates_alone_take_the_first_step_that_they_take_beside_a_model(tmp_path):
    together, alone = (
        new_run(tmp_path, on_a_checkpoint(tmp_path, future_seed=SEED, train=train))
        for train in ({}, GATES_ONLY)
    )
    assert together.train_step() == alone.train_step()
    ours, theirs = (run.subject.acting["future_seed"].alpha for run in (together, alone))
    assert torch.equal(ours, theirs)
    assert all(x.grad is None for x in alone.subject.model.parameters())
    assert not torch.equal(together.subject.model.head.weight, alone.subject.model.head.weight)


def test_a_baseline_without_gates_to_train_is_the_model_as_it_came(tmp_path):
    arm = on_a_checkpoint(tmp_path, train=GATES_ONLY)
    place = Place(tmp_path / "arm", arm, every=2)
    wanted = new_run(tmp_path, arm).outcome()
    found = [place.advance(step) for step in (2, 5)]
    assert [outcome.step for outcome in found] == [2, 5]
    assert place.store.evaluated_steps(place.arm.digest) == [2, 4, 5]
    for outcome in found:
        for name, values in wanted.measures.items():
            np.testing.assert_array_equal(outcome.measures[name], values, err_msg=name)
    assert trained(place.told) == [], "there is nothing to train"
    assert found[-1].train_tokens == 0
    for name, tensor in load(tmp_path / "model.pth").state_dict().items():
        assert torch.equal(tensor, place.saved()["model"][name]), name


def test_gates_alone_go_on_as_if_never_stopped(tmp_path):
    arm = on_a_checkpoint(tmp_path, future_seed=SEED, train=GATES_ONLY)
    whole, parts = (Place(tmp_path / name, arm) for name in ("whole", "parts"))
    parts.advance(2)
    assert_same_numbers(parts.advance(5), whole.advance(5))
    assert_same_checkpoint(parts.saved(), whole.saved())
