import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_cases import SPEC, made, rung_record, spec
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fstune.results.records import EndRecord
from fstune.search.asha import RungAsha, Suggester, scheduler
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
search: {trials: 60, seed: 5}
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
        self.asked = 0

    def anew(self) -> None:
        """Another suggester for the same search, as a new driver has it."""
        self.suggester = Suggester(self.spec, self.records)

    def suggested(self) -> Any:
        """What the next trial is told; trials that equal another are passed over."""
        self.asked += 1
        config = self.suggester.suggest(f"t{self.asked}")
        assert isinstance(config, dict)
        return config

    def ask(self) -> Any:
        """The candidate of the next trial."""
        return self.suggested()["candidate"]

    def train(self, sign: float = 1.0) -> Any:
        """The next trial from its candidate to its end, at its first rung."""
        config = self.suggested()
        number, objective = config["number"], sign * quality(config["candidate"])
        if self.records.end(number) is None:
            self.records.write_rung(number, rung_record(0, objective=objective))
            self.records.write_end(number, EndRecord("stopped", "by ASHA"))
        self.suggester.on_trial_complete(f"t{self.asked}", {OBJECTIVE: objective})
        return config["candidate"]


def quality(candidate: dict[str, Any]) -> float:
    """Best at alpha -2."""
    return -abs(float(candidate["future_seed.alpha"]) + 2.0)


def test_points_come_first_and_then_draws_of_the_space(tmp_path):
    asked = Asked(tmp_path)
    candidates = [asked.ask() for _ in range(12)]
    assert candidates[:2] == [dict(point) for point in asked.spec.points]
    draws = candidates[2:]
    assert len({json.dumps(draw) for draw in draws}) == len(draws)
    assert all(-4 <= draw["future_seed.alpha"] <= 2 for draw in draws)
    assert {draw["future_seed.schedule.kind"] for draw in draws} == {"none", "linear"}


def test_a_parameter_is_there_only_where_its_condition_is_met(tmp_path):
    asked = Asked(tmp_path)
    for _ in range(12):
        config = asked.suggested()
        candidate = config["candidate"]
        linear = candidate["future_seed.schedule.kind"] == "linear"
        assert ("future_seed.schedule.min" in candidate) == linear
        assert asked.records.trial(config["number"]).candidate == candidate


def test_a_suggestion_names_trial_and_search(tmp_path):
    asked = Asked(tmp_path)
    config = asked.suggester.suggest("t0")
    assert config.keys() == {"number", "candidate", "search"}
    assert Path(config["search"]) == asked.records.root
    assert [asked.suggester.suggest(name)["number"] for name in ("x", "t7", "y")] == [1, 2, 3]
    assert len(asked.records.trials()) == 4


def test_once_all_are_drawn_nothing_more_is_suggested(tmp_path):
    asked = Asked(tmp_path)
    while isinstance(asked.suggester.suggest("t"), dict):
        pass
    assert asked.suggester.suggest("t") == Searcher.FINISHED
    assert len(asked.records.trials()) == 60


SIX = (
    CONDITIONAL.partition("space:")[0]
    + """\
space:
  future_seed.alpha: {choice: [-4.0, -3.0, -2.0, -50.0, -60.0, -70.0]}
search: {trials: 6, sampler: random, scheduler: none}
"""
)


def test_of_candidates_that_do_the_same_one_is_trained(tmp_path):
    """At -50 and below no gate ever opens."""
    asked = Asked(tmp_path, SIX)
    suggested = []
    while isinstance(config := asked.suggester.suggest(f"t{len(suggested)}"), dict):
        suggested.append(config["candidate"]["future_seed.alpha"])
    assert len(suggested) == 4, "three that act and one of those that do not"
    drawn = [trial.candidate["future_seed.alpha"] for trial in asked.records.trials()]
    assert sorted(drawn) == [-70.0, -60.0, -50.0, -4.0, -3.0, -2.0]


