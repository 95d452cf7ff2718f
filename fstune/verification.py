"""Every figure of a search computed again from what is stored, and held against what is told.

Reads the records, the report and the arms' outcomes; trains nothing and writes nothing.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from fstune.arm import Pair, digest_of
from fstune.pairing import judged
from fstune.records import ArmPair, Comparison, SearchRecords, TrialRecord
from fstune.report import as_json
from fstune.spec import SearchSpec
from fstune.statistics import CONFIDENCE, Delta, confirmation_confidence, paired_deltas
from fstune.store import ArmStore
from tasks import registry


def differences(records: SearchRecords, spec: SearchSpec) -> list[str]:
    """What differs, a line each; nothing where all figures come out again."""
    return list(_Check(records, spec).lines())


class _Check:
    def __init__(self, records: SearchRecords, spec: SearchSpec) -> None:
        self._records = records
        self._spec = spec
        self._store = ArmStore(records.runs / "arms")
        self._metrics = registry.get(spec.task_name).measured(spec.task)

    def lines(self) -> Iterator[str]:
        trials = self._records.trials()
        finalists = sum(trial.confirmation is not None for trial in trials)
        for trial in trials:
            for rung in trial.rungs:
                place = f"trial {trial.number}, rung {rung.rung}"
                yield from self._comparison(place, trial, rung, CONFIDENCE, confirms=False)
                for point in rung.curve:
                    where = f"{place}, step {point.step} of the curve"
                    yield from self._deltas(where, rung.arms, point.step, point.deltas, CONFIDENCE)
            if trial.confirmation is not None and trial.confirmation.comparison is not None:
                place = f"trial {trial.number}, confirmation"
                level = confirmation_confidence(finalists)
                found = trial.confirmation.comparison
                yield from self._comparison(place, trial, found, level, confirms=True)
        yield from self._arms(trials)
        yield from self._report()

    def _comparison(
        self,
        place: str,
        trial: TrialRecord,
        told: Comparison,
        confidence: float,
        confirms: bool,
    ) -> Iterator[str]:
        yield from self._deltas(place, told.arms, told.steps, told.deltas, confidence)
        objective = told.deltas[self._spec.metric().name]
        baseline, variant = self._spec.settings(trial.candidate)
        verdict = judged(self._spec, baseline, variant, objective, told.largest_gate, confirms)
        if verdict != told.verdict:
            yield f"{place}: the verdict is {told.verdict!r}, its rules say {verdict!r}"
        gain = objective.gain(self._spec.objective.bound)
        if not _same(gain, told.objective):
            yield f"{place}: the objective is {told.objective}, its delta says {gain}"

    def _deltas(
        self,
        place: str,
        arms: Sequence[ArmPair],
        step: int,
        told: dict[str, Delta],
        confidence: float,
    ) -> Iterator[str]:
        pairs = []
        for arm in arms:
            baseline = self._store.outcome(arm.baseline, step)
            variant = self._store.outcome(arm.variant, step)
            if baseline is None or variant is None:
                gone = arm.baseline if baseline is None else arm.variant
                yield f"{place}: the evaluation of arm {gone} at step {step} is not stored"
                return
            pairs.append(Pair(baseline, variant))
        for name, delta in paired_deltas(pairs, self._metrics, confidence).items():
            for field in dataclasses.fields(Delta):
                was, now = getattr(told[name], field.name), getattr(delta, field.name)
                if not _same(was, now):
                    yield f"{place}: {name} {field.name} is {was}, the outcomes say {now}"

    def _arms(self, trials: Sequence[TrialRecord]) -> Iterator[str]:
        used = {
            digest: None
            for trial in trials
            for rung in trial.rungs
            for pair in rung.arms
            for digest in (pair.baseline, pair.variant)
        }
        for digest in used:
            path = self._store.root / digest / "arm.json"
            if digest_of(json.loads(path.read_text())) != digest:
                yield f"{path}: its settings are not those of the arm's digest"

    def _report(self) -> Iterator[str]:
        path = self._records.root / "report.json"
        if not path.exists():
            yield f"{path}: there is no report"
            return
        now = json.loads(json.dumps(as_json(self._records, self._spec)))
        yield from _unequal(path, json.loads(path.read_text()), now, ())


def _unequal(path: Path, was: object, now: object, at: tuple[str, ...]) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict) and was.keys() == now.keys():
        for key in was:
            yield from _unequal(path, was[key], now[key], (*at, str(key)))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (left, right) in enumerate(zip(was, now, strict=True)):
            yield from _unequal(path, left, right, (*at, str(index)))
    elif not _same(was, now):
        yield f"{path}: {'.'.join(at)} is {was!r}, the records say {now!r}"


def _same(was: object, now: object) -> bool:
    """Whether two values are equal; NaN is NaN's."""
    if isinstance(was, float) and isinstance(now, float) and math.isnan(was):
        return math.isnan(now)
    return was == now
