import json
import math
import pickle
import random
import shutil
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_cases import SPEC, made, rung_record, spec
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from search_process import Place, wait_until

from fstune.errors import StoreError
from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord
from fstune.search.asha import RungAsha, Suggester, scheduler, snapshot_fault
from fstune.search.bookkeeping import trial_folder
from fstune.search.trainable import OBJECTIVE, RUNG_CLOCK

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

CONDITIONAL = (
    SPEC.partition("space:")[0]
    + """\
space:
  future_seed.alpha: {uniform: [-4.0, 2.0]}
  future_seed.schedule.kind: {choice: [none, linear]}
  future_seed.schedule.min: {uniform: [0.1, 0.5], when: {future_seed.schedule.kind: linear}}
search: {trials: 30, seed: 5}
points:
  - {future_seed.alpha: 1.5, future_seed.schedule.kind: none}
  - {future_seed.alpha: -1.5, future_seed.schedule.kind: linear, future_seed.schedule.min: 0.25}
"""
)


class Asked:
    """A suggester with a search of its own, and all that it was asked and told."""

    def __init__(self, folder: Path, text: str = CONDITIONAL) -> None:
        folder.mkdir(exist_ok=True)
        self.spec = spec(folder, text)
        self.records = made(folder, self.spec)
        self.suggester = Suggester(self.spec, self.records)

    def anew(self) -> Suggester:
        """Another suggester for the same search."""
        return Suggester(self.spec, self.records)

    def ask(self, number: int) -> Any:
        """The candidate of a trial."""
        return ask(self.suggester, number)


def ask(suggester: Suggester, number: int) -> Any:
    config = suggester.suggest(f"t{number}")
    assert config is not None
    assert config["number"] == number
    return config["candidate"]


def result(objective: float, rung: int = 1, last: bool = True) -> dict[str, Any]:
    return {OBJECTIVE: objective, "training_iteration": rung + 1, "rung": rung, "last_rung": last}


def quality(candidate: dict[str, Any]) -> float:
    """Best at alpha -2."""
    return -abs(float(candidate["future_seed.alpha"]) + 2.0)


def told_by_quality(suggester: Suggester, number: int, sign: float = 1.0) -> Any:
    candidate = ask(suggester, number)
    suggester.on_trial_complete(f"t{number}", result(sign * quality(candidate)))
    return candidate


def test_points_come_first_and_then_draws_of_the_space(tmp_path):
    asked = Asked(tmp_path)
    candidates = [asked.ask(number) for number in range(12)]
    assert candidates[:2] == [dict(point) for point in asked.spec.points]
    draws = candidates[2:]
    assert len({json.dumps(draw) for draw in draws}) == len(draws)
    assert all(-4 <= draw["future_seed.alpha"] <= 2 for draw in draws)
    assert {draw["future_seed.schedule.kind"] for draw in draws} == {"none", "linear"}


def test_a_parameter_is_there_only_where_its_condition_is_met(tmp_path):
    asked = Asked(tmp_path)
    for number in range(12):
        candidate = asked.ask(number)
        linear = candidate["future_seed.schedule.kind"] == "linear"
        assert ("future_seed.schedule.min" in candidate) == linear
        assert asked.records.trial(number).candidate == candidate


def test_a_suggestion_names_trial_and_search_and_is_made_once(tmp_path):
    asked = Asked(tmp_path)
    config = asked.suggester.suggest("t0")
    assert config.keys() == {"number", "candidate", "search"}
    assert Path(config["search"]) == asked.records.root
    assert asked.suggester.suggest("t0") is None
    assert [asked.suggester.suggest(name)["number"] for name in ("x", "t7", "y")] == [1, 2, 3]
    assert len(asked.records.trials()) == 4


def test_searches_with_other_seeds_draw_otherwise(tmp_path):
    first = Asked(tmp_path / "5")
    second = Asked(tmp_path / "6", CONDITIONAL.replace("seed: 5", "seed: 6"))
    for number in range(4):
        assert (first.ask(number) == second.ask(number)) == (number < 2), "only points are alike"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_history_gives_the_same_next_suggestion(tmp_path, sampler):
    text = CONDITIONAL.replace("seed: 5", f"seed: 5, sampler: {sampler}")
    asked = Asked(tmp_path, text)
    history = [told_by_quality(asked.suggester, number) for number in range(14)]
    fresh = asked.anew()
    assert [told_by_quality(fresh, number) for number in range(14)] == history
    asked.suggester.save(str(tmp_path / "saved.pkl"))
    restored = asked.anew()
    restored.restore(str(tmp_path / "saved.pkl"))
    expected = asked.ask(14)
    folder = asked.records.root / "trials" / "0014"
    for suggester in (fresh, restored):
        shutil.rmtree(folder)
        assert ask(suggester, 14) == expected


