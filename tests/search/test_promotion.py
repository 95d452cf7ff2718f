"""Promotion against Algorithm 2 as the paper has it, and the suggester that goes by it."""

import random
from collections import defaultdict

import pytest
from arm_cases import SPEC, rung_record, spec
from climbing_cases import PROMOTE, Climbing, worth
from hypothesis import given, settings
from hypothesis import strategies as st

from fstune.results.records import EndRecord, TrialRecord
from fstune.search.promotion import Climb, Standing, next_climb
from fstune.search.sampling import draw

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


class Algorithm2:
    """Li et al. 2020, Algorithm 2, with sets of what was promoted, for any number of workers."""

    def __init__(self, rungs: int, factor: int, trials: int) -> None:
        self.last, self.factor, self.trials = rungs - 1, factor, trials
        self.done: dict[int, dict[int, float]] = defaultdict(dict)
        self.promoted: dict[int, set[int]] = defaultdict(set)
        self.out: set[int] = set()
        self.begun = 0

    def get_job(self) -> Climb | None:
        for rung in range(self.last - 1, -1, -1):
            came = self.done[rung]
            top = sorted(came, key=lambda n: (-came[n], n))[: len(came) // self.factor]
            for number in top:
                if number not in self.promoted[rung] | self.out:
                    self.promoted[rung].add(number)
                    return Climb(number, rung + 1)
        if self.begun < self.trials:
            self.begun += 1
            return Climb(self.begun - 1, 0)
        return None


class Workers:
    """Jobs handed to a number of workers, which end in any order."""

    def __init__(self, rungs: int, slots: int, chance: random.Random) -> None:
        self.rungs, self.slots, self.chance = rungs, slots, chance
        self.busy: list[Climb] = []
        self.objectives: dict[int, list[float]] = {}
        self.ended: set[int] = set()

    def begin(self, climb: Climb) -> None:
        self.objectives.setdefault(climb.number, [])
        self.busy.append(climb)

    def end_one(self) -> tuple[Climb, float | None]:
        """Some job ends with an objective, without one (diverged), or with a prune."""
        climb = self.busy.pop(self.chance.randrange(len(self.busy)))
        fate = self.chance.random()
        if fate < 0.1:
            self.ended.add(climb.number)
            return climb, None
        objective = round(self.chance.uniform(-1, 1), 1)
        self.objectives[climb.number].append(objective)
        if fate < 0.2 or climb.rung == self.rungs - 1:
            self.ended.add(climb.number)
        return climb, objective

    def standings(self) -> list[Standing]:
        climbing = {climb.number for climb in self.busy}
        return [
            Standing(number, tuple(values), number in self.ended, number in climbing)
            for number, values in self.objectives.items()
        ]


@settings(max_examples=150, deadline=None)
@given(
    rungs=st.integers(1, 4),
    factor=st.integers(2, 4),
    trials=st.integers(1, 40),
    slots=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_promotion_is_algorithm_2_until_all_are_drawn(rungs, factor, trials, slots, seed):
    paper = Algorithm2(rungs, factor, trials)
    workers = Workers(rungs, slots, random.Random(seed))
    while True:
        while len(workers.busy) < slots:
            all_drawn = len(workers.objectives) == trials
            climb = next_climb(workers.standings(), rungs - 1, factor, all_drawn)
            expected = paper.get_job()
            if climb is None and not all_drawn:
                climb = Climb(len(workers.objectives), 0)
            if expected is None:
                break
            assert climb == expected
            workers.begin(climb)
        if not workers.busy:
            break
        ended, objective = workers.end_one()
        if objective is not None:
            paper.done[ended.rung][ended.number] = objective
        paper.out |= workers.ended
    # Beyond the paper: each rung that somebody could leave upwards was left by one.
    while (climb := next_climb(workers.standings(), rungs - 1, factor, True)) is not None:
        workers.begin(climb)
        workers.end_one()
    for rung in range(rungs - 1):
        came = [n for n, values in workers.objectives.items() if len(values) > rung]
        went = [n for n in came if len(workers.objectives[n]) > rung + 1]
        assert went or all(n in workers.ended for n in came)


def test_who_was_drawn_and_not_trained_comes_first():
    standings = [Standing(0, (1.0,)), Standing(1, (0.0,)), Standing(2)]
    assert next_climb(standings, 1, 2, all_drawn=False) == Climb(2, 0)
    assert next_climb(standings[:2], 1, 2, all_drawn=False) == Climb(0, 1)


def test_the_highest_rung_comes_first():
    standings = [Standing(0, (1.0, 1.0)), Standing(1, (0.9, 2.0)), Standing(2, (3.0,))]
    standings += [Standing(3, (0.0,))]
    assert next_climb(standings, 2, 2, all_drawn=False) == Climb(1, 2)


def test_a_small_search_sends_one_to_the_last_rung():
    standings = [Standing(0, (1.0,)), Standing(1, (2.0,))]
    assert next_climb(standings, 1, 3, all_drawn=False) is None
    assert next_climb(standings, 1, 3, all_drawn=True) == Climb(1, 1)
    climbing = [standings[0], Standing(1, (2.0,), climbing=True)]
    assert next_climb(climbing, 1, 3, all_drawn=True) is None


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_search_ends_with_every_trial_ended(tmp_path, slots):
    search = Climbing(tmp_path)
    search.run(slots)
    trials = search.records.trials()
    assert len(trials) == 20
    assert len(search.jobs) == len(set(search.jobs)) == search.rungs()
    assert {trial.end.state for trial in trials} == {"completed", "stopped"}
    assert 5 <= sum(trial.end.state == "completed" for trial in trials) <= 9
    waited = next(trial for trial in trials if trial.end.state == "stopped")
    assert "was never in the top share" in waited.end.reason


def test_no_slot_is_idle_and_no_more_are_asked_for_than_there_are(tmp_path):
    search = Climbing(tmp_path, PROMOTE.replace("trials: 20", "trials: 2"))
    assert isinstance(search.ask(), dict)
    assert isinstance(search.ask(), dict)
    assert search.ask() is None, "who waits for others is not finished"
    search.tell("t0")
    assert search.ask() is None
    search.tell("t1")
    assert isinstance(search.ask(), dict)


@pytest.mark.parametrize("kill_at", [1, 7, 8, 19, 30])
@pytest.mark.parametrize("trained", [False, True])
def test_a_killed_search_ends_as_one_that_ran_through(tmp_path, kill_at, trained):
    unbroken = Climbing(tmp_path / "unbroken")
    unbroken.run()
    broken = Climbing(tmp_path / "broken")
    broken.run(until=kill_at)
    name = f"t{broken.asked}"
    broken.ask()
    if trained:  # its record was written, and the driver not told
        broken.train(name)
    broken.killed()
    broken.run()
    assert broken.table() == unbroken.table()
    repeated = len(broken.jobs) - len(unbroken.jobs)
    assert repeated == (0 if trained else 1)


def test_an_end_that_a_kill_kept_from_being_noted_is_noted_by_the_next_driver(tmp_path):
    search = Climbing(tmp_path / "last")
    search.run()
    ended = search.table()
    for trial in search.records.trials():
        if trial.end.state == "completed" and trial.equals is None:
            search.records.reopen(trial.number)
    search.killed()
    search.run()
    assert search.table() == ended
    pruned = Climbing(tmp_path / "pruned", PROMOTE.replace("trials: 20", PRUNED))
    pruned.ask()
    pruned.train("t0")
    pruned.killed()
    assert pruned.records.end(0).reason == "gains +0.2600 at most, under prune_below +0.9"


PRUNED = "trials: 20, prune_below: 0.9"


def test_two_slots_that_are_killed_train_nothing_twice(tmp_path):
    search = Climbing(tmp_path)
    search.run(slots=2, until=11)
    done = search.rungs()
    search.killed()
    search.jobs.clear()
    search.run(slots=2)
    assert len(search.jobs) + done == search.rungs()
    assert all(trial.end for trial in search.records.trials())


def test_a_diverged_or_pruned_trial_does_not_climb(tmp_path):
    search = Climbing(tmp_path, PROMOTE.replace("trials: 20", "trials: 4"))
    search.ask()
    search.records.write_end(0, EndRecord("diverged", "loss is nan"))
    search.running.clear()
    search.climber.on_trial_complete("t0", error=False)
    search.ask()
    search.records.write_rung(1, rung_record(0, objective=99.0))
    search.records.write_end(1, EndRecord("stopped", "delta is under prune_below"))
    search.running.clear()
    search.climber.on_trial_complete("t1")
    search.run()
    assert [len(trial.rungs) for trial in search.records.trials()[:2]] == [0, 1]
    assert search.records.end(1).reason == "delta is under prune_below"
    assert all(number > 1 for number, rung in search.jobs if rung > 0)


def test_what_was_found_guides_the_draws(tmp_path):
    text = PROMOTE.replace("trials: 20", "trials: 40")
    misses = {}
    for sampler in ("tpe", "random", "gp"):
        search = Climbing(
            tmp_path / sampler, text.replace("seed: 3", f"seed: 3, sampler: {sampler}")
        )
        search.run()
        late = [trial.candidate for trial in search.records.trials()[20:]]
        misses[sampler] = sum(-worth(candidate, 2) for candidate in late) / len(late)
    assert max(misses["tpe"], misses["gp"]) < 0.7 * misses["random"], misses


SMALL = PROMOTE.replace("{uniform: [-4.0, 2.0]}", "{int_uniform: [-2, 2]}").replace(
    "trials: 20", "trials: 10"
)


def test_where_a_branch_without_ranges_is_used_up_the_search_goes_on_in_the_others(tmp_path):
    space = """\
space:
  train.batch_size: {int_uniform: [1, 20]}
  future_seed.alpha: {uniform: [-4.0, 2.0], when: {train.batch_size: 20}}
search: {trials: 40, sampler: random}
"""
    text = SPEC.partition("space:")[0] + "fixed: {future_seed: {norm: true}}\n" + space
    made_of = spec(tmp_path, text)
    known = [{"train.batch_size": size} for size in range(1, 20)]
    trials = [TrialRecord(number, candidate) for number, candidate in enumerate(known)]
    while len(trials) < 30:
        trials.append(TrialRecord(len(trials), draw(made_of, trials)))
    drawn = [trial.candidate for trial in trials[19:]]
    assert {candidate["train.batch_size"] for candidate in drawn} == {20}
    assert len({candidate["future_seed.alpha"] for candidate in drawn}) == 11


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_no_candidate_is_drawn_twice_while_there_are_others(tmp_path, sampler):
    search = Climbing(tmp_path, SMALL.replace("seed: 3", f"seed: 3, sampler: {sampler}"))
    search.run()
    drawn = [tuple(trial.candidate.values()) for trial in search.records.trials()]
    assert len(set(drawn)) == len(drawn) == 10
    with pytest.raises(ValueError, match="all 10 candidates of the space are drawn"):
        draw(search.spec, search.records.trials())
