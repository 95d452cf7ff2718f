"""A search's life: run under Ray Tune, stopped, resumed, ended.

Resuming: if Tune's own snapshot is whole and agrees with the records, Tune restores it, trials and
all; otherwise the search is replayed from the records, in which trained arms cost nothing. Both end
in the same table.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ray import tune

from fstune.arms.inputs import gather
from fstune.arms.store import ArmStore
from fstune.errors import SearchFailedError
from fstune.export.kept import kept_winner
from fstune.machine import describe
from fstune.report.data import write_report
from fstune.report.page import write_page
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of
from fstune.results.records import TrialRecord
from fstune.search.asha import Suggester, scheduler, snapshot_fault
from fstune.search.bookkeeping import Bookkeeper, FailureStop, trial_folder
from fstune.search.climber import Climber
from fstune.search.cluster import gpus_per_trial, require_cluster, require_gpus, start_ray, stop_ray
from fstune.search.sampling import any_candidate
from fstune.search.session import (
    TUNE_SETTINGS,
    Session,
    _held,
    _sigterm_as_sigint,
    _telling_of_a_full_disk,
)
from fstune.search.trainable import PairedTrial, require_same_arms
from fstune.specs.loading import read_resolved
from fstune.specs.sections import SearchSpec
from fstune.tracking.sender import Beginning, Ending, Sender
from fstune.tracking.tracker import Tracker, local_uri

MAX_WORKER_LOSSES = 3
"""How often a trial may lose its worker (a kill, the machine's memory) before it is given up."""


@dataclass(frozen=True)
class Search:
    """A search that exists on disk."""

    spec: SearchSpec
    records: SearchFolder
    runs: Path
    tracking_uri: str

    @classmethod
    def open(cls, name: str, runs: Path, tracking_uri: str | None = None) -> "Search":
        """A search that was made before.

        Raises:
            InputError: if there is none of that name.
        """
        records = SearchFolder.find(runs.resolve(), name)
        spec = read_resolved(records.spec)
        return cls.tracked(spec, records, runs.resolve(), tracking_uri or records.tracked_at)

    @classmethod
    def tracked(
        cls, spec: SearchSpec, records: SearchFolder, runs: Path, tracking_uri: str | None
    ) -> "Search":
        """The search, with its tracking server remembered: a resumed one goes on there."""
        secret = tracking_uri is not None and "@" in tracking_uri  # a password, maybe
        records.write_tracked_at(None if secret else tracking_uri)
        return cls(spec, records, runs, tracking_uri or local_uri(runs))

    def run(self) -> None:
        """Run to the end, from wherever it is.

        Raises:
            KeyboardInterrupt: if it was stopped by SIGINT or SIGTERM; `run` again goes on.
            SearchFailedError: if it could not end as it should.
        """
        store = ArmStore(self.runs / "arms")
        with self.session() as session:
            keeper = Bookkeeper(self.records, self.spec, store)
            self._tuner(keeper).fit()
            failed = self.records.failed_in_a_row()
            if len(failed) >= self.spec.search.stop_after_failures:
                session.status = "FAILED"
                raise self._given_up(failed)
            if self._promotes:
                # Ends that no trial of Tune's brought about: of those that waited or equal another.
                # After a restore Tune has a keeper of its own, but such a search is not restored.
                for trial in self.records.trials():
                    if trial.end is not None:
                        keeper.finish(trial.number)
            session.status = self._status()
        if session.status == "KILLED":
            raise KeyboardInterrupt
        if self.spec.resources.keep_checkpoints == "open":
            for trial in self.records.trials():
                for digest in self._baselines(trial):
                    store.drop_checkpoints(digest)
        if session.status == "FAILED":
            raise SearchFailedError(
                f"no trial of {self.spec.name} reached a rung; see {self.records.log}"
            )

    def _baselines(self, trial: TrialRecord) -> set[str]:
        """The baselines that were trained for a trial, also for a rung that broke off."""
        found = {pair.baseline for rung in trial.rungs for pair in rung.arms}
        if trial.end is not None and trial.end.broke_off in ("diverged", "infeasible"):
            seeds = range(self.spec.rungs[len(trial.rungs)].seeds)
            arms = arms_of(self.spec, trial.candidate, self.records.cache, seeds)
            found |= {both.baseline.digest for both in arms}
        return found

    def _given_up(self, failed: Sequence[int]) -> SearchFailedError:
        """The end of a search whose candidates fail one after the other; it can be resumed."""
        end = self.records.end(failed[0])
        assert end is not None
        for number in failed:
            self.records.reopen(number)
        # Tune counts them as ended: a resumed search is replayed from the records.
        shutil.rmtree(self.records.tune, ignore_errors=True)
        return SearchFailedError(
            f"{self.spec.name} stopped, since {len(failed)} candidates in a row failed, the last "
            f"by: {end.reason}. When that is mended, `fstune resume {self.spec.name}` tries them "
            "again"
        )

    @contextlib.contextmanager
    def session(self) -> Iterator["Session"]:
        """Hold the search, with Ray started and MLflow's parent run open; end both afterwards.

        Raises:
            InputError: if another process holds it; if GPUs or a cluster are asked for that are not
                there; or if what its arms stand on is not what it was.
            SearchFailedError: if the disk is full.
        """
        with _held(self.records), _telling_of_a_full_disk(self.records), _sigterm_as_sigint():
            require_gpus(self.spec)
            require_cluster(self.spec)
            require_same_arms(self.records, self.spec)
            os.environ.update(TUNE_SETTINGS)
            environment = describe()
            if self.records.write_environment(environment):
                # Tune's snapshot holds objects of the code that wrote it.
                shutil.rmtree(self.records.tune, ignore_errors=True)
            beginning = Beginning(environment, self._datasets())
            tracker = Tracker(self.records, self.spec, self.runs, self.tracking_uri)
            sender = Sender(tracker, self.records, beginning)
            session = Session()
            # Ray's start is waiting for its processes: what else there is to do is done meanwhile.
            with ThreadPoolExecutor(1) as meanwhile:
                started = meanwhile.submit(sender.start)
                try:
                    start_ray(self.spec)
                    started.result()
                    with _sigterm_as_sigint():  # Ray's start puts a handler of its own in place
                        yield session
                finally:
                    stop_ray()
                    if started.exception() is None:
                        sender.finish(self._ending(session.status))

    def _ending(self, status: str) -> Ending:
        report = write_report(self.records, self.spec)
        if status != "FINISHED":
            return Ending(status, report)
        page = write_page(self.records, self.spec)
        winner = kept_winner(self.records)
        return Ending(status, report, [page.html, page.table], page.description, winner)

    @property
    def _promotes(self) -> bool:
        return self.spec.search.scheduler == "asha_promote"

    def _status(self) -> str:
        trials = self.records.trials()
        if len(trials) < self.spec.search.trials or any(trial.end is None for trial in trials):
            return "KILLED"
        return "FINISHED" if any(trial.rungs for trial in trials) else "FAILED"

    def _tuner(self, bookkeeper: Bookkeeper) -> tune.Tuner:
        resources = {"cpu": 1, "gpu": gpus_per_trial(self.spec)}
        trainable = tune.with_resources(PairedTrial, resources)
        folder = self.records.tune
        if self._promotes:
            # Its records say all that a snapshot could.
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            fault = snapshot_fault(folder, self.records)
            if fault is None:
                print(f"fstune: restoring Tune's snapshot in {folder}")  # noqa: T201  # to the log
                return tune.Tuner.restore(str(folder), trainable, resume_unfinished=True)
            print(f"fstune: replaying from the records, since {fault}")  # noqa: T201  # to the log
            shutil.rmtree(folder)
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=(Climber if self._promotes else Suggester)(self.spec, self.records),
                scheduler=scheduler(self.spec, self.records),
                num_samples=-1 if self._promotes else self.spec.search.trials,
                max_concurrent_trials=self.spec.resources.concurrent_trials,
                reuse_actors=True,
                trial_dirname_creator=trial_folder,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                callbacks=[bookkeeper],
                stop=FailureStop(self.spec, self.records),
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_LOSSES),
                # A few bytes each: with all kept, no restored trial misses the one it names.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
                verbose=0,
            ),
        )

    def _datasets(self) -> Mapping[str, str]:
        """Digests of the splits of some candidate's baseline."""
        baseline, _ = self.spec.settings(any_candidate(self.spec))
        materials = gather(baseline, self.runs / "cache")
        name = self.spec.task_name
        return {
            f"{name}-train": materials.train.digest,
            f"{name}-validation": materials.evaluated.digest,
        }