def test_a_draw_depends_on_what_was_told(tmp_path):
    nexts = []
    for sign in (1.0, -1.0):
        asked = Asked(tmp_path / str(sign))
        for number in range(20):
            candidate = asked.ask(number)
            value = sign * quality(candidate)
            asked.suggester.on_trial_complete(f"t{number}", result(value))
        nexts.append([asked.ask(number)["future_seed.alpha"] for number in range(20, 28)])
    assert nexts[0] != nexts[1]
    near, far = (np.mean([abs(alpha + 2.0) for alpha in alphas]) for alphas in nexts)
    assert near < far, "TPE goes to where it was told that it is good"


def test_random_draws_do_not_depend_on_what_was_told(tmp_path):
    text = CONDITIONAL.replace("seed: 5", "seed: 5, sampler: random")
    nexts = []
    for sign in (1.0, -1.0):
        asked = Asked(tmp_path / str(sign), text)
        for number in range(20):
            told_by_quality(asked.suggester, number, sign)
        nexts.append(asked.ask(20))
    assert nexts[0] == nexts[1]


def test_a_recorded_candidate_is_suggested_again_as_it_was(tmp_path):
    asked = Asked(tmp_path)
    linear = {"future_seed.schedule.kind": "linear", "future_seed.schedule.min": 0.125}
    recorded = [
        {"future_seed.alpha": 0.1 + 0.2} | linear,
        {"future_seed.alpha": -3.0, "future_seed.schedule.kind": "none"},
        {"future_seed.alpha": 1 / 3} | linear,
    ]
    for number, candidate in enumerate(recorded):
        asked.records.write_candidate(number, candidate)
    assert [asked.ask(number) for number in range(3)] == recorded, "also instead of a point"


def test_a_record_that_the_space_cannot_give_is_not_passed_over(tmp_path):
    asked = Asked(tmp_path)
    asked.records.write_candidate(0, {"future_seed.alpha": 0.5})
    with pytest.raises(StoreError, match=r"trial 0 of small was {'future_seed.alpha': 0.5}, now"):
        asked.ask(0)


@pytest.mark.parametrize("kept", [1, 5, 14])
def test_a_replay_goes_on_from_what_was_recorded(tmp_path, kept):
    unbroken = Asked(tmp_path / "unbroken")
    expected = [told_by_quality(unbroken.suggester, number) for number in range(18)]
    broken = Asked(tmp_path / "broken")
    for number in range(kept):
        told_by_quality(broken.suggester, number)
    replay = broken.anew()
    assert [told_by_quality(replay, number) for number in range(18)] == expected


@pytest.mark.parametrize(
    ("last", "error", "state", "value"),
    [
        (result(0.5), False, TrialState.COMPLETE, 0.5),
        (result(-0.5, rung=0, last=False), False, TrialState.PRUNED, -0.5),
        (result(math.nan, rung=0, last=False), False, TrialState.FAIL, None),
        (result(math.nan), False, TrialState.FAIL, None),
        (result(0.5, rung=0, last=False), True, TrialState.FAIL, None),
        (None, False, TrialState.FAIL, None),
        (None, True, TrialState.FAIL, None),
    ],
)
def test_optuna_is_told_how_a_trial_ended(tmp_path, last, error, state, value):
    asked = Asked(tmp_path)
    asked.ask(0)
    asked.suggester.on_trial_complete("t0", last, error)
    asked.suggester.on_trial_complete("t0", result(99.0), False)
    (trial,) = asked.suggester._ot_study.trials
    assert (trial.state, trial.value) == (state, value), "the first end stays"


def test_a_pruned_trial_keeps_the_values_of_its_rungs(tmp_path):
    asked = Asked(tmp_path)
    asked.ask(0)
    asked.suggester.on_trial_result("t0", result(0.3, 0, last=False))
    asked.suggester.on_trial_complete("t0", result(0.2, 1, last=False))
    (trial,) = asked.suggester._ot_study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.3, 2: 0.2}
    assert trial.value == 0.2


LONG = SPEC.partition("rungs:")[0]


