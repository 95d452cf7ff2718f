"""Weights that have come to rest: their mean over the steps, and a branch that cools at a rung."""

import dataclasses
from pathlib import Path
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
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fstune.arms.advance import advance, train_again
from fstune.arms.arm import Outcome
from fstune.arms.mean import WeightMean
from fstune.arms.trainer import ArmTrainer, evaluated_states
from fstune.specs.sections import EvaluationSettings
from fstune.specs.settings import ArmSettings

DECAY = 0.7
MEAN = {"weights": "mean", "mean_decay": DECAY}
COOLED = {"cooldown": 0.5, "cooled_at": (4, 8)}
BOTH = MEAN | COOLED
WAYS = {"mean": MEAN, "cooled": COOLED, "both": BOTH}
ALL_MECHANISMS = {"learned_state": {"lr": 0.1}, "second_pass": {"alpha_lr": 0.1}}
COSINE = {"lr_schedule": "cosine", "lr_total_steps": 9, "lr_warmup_steps": 2}


def arm(way: dict[str, Any] | None = None, **changes: Any) -> ArmSettings:
    """An arm whose rates change from step to step, evaluated that way."""
    train = COSINE | changes.pop("train", {})
    return settings(SEED, train=train, evaluation=way or {}, **changes)


def all_weights(run: ArmTrainer) -> dict[str, torch.Tensor]:
    """The model's and the mechanisms', by names that tell them apart."""
    found = weights(run)
    for name, acting in run.subject.acting.items():
        found |= {f"{name}/{key}": x.clone() for key, x in acting.state_dict().items()}
    return found


def assert_same_measures(found: Outcome, wanted: Outcome) -> None:
    for name, values in wanted.measures.items():
        np.testing.assert_array_equal(found.measures[name], values, err_msg=name)


# --- The mean.


def mean_by_hand(history: list[np.ndarray], decay: float) -> np.ndarray:
    """The weighted mean of all of a parameter's values, in float64."""
    shares = decay ** np.arange(len(history) - 1, -1, -1.0)
    return np.tensordot(shares / shares.sum(), np.stack(history).astype(np.float64), axes=1)


@given(
    st.floats(0.01, 0.999),
    st.lists(st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=1, max_size=40),
)
def test_the_mean_is_that_of_all_steps_by_their_age(decay, steps):
    module = nn.Linear(3, 1, bias=False)
    mean = WeightMean(module, decay)
    for count, values in enumerate(steps, start=1):
        module.weight.data = torch.tensor([values])
        mean.update(count)
    wanted = mean_by_hand([np.array([values]) for values in steps], decay)
    found = mean.state_dict()["weight"]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)
    if len(steps) == 1:
        assert torch.equal(found, module.weight)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_arms_mean_is_that_of_its_weights_and_leaves_its_training_alone(tmp_path, optimizer):
    plain, averaged = (
        new_run(tmp_path, arm(way, train={"optimizer": optimizer}, **ALL_MECHANISMS))
        for way in ({}, MEAN)
    )
    history = []
    for step in range(6):
        assert plain.train_step() == averaged.train_step()
        history.append(all_weights(plain))
        if step % 2:
            averaged.outcome()  # lays the mean under the model, and takes it away again
    after = all_weights(averaged)
    assert all(torch.equal(after[name], x) for name, x in history[-1].items())
    with averaged._evaluated_weights():
        found = all_weights(averaged)
    for name, value in found.items():
        wanted = mean_by_hand([each[name].numpy() for each in history], DECAY)
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_mean_is_what_is_evaluated_and_what_is_written(tmp_path):
    place = Place(tmp_path / "arm", arm(MEAN))
    found = place.advance(5)
    by_hand = new_run(tmp_path, arm())
    model, acting = evaluated_states(place.saved(), ["future_seed"])
    assert not torch.equal(model["head.weight"], place.saved()["model"]["head.weight"])
    by_hand.subject.model.load_state_dict(model)
    by_hand.subject.acting["future_seed"].load_state_dict(acting["future_seed"])
    wanted = by_hand.outcome()
    assert_same_measures(found, wanted)
    assert found.predictions == wanted.predictions
    for name in ("gate/L01", "unmoved_share"):
        assert found.diagnostics[name] == wanted.diagnostics[name]
    last = Place(tmp_path / "last", arm()).advance(5)
    assert (found.measures["nll_sum"] != last.measures["nll_sum"]).all()


def test_what_is_not_trained_has_no_mean(tmp_path):
    gates = on_a_checkpoint(
        tmp_path, future_seed=SEED, train={"parameters": "gates"}, evaluation=MEAN
    )
    place = Place(tmp_path / "gates", gates)
    place.advance(3)
    means = place.saved()["means"]
    assert means["model"] == {}
    assert means["mechanisms"]["future_seed"].keys() == {"alpha"}
    still = new_run(tmp_path, settings(SEED | {"alpha_lr": 0.0}, evaluation=MEAN))
    assert still._acting_means["future_seed"].state_dict() == {}


