"""What Tune is given: a suggester and a scheduler that a kill cannot change."""

import itertools
import json
import math
import pickle

import numpy as np
import pytest
from arm_cases import made, rung_record, spec
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from fstune.records import EndRecord
from fstune.trainable import OBJECTIVE, RUNG_CLOCK
from fstune.tuning import RungAsha, Suggester, snapshot_fault

SPACE = """\
name: small
model: {init: {num_layers: 4, width: 16, head_size: 8, vocab_size: 256}}
task: {name: rightcopy, length: 2, train_size: 10, validation_size: 6}
rungs: [{steps: 2}, {steps: 4}, {steps: 8}]
space:
  future_seed.alpha: {uniform: [-3.0, 3.0]}
  future_seed.schedule.kind: {choice: [none, linear]}
  future_seed.schedule.min: {uniform: [0.1, 0.5], when: {future_seed.schedule.kind: linear}}
points:
  - {future_seed.alpha: 1.5, future_seed.schedule.kind: none}
search: {trials: 30, seed: 7}
"""
pytestmark = pytest.mark.filterwarnings("ignore:Argument ``group`` is an experimental feature")


@pytest.fixture
def search(tmp_path):
    made_of = spec(tmp_path, SPACE)
    return made_of, made(tmp_path, made_of)


def told(suggester, number, value=None, last=True):
    """Suggest a trial and tell how it ended; returns the suggestion."""
    trial = f"trial{number}"
    suggestion = suggester.suggest(trial)
    result = {OBJECTIVE: value, "training_iteration": 1, "last_rung": last}
    suggester.on_trial_complete(trial, None if value is None else result)
    return suggestion


def gain(candidate):
    return -abs(candidate["future_seed.alpha"] - 2.0)


def run(suggester, numbers):
    """Suggest trials whose result depends on the candidate alone."""
    candidates = []
    for number in numbers:
        suggestion = suggester.suggest(f"trial{number}")
        candidate = suggestion["candidate"]
        result = {OBJECTIVE: gain(candidate), "training_iteration": 1, "last_rung": number % 3 == 0}
        suggester.on_trial_complete(f"trial{number}", result)
        candidates.append(candidate)
    return candidates


def test_points_come_first_and_numbers_are_dense(search):
    suggester = Suggester(*search)
    suggestions = [told(suggester, number, 0.0) for number in range(3)]
    assert suggestions[0]["candidate"] == dict(search[0].points[0])
    assert [suggestion["number"] for suggestion in suggestions] == [0, 1, 2]
    assert [search[1].trial(n).candidate for n in range(3)] == [s["candidate"] for s in suggestions]


def test_a_setting_is_drawn_only_where_its_condition_holds(search):
    candidates = run(Suggester(*search), range(20))
    kinds = {candidate["future_seed.schedule.kind"] for candidate in candidates}
    assert kinds == {"none", "linear"}
    for candidate in candidates:
        has_min = "future_seed.schedule.min" in candidate
        assert has_min == (candidate["future_seed.schedule.kind"] == "linear")


@pytest.mark.parametrize("kept", [1, 5, 14])
def test_a_suggester_that_is_made_again_goes_on_as_the_first_would_have(search, tmp_path, kept):
    unbroken = run(Suggester(*search), range(16))
    again = tmp_path / "again"
    again.mkdir()
    records = made(again, search[0])
    run(Suggester(search[0], records), range(kept))
    assert run(Suggester(search[0], records), range(16)) == unbroken


def test_a_recorded_trial_is_suggested_as_it_was_whatever_would_be_drawn_now(search):
    # With several slots a draw depends on which trials had ended by then.
    candidate = {"future_seed.alpha": -2.5, "future_seed.schedule.kind": "none"}
    for number in range(3):
        search[1].write_candidate(number, candidate | {"future_seed.alpha": -2.5 + number})
    suggester = Suggester(*search)
    suggestions = [told(suggester, number, 0.0) for number in range(4)]
    drawn = [suggestion["candidate"]["future_seed.alpha"] for suggestion in suggestions]
    assert drawn[:3] == [-2.5, -1.5, -0.5]
    assert drawn[3] not in drawn[:3]


def test_a_suggester_that_tune_saved_goes_on_as_if_never_stopped(search, tmp_path):
    unbroken = run(Suggester(*search), range(16))
    again = tmp_path / "again"
    again.mkdir()
    suggester = Suggester(search[0], made(again, search[0]))
    run(suggester, range(12))
    suggester.save(str(tmp_path / "searcher.pkl"))
    restored = pickle.loads(pickle.dumps(Suggester(search[0], made(tmp_path / "x", search[0]))))
    restored.restore(str(tmp_path / "searcher.pkl"))
    assert run(restored, range(12, 16)) == unbroken[12:]


def test_draws_depend_on_what_trials_came_to(search, tmp_path):
    after_gains = run(Suggester(*search), range(20))[-1]
    again = tmp_path / "again"
    again.mkdir()
    suggester = Suggester(search[0], made(again, search[0]))
    for number in range(19):
        candidate = suggester.suggest(f"trial{number}")["candidate"]
        result = {OBJECTIVE: -gain(candidate), "training_iteration": 1, "last_rung": True}
        suggester.on_trial_complete(f"trial{number}", result)
    assert suggester.suggest("trial19")["candidate"] != after_gains