def ladder(rungs: int, factor: int) -> str:
    steps = "\n".join(f"  - {{steps: {2 + 3 * rung}, seeds: 1}}" for rung in range(rungs))
    # With a single rung there is nothing to reduce, and the spec refuses to be told so.
    asha = f", reduction_factor: {factor}" if rungs > 1 else ""
    return (
        LONG
        + f"rungs:\n{steps}\n"
        + "space:\n  future_seed.alpha: {uniform: [-40.0, 2.0]}\n"
        + f"search: {{trials: 50{asha}}}\n"
    )


class Halving:
    """Stopping ASHA, written down straightforwardly.

    At every rung but the last a trial goes on unless its value is under the (1 - 1/factor) quantile
    of the values that came there before it.
    """

    def __init__(self, rungs: int, factor: int) -> None:
        self.rungs, self.factor = rungs, factor
        self.values: dict[int, list[float]] = defaultdict(list)

    def stops(self, rung: int, value: float) -> bool:
        before = sorted(self.values[rung])
        self.values[rung].append(value)
        if rung == self.rungs - 1:
            return True
        if not before:
            return False
        place = (1 - 1 / self.factor) * (len(before) - 1)
        low = math.floor(place)
        high = min(low + 1, len(before) - 1)
        return value < before[low] + (place - low) * (before[high] - before[low])


class Ladder:
    """Trials that climb under a scheduler as Tune drives it."""

    def __init__(self, folder: Path, rungs: int, factor: int, trials: int = 60) -> None:
        self.spec = spec(folder, ladder(rungs, factor))
        self.rungs, self.factor = rungs, self.spec.search.reduction_factor
        self.records = made(folder, self.spec)
        chance = random.Random(f"{rungs}/{factor}")
        self.values = {
            (number, rung): round(chance.uniform(-1, 1), 3)
            for number in range(trials)
            for rung in range(rungs)
        }
        # Tune works on several trials in turn: who comes to a rung first is mixed.
        self.turns = [number for number in range(trials) for _ in range(rungs)]
        for start in range(0, len(self.turns), 4 * rungs):
            part = self.turns[start : start + 4 * rungs]
            chance.shuffle(part)
            self.turns[start : start + 4 * rungs] = part

    def trial(self, number: int) -> Trial:
        config = {"number": number, "candidate": {}, "search": str(self.records.root)}
        return Trial("PairedTrial", config=config, trial_id=f"t{number}", stub=True)

    def result(self, number: int, rung: int) -> dict[str, Any]:
        return {
            OBJECTIVE: self.values[number, rung],
            RUNG_CLOCK: self.factor**rung,
            "rung": rung,
            "last_rung": rung == self.rungs - 1,
            "training_iteration": rung + 1,
        }

    def tell(self, asha: RungAsha, trial: Trial, rung: int) -> str:
        """One rung as Tune tells it, whose record is written before."""
        number = trial.config["number"]
        told = self.result(number, rung)
        self.records.write_rung(number, rung_record(rung, objective=told[OBJECTIVE]))
        decision = TrialScheduler.STOP  # a trial that ends itself is not judged
        if not told["last_rung"]:
            decision = asha.on_trial_result(None, trial, told)
        trial.run_metadata.last_result = told
        if decision == TrialScheduler.STOP:
            trial.set_status(Trial.TERMINATED)
            asha.on_trial_complete(None, trial, told)
        return decision

    def decisions(self, restart_every: int = 0) -> dict[tuple[int, int], bool]:
        """Which trial was stopped at which rung, with a new scheduler every so many rungs."""
        asha, trials, reached = RungAsha(self.spec, self.records), {}, {}
        stopped: dict[tuple[int, int], bool] = {}
        for turn, number in enumerate(self.turns):
            if restart_every and turn % restart_every == restart_every - 1:
                asha = RungAsha(self.spec, self.records)
                for trial in reversed(trials.values()):
                    asha.on_trial_add(None, trial)
            if number not in trials:
                trials[number] = self.trial(number)
                asha.on_trial_add(None, trials[number])
            if trials[number].status == Trial.TERMINATED:
                continue
            rung = reached[number] = reached.get(number, -1) + 1
            decision = self.tell(asha, trials[number], rung)
            stopped[number, rung] = decision == TrialScheduler.STOP
        return stopped


