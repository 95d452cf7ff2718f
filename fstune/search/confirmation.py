"""The confirmation of a search: its finalists again, where nothing has been looked at yet.

New seeds, the test split, the last rung's steps, one look. Finalists are chosen once; what is
confirmed stays, so that a confirmation which was stopped goes on and one that ended only shows.
"""

import time
from pathlib import Path

import ray

from fstune.arms.advance import DivergedError, workbench
from fstune.arms.trainer import InfeasibleError
from fstune.errors import InputError, SearchFailedError
from fstune.export.kept import keep
from fstune.results.folder import SearchFolder
from fstune.results.pairing import confirm, confirmed_arms
from fstune.results.ranking import ranked
from fstune.results.records import BrokeOff, Confirmation, SearchEnd, own_trials
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
            "`confirm: {finalists: 2, seeds: 5}`, and a `task.test_size`"
        )
    numbers = _finalists(search.records, search.spec)
    if any(search.records.confirmation(number) is None for number in numbers):
        with search.session() as session:
            for number in numbers:
                _confirm(search, number, len(numbers))
            session.end = SearchEnd.FINISHED
    return numbers


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
    if search.records.confirmation(number) is not None:
        return
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
    trial = records.trial(number)
    assert trial is not None
    bench = ArmWorkers(records).help(workbench(records.store, spec))
    try:
        found = confirm(spec, trial.candidate, finalists, records.cache, bench)
    except (DivergedError, InfeasibleError) as error:
        how: BrokeOff = "diverged" if isinstance(error, DivergedError) else "infeasible"
        records.write_confirmation(number, Confirmation(None, time.time(), str(error), how))
    else:
        if found.verdict == "gain":
            _, variant = spec.settings(trial.candidate)
            keep(found.arms[0].variant, variant, bench.store, records, number)
        records.write_confirmation(number, Confirmation(found, time.time()))
    if spec.resources.keep_checkpoints == "open":
        for both in confirmed_arms(spec, trial.candidate, records.cache):
            for arm in (both.baseline, both.variant):
                bench.store.drop_checkpoints(arm.digest)
