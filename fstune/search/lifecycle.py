"""A search's life: run under Ray Tune, stopped, resumed, ended.

A search that is resumed is replayed from its records, in which trained arms cost nothing, and ends
in the same table.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fstune.arms.inputs import gather
from fstune.errors import SearchFailedError
from fstune.export.kept import kept_winner
from fstune.machine import describe
from fstune.report.data import write_report
from fstune.report.page import write_page
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of
from fstune.results.records import SearchEnd, TrialRecord
from fstune.search.bookkeeping import Bookkeeper, FailureStop
from fstune.search.cluster import require_cluster
from fstune.search.requirements import require_disk, require_machine
from fstune.search.sampling import any_candidate
from fstune.search.session import (
    Session,
    held,
    machine_explained,
    mlflow_told,
    ray_running,
    sigterm_as_sigint,
    stopped_by_the_machine,
)
from fstune.search.trainable import require_same_arms
from fstune.search.tuner import promotes, tuner
from fstune.specs.sections import SearchSpec
from fstune.tracking.sender import Beginning, Ending, Sender
from fstune.tracking.tracker import Tracker, local_uri


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
        spec = records.spec()
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
        with self.session() as session:
            stop = FailureStop(self.spec, self.records)
            tuner(self.spec, self.records, stop).fit()
            if stop.fault:
                session.end = SearchEnd.FAILED
                raise stopped_by_the_machine(self.records, stop.fault)
            failed = self.records.failed_in_a_row()
            if len(failed) >= self.spec.search.stop_after_failures:
                session.end = SearchEnd.FAILED
                raise self._given_up(failed)
            if promotes(self.spec):
                self._free_those_that_waited(Bookkeeper(self.spec, self.records, stop))
            session.end = self._end()
        if session.end is SearchEnd.STOPPED:
            raise KeyboardInterrupt
        if self.spec.resources.keep_checkpoints == "open":
            self._free_baselines()
        if session.end is SearchEnd.FAILED:
            raise SearchFailedError(
                f"no trial of {self.spec.name} reached a rung; see {self.records.log_file}"
            )

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Hold the search, with Ray started and MLflow's parent run open; end both afterwards.

        Raises:
            InputError: if another process holds it; if GPUs or a cluster are asked for that are not
                there; if what its arms stand on is not what it was; or if MLflow cannot use the
                tracking URI.
            SearchFailedError: if the disk is full, or something else of the machine is amiss.
        """
        session = Session()
        with held(self.records), machine_explained(self.records), sigterm_as_sigint():
            require_machine(self.spec)
            require_cluster(self.spec)
            require_same_arms(self.records, self.spec)
            if self.records.first_compared() is None:
                require_disk(self.spec, self.runs)
            sender = self._sender()
            # Ray and MLflow start side by side: Ray's start is waiting for its processes.
            with (
                mlflow_told(sender, lambda: self._ending(session.end)),
                ray_running(self.spec),
            ):
                sender.wait_until_connected()
                yield session

    def _sender(self) -> Sender:
        """What keeps MLflow up to date; notes what the search goes on with."""
        environment = describe()
        self.records.write_environment(environment)
        tracker = Tracker(self.records, self.spec, self.runs, self.tracking_uri)
        return Sender(tracker, self.records, Beginning(environment, self._datasets()))

    def _ending(self, end: SearchEnd) -> Ending:
        report = write_report(self.records, self.spec)
        if end is not SearchEnd.FINISHED:
            return Ending(end, report)
        page = write_page(self.records, self.spec)
        winner = kept_winner(self.records)
        return Ending(end, report, [page.html, page.table], page.description, winner)

    def _end(self) -> SearchEnd:
        trials = self.records.trials()
        if len(trials) < self.spec.search.trials or any(trial.end is None for trial in trials):
            return SearchEnd.STOPPED
        return SearchEnd.FINISHED if any(trial.rungs for trial in trials) else SearchEnd.FAILED

    def _given_up(self, failed: Sequence[int]) -> SearchFailedError:
        """The end of a search whose candidates fail one after the other; it can be resumed."""
        end = self.records.end(failed[0])
        assert end is not None
        for number in failed:
            self.records.reopen(number)
        return SearchFailedError(
            f"{self.spec.name} stopped, since {len(failed)} candidates in a row failed, the last "
            f"by: {end.reason}. When that is mended, `fstune resume {self.spec.name}` tries them "
            "again"
        )

    def _free_those_that_waited(self, keeper: Bookkeeper) -> None:
        """Free the checkpoints of trials whose end no trial of Tune's has brought about."""
        for trial in self.records.trials():
            if trial.end is not None:
                keeper.finish(trial.number)

    def _free_baselines(self) -> None:
        for trial in self.records.trials():
            for digest in self._baselines(trial):
                self.records.store.drop_checkpoints(digest)

    def _baselines(self, trial: TrialRecord) -> set[str]:
        """The baselines that were trained for a trial, also for a rung that broke off."""
        found = {pair.baseline for rung in trial.rungs for pair in rung.arms}
        if trial.end is not None and trial.end.broke_off in ("diverged", "infeasible"):
            seeds = range(self.spec.rungs[len(trial.rungs)].seeds)
            arms = arms_of(self.spec, trial.candidate, self.records.cache, seeds)
            found |= {both.baseline.digest for both in arms}
        return found

    def _datasets(self) -> Mapping[str, str]:
        """Digests of the splits of some candidate's baseline."""
        baseline, _ = self.spec.settings(any_candidate(self.spec))
        inputs = gather(baseline, self.records.cache)
        name = self.spec.task_name
        return {
            f"{name}-train": inputs.train.digest,
            f"{name}-validation": inputs.evaluated.digest,
        }