def test_a_grid_is_tried_in_its_order(tmp_path):
    text = SIX.replace("random", "grid") + "points: [{future_seed.alpha: -2.0}]\n"
    asked = Asked(tmp_path, text)
    while isinstance(asked.suggester.suggest("t"), dict):
        pass
    drawn = [trial.candidate["future_seed.alpha"] for trial in asked.records.trials()]
    assert drawn == [-2.0, -4.0, -3.0, -50.0, -60.0, -70.0]


def test_searches_with_other_seeds_draw_otherwise(tmp_path):
    first = Asked(tmp_path / "5")
    second = Asked(tmp_path / "6", CONDITIONAL.replace("seed: 5", "seed: 6"))
    for number in range(4):
        assert (first.ask() == second.ask()) == (number < 2), "only points are alike"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("kept", [1, 5, 14])
def test_a_new_driver_goes_on_as_the_old_one_would_have(tmp_path, sampler, kept):
    text = CONDITIONAL.replace("seed: 5", f"seed: 5, sampler: {sampler}")
    unbroken, broken = Asked(tmp_path / "unbroken", text), Asked(tmp_path / "broken", text)
    expected = [unbroken.train() for _ in range(18)]
    for _ in range(kept):
        broken.train()
    broken.anew()
    assert [broken.train() for _ in range(18)] == expected


def test_a_draw_depends_on_what_was_told(tmp_path):
    nexts = []
    for sign in (1.0, -1.0):
        asked = Asked(tmp_path / str(sign))
        for _ in range(20):
            asked.train(sign)
        nexts.append([asked.ask()["future_seed.alpha"] for _ in range(8)])
    assert nexts[0] != nexts[1]
    near, far = (np.mean([abs(alpha + 2.0) for alpha in alphas]) for alphas in nexts)
    assert near < far, "TPE goes to where it was told that it is good"


def test_random_draws_do_not_depend_on_what_was_told(tmp_path):
    text = CONDITIONAL.replace("seed: 5", "seed: 5, sampler: random")
    nexts = []
    for sign in (1.0, -1.0):
        asked = Asked(tmp_path / str(sign), text)
        for _ in range(20):
            asked.train(sign)
        nexts.append(asked.ask())
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
    asked.anew()
    assert [asked.ask() for _ in range(3)] == recorded, "also instead of a point"


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

    def replayed(self, trials: dict[int, Trial], reached: dict[int, int]) -> RungAsha:
        """A new scheduler, before which all that was recorded has passed again."""
        asha = RungAsha(self.spec, self.records)
        for number, trial in trials.items():
            trial.run_metadata.last_result = {}
            asha.on_trial_add(None, trial)
            for rung in range(reached[number] + 1):
                told = self.result(number, rung)
                if not told["last_rung"]:
                    asha.on_trial_result(None, trial, told)
                trial.run_metadata.last_result = told
            if trial.status == Trial.TERMINATED:
                asha.on_trial_complete(None, trial, told)
        return asha

    def decisions(self, restart_every: int = 0) -> dict[tuple[int, int], bool]:
        """Which trial was stopped at which rung, with a new scheduler every so many rungs."""
        asha, trials, reached = RungAsha(self.spec, self.records), {}, {}
        stopped: dict[tuple[int, int], bool] = {}
        for turn, number in enumerate(self.turns):
            if restart_every and turn % restart_every == restart_every - 1:
                asha = self.replayed(trials, reached)
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


def test_a_rung_that_is_told_again_is_decided_again(half):
    """As a trial does that lost its worker after the rung."""
    asha, trials = climbed(half)
    told = half.result(3, 0)
    half.records.write_rung(3, rung_record(0, objective=told[OBJECTIVE]))
    assert asha.on_trial_result(None, trials[3], told) == TrialScheduler.STOP
    assert asha.on_trial_result(None, trials[3], told) == TrialScheduler.STOP


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
