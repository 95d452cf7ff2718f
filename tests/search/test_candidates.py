import pytest
from arm_cases import SPEC, spec
from climbing_cases import Climbing

from fstune.search.candidates import equal_in_effect

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SPACE = (
    SPEC.partition("space:")[0]
    + """\
space:
  future_seed.alpha: {uniform: [-40.0, 4.0]}
  future_seed.alpha_lr: {choice: [0.0, 1.0e-6, 0.1]}
  future_seed.gate: {choice: [scalar, head, input]}
  future_seed.norm: {choice: [true, false]}
  future_seed.detach: {choice: [true, false]}
  future_seed.clip: {choice: [0.0, 0.5, 100.0]}
  future_seed.seed_scale: {choice: [0.5, 1.0]}
  train.lr: {choice: [1.0e-3, 1.0e-2]}
search: {trials: 4}
"""
)
BASE = {
    "future_seed.alpha": 0.0,
    "future_seed.alpha_lr": 0.0,
    "future_seed.gate": "scalar",
    "future_seed.norm": True,
    "future_seed.detach": False,
    "future_seed.clip": 0.0,
    "future_seed.seed_scale": 1.0,
    "train.lr": 1e-2,
}


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ({}, {}, True),
        ({}, {"alpha": 0.019}, True),  # σ'(0) = 1/4: under 1 %
        ({}, {"alpha": 0.021}, False),
        ({}, {"alpha_lr": 1e-6}, True),
        ({}, {"alpha_lr": 0.1}, False),
        ({"alpha_lr": 0.1}, {"alpha_lr": 0.1, "alpha": 0.001}, False),
        ({}, {"gate": "head"}, True),
        ({}, {"gate": "input"}, True),
        ({"alpha_lr": 1e-6}, {"alpha_lr": 1e-6, "gate": "input"}, False),
        ({}, {"clip": 100.0}, True),  # D = 8 and a gate of 1/2: no entry is over 4
        ({}, {"clip": 0.5}, False),
        ({"norm": False}, {"norm": False, "clip": 100.0}, False),
        ({}, {"norm": False}, False),
        ({}, {"detach": True}, False),
        ({"alpha": -30.0}, {"alpha": -35.0, "norm": False}, True),  # both lost in rounding
        ({"alpha": -30.0}, {"alpha": -10.0}, False),
        ({"alpha": 4.0, "seed_scale": 0.5}, {"alpha": -0.0366, "seed_scale": 1.0}, True),
    ],
)
def test_equal_in_effect(tmp_path, first, second, equal):
    of = spec(tmp_path, SPACE)
    assert of.model.init is not None
    one, other = (
        BASE | {f"future_seed.{name}": value for name, value in part.items()}
        for part in (first, second)
    )
    for left, right in ((one, other), (other, one)):
        arms = (of.settings(left), of.settings(right))
        assert equal_in_effect(*arms, of.rungs[-1].steps, of.model.init) == equal
    elsewhere = of.settings(other | {"train.lr": 1e-3})
    assert not equal_in_effect(of.settings(one), elsewhere, of.rungs[-1].steps, of.model.init)


@pytest.mark.parametrize(
    ("second", "equal"),
    [
        ({"future_seed.alpha": -35.0}, True),
        ({"future_seed.alpha": 0.0}, False),
        ({"future_seed.alpha": -35.0, "second_pass.alpha": -1.0}, False),
    ],
    ids=str,
)
def test_of_two_mechanisms_each_has_to_be_equal(tmp_path, second, equal):
    also = "  second_pass.alpha: {choice: [-3.0, -1.0]}\nfixed: {second_pass: {alpha_lr: 0.1}}\n"
    of = spec(tmp_path, SPACE.replace("search:", f"{also}search:"))
    assert of.model.init is not None
    first = BASE | {"future_seed.alpha": -30.0, "second_pass.alpha": -3.0}
    arms = (of.settings(first), of.settings(first | second))
    assert equal_in_effect(*arms, of.rungs[-1].steps, of.model.init) == equal


def test_an_equal_candidate_takes_the_first_one_s_result_and_trains_nothing(tmp_path):
    text = (
        SPEC.partition("space:")[0]
        + """\
space:
  future_seed.alpha: {choice: [-40.0, -30.0, 0.0, 2.0]}
  future_seed.norm: {choice: [true, false]}
search: {trials: 8, reduction_factor: 2, scheduler: asha_promote}
"""
    )
    search = Climbing(tmp_path, text)
    search.run()
    trials = search.records.trials()
    shut = [trial for trial in trials if trial.candidate["future_seed.alpha"] <= -30]
    first, *others = shut
    assert first.equals is None
    assert [trial.equals for trial in others] == [first.number] * 3
    assert all((t.rungs, t.end) == (first.rungs, first.end) for t in others)
    trained = {number for number, _ in search.jobs}
    assert trained == {trial.number for trial in trials if trial.equals is None}
    assert all(trial.end for trial in trials)
    search.killed()
    search.run()
    assert search.records.trials() == trials