@pytest.mark.parametrize("rungs", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("factor", [2, 3, 4, 10])
def test_asha_halves_at_every_rung(tmp_path, rungs, factor):
    climbing = Ladder(tmp_path, rungs, factor)
    decisions = climbing.decisions()
    halving = Halving(rungs, factor)
    for (number, rung), stopped in decisions.items():
        assert stopped == halving.stops(rung, climbing.values[number, rung]), (number, rung)
    assert (0, False) in {(rung, stopped) for (_, rung), stopped in decisions.items()} or rungs == 1
    assert (0, True) in {(rung, stopped) for (_, rung), stopped in decisions.items()}


@pytest.mark.parametrize("restart_every", [1, 3, 17])
def test_a_restored_search_decides_as_one_that_never_stopped(tmp_path, restart_every):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    unbroken = Ladder(tmp_path / "a", 4, 2).decisions()
    assert Ladder(tmp_path / "b", 4, 2).decisions(restart_every) == unbroken
    assert sum(unbroken.values()) > 50


@pytest.fixture
def half(tmp_path):
    """A ladder on which three good trials have passed rung 0, and a fourth is far below them."""
    made_here = Ladder(tmp_path, 3, 2, trials=4)
    for number in range(4):
        made_here.values[number, 0] = made_here.values[number, 1] = 0.9 - 0.01 * number
    for number in range(3):
        made_here.values[number, 0] = 0.5 + 0.1 * number
    made_here.values[3, 0] = -1.0
    return made_here


def climbed(on: Ladder) -> tuple[RungAsha, list[Trial]]:
    asha = RungAsha(on.spec, on.records)
    trials = [on.trial(number) for number in range(4)]
    for trial in trials:
        asha.on_trial_add(None, trial)
    for trial in trials[:3]:
        assert on.tell(asha, trial, 0) == TrialScheduler.CONTINUE
    return asha, trials


def test_a_stop_that_was_not_carried_out_is_decided_again(half):
    """Tune saves a result before it acts on it; after a kill the trial tells the rung anew."""
    asha, trials = climbed(half)
    told = half.result(3, 0)
    half.records.write_rung(3, rung_record(0, objective=told[OBJECTIVE]))
    assert asha.on_trial_result(None, trials[3], told) == TrialScheduler.STOP
    trials[3].run_metadata.last_result = told
    restored = RungAsha(half.spec, half.records)
    for trial in trials:
        restored.on_trial_add(None, trial)
    assert restored.on_trial_result(None, trials[3], told) == TrialScheduler.STOP


def test_a_trial_whose_next_rung_is_recorded_is_not_stopped(half):
    asha, trials = climbed(half)
    half.records.write_rung(3, rung_record(1))
    assert half.tell(asha, trials[3], 0) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_trial_that_went_wrong_further_up_is_not_stopped(half, state):
    asha, trials = climbed(half)
    half.records.write_end(3, EndRecord(state, "at rung 1"))
    assert half.tell(asha, trials[3], 0) == TrialScheduler.CONTINUE


def test_a_trial_without_a_delta_is_nobody_s_rival(half):
    asha = RungAsha(half.spec, half.records)
    trials = [half.trial(number) for number in range(4)]
    for trial in trials:
        asha.on_trial_add(None, trial)
    asha.on_trial_complete(None, trials[0], half.result(0, 0) | {OBJECTIVE: math.nan})
    assert half.tell(asha, trials[1], 0) == TrialScheduler.CONTINUE
    assert half.tell(asha, trials[3], 0) == TrialScheduler.STOP


def test_the_spec_chooses_the_scheduler(tmp_path):
    asked = spec(tmp_path)
    records = made(tmp_path, asked)

    def chosen(name):
        search = asked.search.model_copy(update={"scheduler": name})
        return type(scheduler(asked.model_copy(update={"search": search}), records))

    assert chosen("asha") is RungAsha
    # Nothing is left to decide where all climb, or where the searcher decides who does.
    assert chosen("none") is chosen("asha_promote") is FIFOScheduler


def test_a_trial_s_folder_is_called_after_its_number(half):
    assert trial_folder(half.trial(3)) == "trial-0003"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A search that was asked to stop while it ran: ended trials, and an open one."""
    place = Place(tmp_path_factory.mktemp("stopped"))
    process = place.search()
    assert wait_until(lambda: len(list(place.records.glob("trials/*/end.json"))) >= 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, place.output()
    return place.records


@pytest.fixture
def snapshot(stopped, tmp_path):
    """The search's records, and a copy of its snapshot that may be spoilt."""
    folder = tmp_path / "tune"
    shutil.copytree(stopped / "tune", folder)
    return folder, SearchFolder(stopped)


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern))


SNAPSHOT_FILES = ("tuner.pkl", "experiment_state-*.json", "searcher-state-*.pkl")


@pytest.mark.slow
def test_a_whole_snapshot_is_restored_from(snapshot):
    folder, records = snapshot
    assert snapshot_fault(folder, records) is None