def test_a_mean_of_other_parameters_is_refused():
    with pytest.raises(ValueError, match=r"a mean of \['weight'\], got one of \['bias'\]"):
        WeightMean(nn.Linear(2, 2, bias=False), 0.5).load_state_dict({"bias": torch.zeros(2)})


# --- The branch.


def cooled_by_hand(folder: Path, arm_settings: ArmSettings, start: int, end: int) -> Outcome:
    """The same arm, its rates set by hand before each step of the branch."""
    run = new_run(folder, arm_settings)
    while run.step < end:
        groups = [group for optimizer in run._optimizers for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups:
            if run.step >= start:
                group["lr"] *= (end - run.step) / (end - start)
        run.train_step()
        for group, rate in zip(groups[-1:], rates[-1:], strict=True):
            group["lr"] = rate  # a mechanism's rate, which no schedule sets anew
    return run.outcome()


@pytest.mark.parametrize("rest", [{}, MEAN], ids=["last", "mean"])
@pytest.mark.parametrize("train", [{}, {"optimizer": "muon"}, {"lr_schedule": "constant"}], ids=str)
def test_a_rung_is_a_branch_whose_rates_fall_to_0(tmp_path, rest, train):
    if train.get("lr_schedule") == "constant":
        train = train | {"lr_total_steps": None}
    place = Place(tmp_path / "arm", arm(COOLED | rest, train=train))
    for end in (4, 8):
        found = place.advance(end)
        wanted = cooled_by_hand(tmp_path, arm(rest, train=train), end // 2, end)
        assert_same_measures(found, wanted)
        assert (found.step, found.predictions) == (end, wanted.predictions)
    undecayed = Place(tmp_path / "last", arm(rest, train=train)).advance(8)
    assert (found.measures["nll_sum"] != undecayed.measures["nll_sum"]).any()


def test_a_branch_changes_nothing_of_what_goes_on_beside_it(tmp_path):
    place = Place(tmp_path / "arm", arm(BOTH), every=2)
    plain = Place(tmp_path / "plain", arm(MEAN), every=2)
    plain.advance(4)
    for end in (4, 8):
        place.advance(end)
    assert place.store.evaluated_steps(place.arm.digest) == [2, 4, 8]
    found, wanted = (each.store.outcome(each.arm.digest, 2) for each in (place, plain))
    assert_same_numbers(found, dataclasses.replace(wanted, arm=found.arm))
    saved = place.saved()
    assert saved["tokens"] == plain.saved()["tokens"] * 6 // 4, "a branch of 2 steps"
    assert_same_checkpoint(saved, plain.saved() | {"tokens": saved["tokens"]})


@pytest.mark.parametrize("every", [1, 3])
def test_while_a_branch_cools_nothing_else_is_evaluated(tmp_path, every):
    place = Place(tmp_path / "arm", arm({"cooldown": 0.25, "cooled_at": (4, 12)}), every)
    for end in (4, 12):
        place.advance(end)
    beside = [step for step in (1, 2, 3, 5, 6, 7, 8, 9) if step % every == 0]
    assert place.store.evaluated_steps(place.arm.digest) == sorted([*beside, 4, 12])


def test_an_arm_goes_no_further_than_its_last_branch(tmp_path):
    place = Place(tmp_path / "arm", arm(BOTH))
    place.advance(4)
    assert trained(place.told) == [1, 2, 3, 4]
    assert place.saved()["step"] == 2
    place.told.clear()
    found = place.advance(8)
    assert trained(place.told) == [3, 4, 5, 6, 7, 8]
    assert [progress.step for progress in place.told if progress.doing == "evaluate"] == [8]
    assert place.saved()["step"] == 4
    assert found.train_tokens == 3 * len("L=12|M=__|R=12") * 10


@pytest.mark.parametrize("every", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.99])
def test_the_steps_that_are_taken_are_counted(tmp_path, every, share):
    rungs = (4, 8)
    way = {"cooldown": share, "cooled_at": rungs}
    place = Place(tmp_path / "arm", arm(way), every)
    for count in (1, 2):
        place.advance(rungs[count - 1])
        said = EvaluationSettings(cooldown=share, every=every).steps_taken(rungs[:count])
        assert len(trained(place.told)) == said


def test_an_arm_that_is_past_a_branch_is_trained_again_for_it(tmp_path):
    place = Place(tmp_path / "arm", arm(BOTH))
    place.advance(8)
    before = place.saved()
    found = place.advance(4)
    assert_same_numbers(found, Place(tmp_path / "alone", arm(BOTH)).advance(4))
    assert_same_checkpoint(place.saved(), before)
    step, _ = place.store.latest_weights(place.arm.digest, cooled=True)
    assert step == 8


def test_a_model_that_nothing_trains_cools_to_itself(tmp_path):
    chosen = on_a_checkpoint(tmp_path, train={"parameters": "gates"}, evaluation=BOTH)
    place = Place(tmp_path / "arm", chosen)
    for end in (4, 8):
        found = place.advance(end)
        assert_same_measures(found, new_run(tmp_path, chosen).outcome())
    assert trained(place.told) == []


def test_a_branch_that_runs_out_of_memory_leaves_the_arm_its_batch(tmp_path, monkeypatch):
    place = Place(tmp_path / "arm", arm(COOLED))
    fits = ArmTrainer._step

    def short(run: ArmTrainer, indices: Any, rate: float = 1.0) -> Any:
        if rate < 1.0 and run._micro_batch > 2:
            raise torch.OutOfMemoryError
        return fits(run, indices, rate)

    monkeypatch.setattr(ArmTrainer, "_step", short)
    found = place.advance(4)
    assert found.events == (
        "step 3: out of memory, training batch 3: from now on layers are recomputed for gradients",
        "step 3: out of memory, training batch 3: from now on 2 examples at a time",
    )
    place.advance(8)
    assert place.saved()["micro_batch"] == 3
    assert place.saved()["events"] == []


# --- Going on after a kill.


class Killed(BaseException):
    """Ends a process as a kill would: nothing catches it."""


def bring_up(place: Place) -> None:
    torch.manual_seed(0)  # as every process begins alike
    for end in (4, 8):
        advance(place.arm, place.data, end, place.bench)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_an_arm_killed_at_any_moment_goes_on_to_the_same_end(tmp_path, way, every):
    through = Place(tmp_path / "through", arm(WAYS[way]), every)
    bring_up(through)
    moments = len(through.told)
    assert moments > 8
    for moment in range(moments):
        killed = Place(tmp_path / str(moment), arm(WAYS[way]), every)
        left = [None] * moment

        def kill(_: Any, left: list[None] = left) -> None:
            if not left:
                raise Killed
            left.pop()

        whole = killed.bench
        killed.bench = dataclasses.replace(whole, on_progress=kill)
        with pytest.raises(Killed):
            bring_up(killed)
        killed.bench = whole
        bring_up(killed)
        assert_same_arm(killed, through)


def assert_same_arm(found: Place, wanted: Place) -> None:
    """All that the store has of an arm, but for the times."""
    digest = wanted.arm.digest
    steps = wanted.store.evaluated_steps(digest)
    assert found.store.evaluated_steps(digest) == steps
    for step in steps:
        assert_same_numbers(found.store.outcome(digest, step), wanted.store.outcome(digest, step))
    assert_same_checkpoint(found.saved(), wanted.saved())
    theirs, ours = (each.store.latest_weights(digest, cooled=True) for each in (wanted, found))
    if theirs is not None:
        assert ours[0] == theirs[0]
        contents = [torch.load(at[1] / "run.pt", weights_only=True) for at in (ours, theirs)]
        for saved in contents:
            saved["train_wall_s"] = 0.0
        assert_same_checkpoint(*contents)


# --- Weights that leave the arm.


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_of_an_arm_are_those_of_its_last_outcome(tmp_path, way):
    place = Place(tmp_path / "arm", arm(WAYS[way]))
    bring_up(place)
    stored = place.store.outcome(place.arm.digest, 8)
    for again in (False, True):
        if again:
            place.store.drop_checkpoints(place.arm.digest)
            assert place.store.latest_weights(place.arm.digest, "cooldown" in WAYS[way]) is None
        folder = train_again(place.arm, place.data, 8, place.bench)
        saved = torch.load(folder / "run.pt", weights_only=True)
        assert saved["step"] == 8
        model, acting = evaluated_states(saved, ["future_seed"])
        run = new_run(tmp_path, arm())
        run.subject.model.load_state_dict(model)
        run.subject.acting["future_seed"].load_state_dict(acting["future_seed"])
        assert_same_measures(run.outcome(), stored)


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_an_earlier_rung_are_not_those_of_a_later_one(tmp_path, way):
    place, through = (Place(tmp_path / name, arm(WAYS[way])) for name in ("short", "through"))
    place.advance(4)
    bring_up(through)
    folders = [train_again(each.arm, each.data, 8, each.bench) for each in (place, through)]
    found, wanted = (torch.load(at / "run.pt", weights_only=True)["model"] for at in folders)
    assert all(torch.equal(found[name], x) for name, x in wanted.items())
