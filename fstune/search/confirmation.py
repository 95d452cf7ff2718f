"""The confirmation of a search: its finalists again, where nothing has been looked at yet.

New seeds, the test split, the last rung's steps. Seeds are added look by look until the question is
decided (`results.sequential`), or all at once where the spec has fixed looks. Finalists are chosen
once; what is confirmed stays, so that a confirmation which was stopped goes on and one that ended
only shows. Of several finalists, each is tried at the full error if the one before it is a gain, in
the order of their rank: a fixed sequence of tests errs as often as one of them (Maurer, Hothorn and
Lehmacher, Testing principles in clinical and preclinical trials, 1995). Fixed looks share the error
among all.
"""

import time
from collections.abc import Container, Sequence
from pathlib import Path

import ray

from fstune.arms.advance import DivergedError, workbench
from fstune.arms.trainer import InfeasibleError
from fstune.errors import InputError, SearchFailedError
from fstune.export.kept import keep
from fstune.results.comparison import design_of
from fstune.results.folder import SearchFolder
from fstune.results.learning import KNOWS_LEARNING, Grounds
from fstune.results.pairing import confirm, confirmed_arms, look_at
from fstune.results.ranking import ranked
from fstune.results.records import (
    BrokeOff,
    Comparison,
    Confirmation,
    LookRecord,
    SearchEnd,
    TrialRecord,
    own_trials,
)
from fstune.search.arm_workers import ArmWorkers
from fstune.search.cluster import MAX_WORKER_LOSSES, gpus_per_trial
from fstune.search.lifecycle import Search
from fstune.specs.sections import SearchSpec


def run_confirmation(search: Search) -> list[int]:
    """Confirm the finalists of a search that has ended; returns their trial numbers.

    Raises:
        InputError: if the spec has no `confirm`, or no trial has reached the last rung.
        SearchFailedError: if a worker was lost too often.
    """
    if search.spec.confirm is None:
        raise InputError(
            f"{search.spec.name} has no section `confirm`; give its spec one, such as "
            "`confirm: {seeds: 32}`, and a `task.test_size`"
        )
    numbers = _finalists(search.records, search.spec)
    if _next(search, numbers) is not None:
        with search.session() as session:
            while (number := _next(search, numbers)) is not None:
                _confirm(search, number, len(numbers))
            session.end = SearchEnd.FINISHED
    return numbers


def _next(search: Search, finalists: Sequence[int]) -> int | None:
    """The finalist to be tried next; None where none is left, or the last one was no gain."""
    assert search.spec.confirm is not None
    for number in finalists:
        tried = search.records.confirmation(number)
        if tried is None:
            return number
        if search.spec.confirm.looks == "sequential" and tried.verdict != "gain":
            return None
    return None


def _finalists(records: SearchFolder, spec: SearchSpec) -> list[int]:
    assert spec.confirm is not None
    chosen = records.finalists()
    if chosen is not None:
        return chosen
    trials = records.trials()
    if len(trials) < spec.search.trials or any(trial.end is None for trial in trials):
        raise InputError(f"{spec.name} has not ended; go on by `fstune resume {spec.name}`")
    own = ranked(own_trials(trials))
    best = [trial.number for trial in own if len(trial.rungs) == len(spec.rungs)]
    if not best:
        raise InputError(f"no trial of {spec.name} has reached the last rung: nothing to confirm")
    records.write_finalists(best[: spec.confirm.finalists])
    return best[: spec.confirm.finalists]


def _confirm(search: Search, number: int, finalists: int) -> None:
    task = ray.remote(_confirm_in_worker).options(
        max_retries=MAX_WORKER_LOSSES, num_cpus=1, num_gpus=gpus_per_trial(search.spec)
    )
    try:
        ray.get(task.remote(str(search.records.root), number, finalists))
    except ray.exceptions.RayError as error:
        raise SearchFailedError(f"trial {number} could not be confirmed: {error}") from error


def _confirm_in_worker(root: str, number: int, finalists: int) -> None:
    records = SearchFolder(Path(root))
    spec = records.spec()
    assert spec.confirm is not None
    trial = records.trial(number)
    assert trial is not None
    confirming = _Confirming(records, spec, trial)
    try:
        fixed = spec.confirm.looks == "fixed"
        found = confirming.at_once(finalists) if fixed else confirming.look_by_look()
    except (DivergedError, InfeasibleError) as error:
        how: BrokeOff = "diverged" if isinstance(error, DivergedError) else "infeasible"
        records.write_confirmation(number, Confirmation(None, time.time(), str(error), how))
    else:
        if found.verdict == "gain":
            _, variant = spec.settings(trial.candidate)
            keep(found.arms[0].variant, variant, confirming.bench.store, records, number)
        records.write_confirmation(number, Confirmation(found, time.time()))
    confirming.free(spec.confirm.seeds)


class _Confirming:
    """One finalist's arms, brought to where they are looked at."""

    def __init__(self, records: SearchFolder, spec: SearchSpec, trial: TrialRecord) -> None:
        self._records = records
        self._spec = spec
        self._trial = trial
        self.bench = ArmWorkers(records).help(workbench(records.store, spec))

    def at_once(self, finalists: int) -> Comparison:
        """All seeds, and one look."""
        candidate, cache = self._trial.candidate, self._records.cache
        return confirm(self._spec, candidate, finalists, cache, self.bench, self._grounds())

    def look_by_look(self) -> Comparison:
        """Seeds are added until a look has an answer; what was trained before is not again."""
        grounds = self._grounds()
        for index, seeds in enumerate(design_of(self._spec).looks):
            found, seen = look_at(
                self._spec, self._trial.candidate, index, self._records.cache, self.bench, grounds
            )
            record = LookRecord(seen, time.time())
            self._records.write_look(self._trial.number, index + 1, record)
            if seen.decision != "more":
                break
            self.free(seeds, but={found.arms[0].variant})  # which a gain keeps
        return found

    def free(self, seeds: int, but: Container[str] = ()) -> None:
        """Drop the weights of the arms of so many seeds: their evaluations are all that counts."""
        if self._spec.resources.keep_checkpoints != "open":
            return
        arms = confirmed_arms(self._spec, self._trial.candidate, self._records.cache, seeds)
        for both in arms:
            for arm in (both.baseline, both.variant):
                if arm.digest not in but:
                    self._records.store.drop_checkpoints(arm.digest)

    def _grounds(self) -> Grounds:
        """What it is judged by, with the guesses on the test split, which are made once."""
        records = self._records
        if records.rules >= KNOWS_LEARNING and not records.guesses("test"):
            (first,) = confirmed_arms(self._spec, self._trial.candidate, records.cache, 1)
            guesses = first.baseline_data.guesses(first.baseline.settings.task)
            records.write_guesses(guesses, "test")
        return records.grounds("test")