@pytest.mark.slow
@pytest.mark.parametrize("pattern", SNAPSHOT_FILES)
def test_a_torn_snapshot_is_seen(snapshot, pattern):
    folder, records = snapshot
    path = newest(folder, pattern)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        fault = snapshot_fault(folder, records)
        assert fault is not None, f"{length} of {len(whole)} bytes"
        assert fault.startswith("Tune's snapshot is torn: ")
    path.write_bytes(whole)
    assert snapshot_fault(folder, records) is None


@pytest.mark.slow
@pytest.mark.parametrize("pattern", SNAPSHOT_FILES)
def test_a_missing_file_is_seen(snapshot, pattern):
    folder, records = snapshot
    for path in folder.glob(pattern):
        path.unlink()
    assert "torn: FileNotFoundError" in snapshot_fault(folder, records)


@pytest.mark.slow
def test_an_older_file_of_the_same_kind_does_not_count(snapshot):
    folder, records = snapshot
    for pattern in SNAPSHOT_FILES[1:]:
        name = pattern.replace("*", "1999-01-01_00-00-00")
        (folder / name).write_bytes(b"torn")
    assert snapshot_fault(folder, records) is None


@pytest.mark.slow
def test_a_snapshot_made_elsewhere_is_not_restored_from(snapshot, tmp_path):
    folder, records = snapshot
    moved = tmp_path / "moved"
    shutil.copytree(records.root, moved)
    fault = snapshot_fault(folder, SearchFolder(moved))
    assert fault == f"Tune's snapshot was made in {records.root}"


@pytest.mark.slow
def test_records_of_other_trials_are_seen(snapshot, stopped):
    folder, records = snapshot
    path = stopped / "trials" / "0000" / "candidate.json"
    whole = path.read_text()
    try:
        path.unlink()
        assert "other trials than the records" in snapshot_fault(folder, records)
        path.write_text('{"candidate": {"future_seed.alpha": 0.0, "future_seed.norm": true}}')
        assert "other trials than the records" in snapshot_fault(folder, records)
    finally:
        path.write_text(whole)
    assert snapshot_fault(folder, records) is None


def edit_state(folder: Path, change: Any) -> None:
    path = newest(folder, "experiment_state-*.json")
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


def edit_searcher(folder: Path, change: Any) -> None:
    path = newest(folder, "searcher-state-*.pkl")
    state = pickle.loads(path.read_bytes())
    change(state)
    path.write_bytes(pickle.dumps(state))


@pytest.mark.slow
def test_a_state_and_a_searcher_of_different_moments_are_seen(snapshot):
    folder, records = snapshot
    ended = min(pickle.loads(newest(folder, "searcher-state-*.pkl").read_bytes())["_ot_trials"])
    before = shutil.copytree(folder, folder.with_name("before"))
    edit_state(folder, lambda state: state["trial_data"].pop())
    assert "other trials than its searcher" in snapshot_fault(folder, records)
    shutil.copytree(before, folder, dirs_exist_ok=True)
    edit_searcher(folder, lambda state: state["_completed_trials"].clear())
    assert "other finished trials than its searcher" in snapshot_fault(folder, records)
    edit_searcher(folder, lambda state: state["_ot_trials"].pop(ended))
    assert "other trials than its searcher" in snapshot_fault(folder, records)


@pytest.mark.slow
def test_a_snapshot_without_a_trial_is_seen(snapshot):
    folder, records = snapshot
    edit_state(folder, lambda state: state["trial_data"].clear())
    edit_searcher(
        folder, lambda state: (state["_ot_trials"].clear(), state["_completed_trials"].clear())
    )
    assert snapshot_fault(folder, records) == "Tune's snapshot has no trial yet"


@pytest.mark.slow
def test_a_stale_snapshot_that_holds_together_is_restored_from(snapshot):
    """It knows less than the records, and tells nothing against them."""
    folder, records = snapshot
    edit_state(folder, lambda state: state["trial_data"].pop())
    kept = json.loads(newest(folder, "experiment_state-*.json").read_text())["trial_data"]
    ids = {json.loads(trial)["trial_id"] for trial, _ in kept}

    def forget(state: dict[str, Any]) -> None:
        for known in set(state["_ot_trials"]) - ids:
            del state["_ot_trials"][known]
            state["_completed_trials"].discard(known)

    edit_searcher(folder, forget)
    assert len(kept) < len(records.trials())
    assert snapshot_fault(folder, records) is None
