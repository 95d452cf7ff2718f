"""How far an arm goes: stopping, going on, diverging, and gates that are trained alone."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from arm_cases import (
    SEED,
    Place,
    assert_same_checkpoint,
    assert_same_numbers,
    new_run,
    on_a_checkpoint,
    settings,
    trained,
    weights,
)

from fstune.arms.advance import DivergedError, advance
from fstune.arms.store import Divergence
from model.checkpoint import load

# --- Stopping and going on.

COSINE = {"lr_schedule": "cosine", "lr_total_steps": 8, "lr_warmup_steps": 2}
INTERRUPTED = settings(SEED, train=COSINE)
ALL_MECHANISMS = {"learned_state": {"lr": 0.1}, "second_pass": {"alpha_lr": 0.1}}
WITH_MUON = settings(SEED, train=COSINE | {"optimizer": "muon"}, **ALL_MECHANISMS)


@pytest.mark.parametrize(
    ("arm", "stop"),
    [(INTERRUPTED, stop) for stop in range(1, 6)] + [(WITH_MUON, stop) for stop in (1, 4)],
    ids=lambda each: each if isinstance(each, int) else each.train.optimizer,
)
def test_an_arm_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, arm, stop):
    through = Place(tmp_path / "through", arm)
    wanted = through.advance(6)
    Place(tmp_path / "stopped", arm).advance(stop)
    resumed = Place(tmp_path / "stopped", arm)
    torch.rand(7)  # a random stream that stands elsewhere
    found = resumed.advance(6)
    assert trained(resumed.told) == list(range(stop + 1, 7))
    assert_same_numbers(found, wanted)
    assert found.train_tokens == wanted.train_tokens
    assert_same_checkpoint(resumed.saved(), through.saved())


def test_an_arm_goes_on_from_a_checkpoint_of_when_there_was_one_mechanism(tmp_path):
    through, resumed = (new_run(tmp_path, INTERRUPTED) for _ in range(2))
    for _ in range(3):
        through.train_step()
    through.save(tmp_path / "run.pt")
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    # As version 0.1.0 wrote it.
    saved["gates"] = saved.pop("mechanisms")["future_seed"]
    [saved["schedule"]] = saved.pop("schedules")
    torch.save(saved, tmp_path / "run.pt")
    resumed.restore(tmp_path / "run.pt")
    assert [resumed.train_step() for _ in range(3)] == [through.train_step() for _ in range(3)]
    assert_same_numbers(resumed.outcome(), through.outcome())


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


# --- Gates alone.

GATES_ONLY = {"parameters": "gates"}


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
