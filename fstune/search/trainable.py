"""The Ray Trainable: one rung of one candidate per `step()`. Thin; everything it does is elsewhere.

Tune's checkpoint of a trial says which rung comes next. The arms' weights are in the arm store,
which on a cluster lies under the same shared path as Tune's files.
"""

import json
import os
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from fstune.arms.advance import DivergedError, Workbench, workbench
from fstune.arms.arm import Progress
from fstune.arms.trainer import InfeasibleError
from fstune.errors import FstuneError, InputError
from fstune.files import canonical_json
from fstune.machine import fault_of
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of, run_rung
from fstune.results.records import EndRecord, RungRecord, TrialProgress
from fstune.search.arm_workers import ArmWorkers
from fstune.specs.sections import SearchSpec

OBJECTIVE = "objective"
"""What Tune and Optuna see of a rung; NaN where there is no delta."""


RUNG_CLOCK = "rung_clock"
"""Tune's ASHA has its milestones at reduction_factor^k; rung k of the spec reports just that."""


FAULT = "fault"
"""What is wrong with the machine; in a result that has no delta for that reason, and no other."""


PROGRESS_PERIOD_S = 1.0


class PairedTrial(tune.Trainable):
    """A candidate on its way up the rungs.

    Its configuration has three keys: `number` of the trial, `candidate`, and `search`, the search's
    folder; and `rung`, where it is to climb to that rung and no further.
    """

    _arm_workers: ArmWorkers | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self._number: int = config["number"]
        self._candidate = config["candidate"]
        self._records = SearchFolder(Path(config["search"]))
        self._spec = self._records.spec()
        self._fault = ""
        self._only_rung: int | None = config.get("rung")
        self._rung = self._only_rung or 0
        self._reported_at = 0.0
        if self._arm_workers is None:
            # They stay, as this process does, when another trial comes.
            self._arm_workers = ArmWorkers(self._records)
            if self._spec.has_one_baseline():
                self._arm_workers.begin_baselines(self._candidate)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # After a fault in a kernel nothing runs in this process any more, and this raises: Tune
            # then goes on with the trial in another process.
            torch.cuda.synchronize()
        rung = self._rung
        record = self._records.rung(self._number, rung)
        if record is None and self._records.end(self._number) is None:
            record = self._run(rung)
        if record is not None and (end := end_at(self._spec, record)) is not None:
            self._records.write_end(self._number, end)
        self._rung += 1
        return {
            OBJECTIVE: float("nan") if record is None else record.told,
            RUNG_CLOCK: self._spec.search.reduction_factor**rung,
            "rung": rung,
            "last_rung": rung == len(self._spec.rungs) - 1,
            **({FAULT: self._fault} if self._fault else {}),
            "done": record is None or self._goes_no_further(rung),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        content = {"rungs_done": self._rung}
        (Path(checkpoint_dir) / "rung.json").write_text(json.dumps(content))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        content = json.loads((Path(checkpoint_dir) / "rung.json").read_text())
        # A trial of one rung that lost its worker after the rung reports that rung again.
        self._rung = content["rungs_done"] if self._only_rung is None else self._only_rung

    def _goes_no_further(self, rung: int) -> bool:
        """Whether a rung that has a record is the last of this run of the trial.

        In a replay a trial that has ended passes again through the rungs that it has records of.
        """
        if self._only_rung is not None:
            return True
        end = self._records.end(self._number)
        if end is None or end.broke_off is not None:  # a trial breaks off at a rung without record
            return False
        return self._records.rung(self._number, rung + 1) is None

    def _run(self, rung: int) -> RungRecord | None:
        """The rung's record; None if the trial ended without one, which is then noted.

        A fault of the machine is no verdict on the candidate: nothing is noted, and it is told.
        """
        try:
            require_same_arms(self._records, self._spec)
            record = run_rung(
                self._spec,
                self._candidate,
                rung,
                self._records.cache,
                self._workbench(),
                self._records.grounds(),
            )
            self._records.write_rung(self._number, record)
        except DivergedError as error:
            self._records.write_end(self._number, EndRecord("diverged", str(error)))
            self._drop_checkpoints(rung, error.arm)
        except InfeasibleError as error:
            self._records.write_end(self._number, EndRecord("infeasible", str(error)))
            self._drop_checkpoints(rung, error.arm)
        except Exception as error:  # noqa: BLE001  # one bad trial never ends the search
            self._fault = fault_of(error) or ""
            if not self._fault:
                self._fail(error)
        else:
            return record
        return None

    def _fail(self, error: Exception) -> None:
        """Note that the candidate failed, and with what."""
        if isinstance(error, FstuneError):
            self._records.write_end(self._number, EndRecord("failed", str(error)))
        else:
            reason = f"{type(error).__name__}: {error}"
            end = EndRecord("failed", reason, traceback.format_exc())
            self._records.write_end(self._number, end)

    def _workbench(self) -> Workbench:
        bench = workbench(self._records.store, self._spec, self._report)
        return bench if self._arm_workers is None else self._arm_workers.help(bench)

    def _drop_checkpoints(self, rung: int, broken_off: str) -> None:
        """Free what was trained for a rung that is never reached; its arms stand in no record.

        Baselines are shared and stay, but for one that broke off.
        """
        if self._spec.resources.keep_checkpoints == "all":
            return
        seeds = range(self._spec.rungs[rung].seeds)
        arms = arms_of(self._spec, self._candidate, self._records.cache, seeds)
        for digest in (broken_off, *(both.variant.digest for both in arms)):
            self._records.store.drop_checkpoints(digest)

    def _report(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.doing == "train" and now - self._reported_at < PROGRESS_PERIOD_S:
            return
        self._reported_at = now
        record = TrialProgress(**asdict(progress), rung=self._rung, pid=os.getpid(), at=time.time())
        self._records.write_progress(self._number, record)


def end_at(spec: SearchSpec, record: RungRecord) -> EndRecord | None:
    """The end that a trial's own numbers at a rung bring about; the driver notes ASHA's."""
    threshold = spec.search.prune_below
    delta = record.deltas[spec.metric().name]
    if record.rung == len(spec.rungs) - 1:
        return EndRecord("completed", "reached the last rung")
    if threshold is not None and delta.best < threshold:
        reason = f"gains {delta.best:+.4f} at most, under prune_below {threshold:+g}"
        return EndRecord("stopped", reason)
    return None


def require_same_arms(records: SearchFolder, spec: SearchSpec) -> None:
    """Refuse to train beside arms that stand on other data, or on another checkpoint or task.

    The digests of the first arms compared tell: other files under the old names change them.

    Raises:
        InputError: names what is not as it was.
    """
    first = records.first_compared()
    if first is None:
        return
    recorded = first.rungs[0].arms[0]
    (now,) = arms_of(spec, first.candidate, records.cache, [recorded.seed])
    for digest, arm in ((recorded.baseline, now.baseline), (recorded.variant, now.variant)):
        if arm.digest == digest:
            continue
        was = records.store.described(digest) or {}
        stands_on = json.loads(canonical_json(arm.as_json()))
        changed = [name for name, value in stands_on.items() if was.get(name) != value]
        raise InputError(
            f"{spec.name}: its arms would not be those that it began with: other "
            f"{', '.join(changed)} than arm {digest} has; put the old files or the old fstune "
            "back, or make a new search"
        )