def test_optuna_is_told_what_became_of_a_trial(search):
    suggester = Suggester(*search)
    told(suggester, 0, 0.5, last=True)
    told(suggester, 1, 0.25, last=False)
    told(suggester, 2, math.nan)
    told(suggester, 3, None)
    trials = suggester._ot_study.trials
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    assert [trial.state for trial in trials] == states
    assert [trial.value for trial in trials[:2]] == [0.5, 0.25]


class PlainAsha:
    """Stopping ASHA by its definition: at a rung, stop below the top share of what came there."""

    def __init__(self, factor):
        self.factor = factor
        self.rungs = {}

    def stops(self, rung, value):
        seen = self.rungs.setdefault(rung, [])
        cutoff = np.percentile(seen, 100 * (1 - 1 / self.factor)) if seen else -math.inf
        seen.append(value)
        return value < cutoff


def tune_trial(number, rung=-1):
    trial = Trial("PairedTrial", config={"number": number}, stub=True, trial_id=f"{number:08d}")
    if rung >= 0:
        trial.run_metadata.last_result = {"rung": rung}
    return trial


def asha(folder, rungs, factor):
    text = SPACE.replace(
        "rungs: [{steps: 2}, {steps: 4}, {steps: 8}]",
        f"rungs: {json.dumps([{'steps': k + 1} for k in range(rungs)])}",
    ).replace("seed: 7", f"seed: 7, reduction_factor: {factor}")
    made_of = spec(folder, text)
    records = made(folder, made_of)
    return RungAsha(made_of, records), records


@pytest.mark.parametrize(("rungs", "factor"), [(2, 2), (3, 3), (4, 4), (6, 3), (6, 10), (5, 2)])
def test_every_rung_is_a_milestone(tmp_path, rungs, factor):
    scheduler, records = asha(tmp_path, rungs, factor)
    plain = PlainAsha(factor)
    rng = np.random.default_rng(rungs)
    decisions = []
    for number in range(60):
        trial = tune_trial(number)
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        scheduler.on_trial_add(None, trial)
        for rung in range(rungs - 1):
            value = float(rng.normal())
            result = {RUNG_CLOCK: factor**rung, OBJECTIVE: value, "rung": rung}
            stops = scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
            assert stops == plain.stops(rung, value)
            decisions.append(stops)
            if stops:
                break
    assert set(decisions) == {True, False}


def test_a_scheduler_that_is_made_again_knows_the_rungs_of_restored_trials(tmp_path):
    first, records = asha(tmp_path, 3, 2)
    rng = np.random.default_rng(0)
    trials = []
    for number, rung in itertools.product(range(8), range(2)):
        value = float(rng.normal())
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        records.write_rung(number, rung_record(rung, objective=value))
        if rung == 0:
            trials.append(tune_trial(number))
            first.on_trial_add(None, trials[-1])
        result = {RUNG_CLOCK: 2**rung, OBJECTIVE: value, "rung": rung}
        first.on_trial_result(None, trials[-1], result)
    again = RungAsha(spec(tmp_path, SPACE.replace("seed: 7", "reduction_factor: 2")), records)
    for number in range(8):
        again.on_trial_add(None, tune_trial(number, rung=1))
    newcomer = tune_trial(8)
    for scheduler in (first, again):
        scheduler.on_trial_add(None, newcomer)
    for value in (-3.0, -0.5, 0.0, 0.5, 3.0):
        result = {RUNG_CLOCK: 1, OBJECTIVE: value, "rung": 0}
        copies = [pickle.loads(pickle.dumps(scheduler)) for scheduler in (first, again)]
        decisions = {copy.on_trial_result(None, newcomer, result) for copy in copies}
        assert len(decisions) == 1


def test_a_trial_that_went_on_before_is_not_stopped_now(tmp_path):
    scheduler, records = asha(tmp_path, 3, 2)
    for number in range(6):
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        trial = tune_trial(number)
        scheduler.on_trial_add(None, trial)
        result = {RUNG_CLOCK: 1, OBJECTIVE: 1.0 - number, "rung": 0}
        decision = scheduler.on_trial_result(None, trial, result)
    assert decision == TrialScheduler.STOP
    records.write_candidate(6, {"future_seed.alpha": 6.0})
    records.write_rung(6, rung_record(0))
    records.write_rung(6, rung_record(1))
    trial = tune_trial(6)
    scheduler.on_trial_add(None, trial)
    result = {RUNG_CLOCK: 1, OBJECTIVE: -9.0, "rung": 0}
    assert scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE


def test_a_snapshot_that_is_not_there_is_a_fault(search):
    _, records = search
    records.write_end(0, EndRecord("completed", "reached the last rung"))
    assert "torn: FileNotFoundError" in snapshot_fault(records.tune, records)
