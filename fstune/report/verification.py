"""Every figure of a search computed again from what is stored, and compared with what was reported.

Reads the records, the report and the arms' outcomes; trains nothing and writes nothing. What cannot
be read is a difference too.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fstune.arms.arm import Outcome
from fstune.errors import StoreError
from fstune.files import digest_of
from fstune.report.data import as_json
from fstune.results.comparison import design_of, guess_of, judged, rating, reach, seen_at
from fstune.results.deltas import CONFIDENCE, Delta, confirmation_confidence, paired_deltas
from fstune.results.folder import SearchFolder
from fstune.results.outcomes import required_pairs
from fstune.results.records import ArmPair, Comparison, RungRecord, TrialRecord, own_trials
from fstune.results.verdict import sequential_verdict
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings
from fstune.specs.words import show
from model.mechanisms import registry as mechanisms
from tasks import registry


def differences(records: SearchFolder, spec: SearchSpec) -> list[str]:
    """What differs, a line each; nothing where all figures come out again.

    Raises:
        StoreError: if a record cannot be read.
    """
    return list(_Check(records, spec).lines())


class _Check:
    def __init__(self, records: SearchFolder, spec: SearchSpec) -> None:
        self._records = records
        self._spec = spec
        self._store = records.store
        self._metrics = registry.get(spec.task_name).measured(spec.task)

    def lines(self) -> Iterator[str]:
        trials = self._records.trials()
        for trial in own_trials(trials):
            for rung in trial.rungs:
                place = f"trial {trial.number}, rung {rung.rung}"
                if [point.step for point in rung.curve[-1:]] != [rung.steps]:
                    yield f"{place}: its curve does not end at its step, {rung.steps}"
                yield from self._comparison(place, trial, rung, CONFIDENCE, confirms=False)
                for point in rung.curve:
                    where = f"{place}, step {point.step} of the curve"
                    yield from self._deltas(where, rung.arms, point.step, point.deltas, CONFIDENCE)
        yield from self._confirmations(trials)
        yield from self._arms(trials)
        yield from self._report()

    def _confirmations(self, trials: Sequence[TrialRecord]) -> Iterator[str]:
        confirmed = {trial.number: trial.confirmation for trial in trials if trial.confirmation}
        chosen = self._records.finalists() or []
        for number, confirmation in confirmed.items():
            place = f"trial {number}, confirmation"
            if number not in chosen:
                yield f"{place}: it is none of the finalists that were chosen, {chosen}"
            elif confirmation.comparison is not None:
                yield from self._confirmed(place, trials[number], confirmation.comparison)

    def _confirmed(self, place: str, trial: TrialRecord, told: Comparison) -> Iterator[str]:
        assert self._spec.confirm is not None
        if self._spec.confirm.looks == "fixed":
            level = confirmation_confidence(self._records.num_finalists)
            yield from self._comparison(place, trial, told, level, confirms=True)
            return
        looks = design_of(self._spec).looks
        if [each.at.seeds for each in trial.looks] != list(looks[: len(trial.looks)]):
            yield f"{place}: its looks are at {[each.at.seeds for each in trial.looks]} seeds"
            return
        if told.seeds != trial.looks[-1].at.seeds:
            yield f"{place}: it has {told.seeds} seeds, its last look {trial.looks[-1].at.seeds}"
            return
        boundary = design_of(self._spec).gain[len(trial.looks) - 1]
        level = confirmation_confidence(1)
        yield from self._comparison(place, trial, told, level, confirms=True, boundary=boundary)
        try:
            pairs = required_pairs(self._store, told.arms, told.steps)
        except (StoreError, ValueError):
            return  # which is said of its deltas
        for index, record in enumerate(trial.looks):
            seen = seen_at(self._spec, pairs[: looks[index]], index)
            for name, now in dataclasses.asdict(seen).items():
                was = getattr(record.at, name)
                if not _same(was, now):
                    yield f"{place}, look {index + 1}: {name} is {was}, the outcomes say {now}"

    def _comparison(
        self,
        place: str,
        trial: TrialRecord,
        told: Comparison,
        confidence: float,
        confirms: bool,
        boundary: float | None = None,
    ) -> Iterator[str]:
        if told.seeds != len(told.arms):
            yield f"{place}: seeds is {told.seeds}, it has the arms of {len(told.arms)}"
        yield from self._deltas(place, told.arms, told.steps, told.deltas, confidence, boundary)
        try:
            baseline, variant = self._spec.settings(trial.candidate)
        except ValidationError:
            yield f"{place}: {trial.candidate} is no candidate of the spec"
            return
        yield from self._settings(place, told, baseline, variant)
        objective = told.deltas.get(self._spec.metric().name)
        if objective is None:
            return
        gate = self._largest_gate(told, variant)
        if not _same(gate, told.largest_gate):
            yield f"{place}: the largest gate is {told.largest_gate}, its settings say {gate}"
        yield from self._guessed(place, told, confirms)
        verdict = judged(
            self._spec, baseline, variant, objective, told.largest_gate, told.guessed, confirms
        )
        if boundary is not None:
            verdict = sequential_verdict(verdict, trial.looks[-1].at.decision)
        if verdict != told.verdict:
            yield f"{place}: the verdict is {told.verdict!r}, its rules say {verdict!r}"
        yield from self._rating(place, told)

    def _guessed(self, place: str, told: Comparison, confirms: bool) -> Iterator[str]:
        """A guess that the arms were, or were not, held to be no better than."""
        untrained = None if told.untrained is None else self._read(told.untrained, 0)
        if untrained is None and told.untrained is not None:
            yield f"{place}: the evaluation of arm {told.untrained} at step 0 is not stored"
            return
        try:
            pairs = required_pairs(self._store, told.arms, told.steps)
        except (StoreError, ValueError):
            return  # which is said of its deltas
        grounds = self._records.grounds("test" if confirms else "validation")
        guessed = guess_of(self._spec.metric(), pairs, grounds, untrained)
        if guessed != told.guessed:
            yield f"{place}: no better than {told.guessed!r}, the outcomes say {guessed!r}"

    def _rating(self, place: str, told: Comparison) -> Iterator[str]:
        """What ranks the candidate; of a confirmation the delta alone."""
        if isinstance(told, RungRecord):
            found = rating(self._spec, told.rung, told, self._records.rules)
        else:
            delta = told.deltas[self._spec.metric().name]
            found = {"objective": delta.gain(self._spec.objective.bound)}
        for name, now in found.items():
            was = getattr(told, name)
            if not _same(was, now):
                yield f"{place}: the {name} is {was}, its delta says {now}"

    def _settings(
        self, place: str, told: Comparison, baseline: ArmSettings, variant: ArmSettings
    ) -> Iterator[str]:
        """Arms that are not those of the candidate and seed beside which they are told."""
        for pair in told.arms:
            for digest, wanted in ((pair.baseline, baseline), (pair.variant, variant)):
                arm = self._described(digest)
                if arm is not None and not _is_of(arm, wanted, pair.seed):
                    yield f"{place}: arm {digest} is not of its candidate and seed {pair.seed}"

    def _largest_gate(self, told: Comparison, variant: ArmSettings) -> float:
        """As the settings bound it; of a checkpoint, the depth is what was seen of its layers."""
        if not variant.mechanisms:
            return 1.0
        shapes = variant.model.init
        num_layers = shapes.num_layers if shapes else self._depth(told, variant)
        if num_layers is None:
            return told.largest_gate
        return reach(variant, num_layers, self._spec.rungs[-1].steps)

    def _depth(self, told: Comparison, variant: ArmSettings) -> int | None:
        outcome = self._read(told.arms[0].variant, told.steps) if told.arms else None
        seen = outcome.diagnostics if outcome else {}
        depths = (mechanisms.get(name).depth(seen) for name in variant.mechanisms)
        return next(filter(None, depths), None)

    def _deltas(
        self,
        place: str,
        arms: Sequence[ArmPair],
        step: int,
        told: dict[str, Delta],
        confidence: float,
        boundary: float | None = None,
    ) -> Iterator[str]:
        try:
            pairs = required_pairs(self._store, arms, step)
            found = paired_deltas(pairs, self._metrics, confidence, boundary)
        except StoreError as error:
            yield f"{place}: {error}"
            return
        except (ValueError, KeyError, IndexError) as error:
            yield f"{place}: the stored evaluations do not fit together: {error}"
            return
        for name in {**told, **found}:
            if name not in told or name not in found:
                told_of = "not told" if name in found else "told, and not measured"
                yield f"{place}: {name} is {told_of}"
                continue
            for field in dataclasses.fields(Delta):
                was, now = getattr(told[name], field.name), getattr(found[name], field.name)
                # Older rules had 0 where arms that agree throughout now have none.
                if not (
                    _same(was, now) or (field.name == "detectable" and (was, now) == (0, None))
                ):
                    yield f"{place}: {name} {field.name} is {was}, the outcomes say {now}"

    def _arms(self, trials: Sequence[TrialRecord]) -> Iterator[str]:
        used = {
            digest: None
            for trial in trials
            for told in trial.comparisons
            for pair in told.arms
            for digest in (pair.baseline, pair.variant)
        }
        for digest in used:
            path = self._store.root / digest / "arm.json"
            arm = self._described(digest)
            if arm is None:
                yield f"{path}: it cannot be read"
            elif digest_of(arm) != digest:
                yield f"{path}: its settings are not those of the arm's digest"

    def _described(self, digest: str) -> dict[str, Any] | None:
        try:
            return self._store.described(digest)
        except (OSError, ValueError, TypeError):
            return None

    def _read(self, digest: str, step: int) -> Outcome | None:
        try:
            return self._store.outcome(digest, step)
        except StoreError:
            return None

    def _report(self) -> Iterator[str]:
        path = self._records.report_file("json")
        if not path.exists():
            yield f"{path}: there is no report"
            return
        try:
            was = json.loads(path.read_text())
            now = json.loads(json.dumps(as_json(self._records, self._spec)))
        except (ValueError, KeyError, StoreError) as error:
            yield f"{path}: it cannot be held against the records: {error}"
            return
        yield from _unequal(path, was, now, ())


def _is_of(arm: Mapping[str, Any], settings: ArmSettings, seed: int) -> bool:
    """Whether an arm's description has the mechanism and the training of these settings."""
    wanted = settings.model_dump(mode="json")
    try:
        told = arm["settings"]
        # A schedule that names no end has that of the last rung.
        training = {k: v for k, v in told["train"].items() if k != "lr_total_steps"}
        return (
            arm["seeds"]["index"] == seed
            and all(told.get(name) == wanted.get(name) for name in mechanisms.names())
            and all(wanted["train"].get(key) == value for key, value in training.items())
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _unequal(path: Path, was: object, now: object, at: tuple[str, ...]) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict) and was.keys() == now.keys():
        for key in was:
            yield from _unequal(path, was[key], now[key], (*at, str(key)))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (left, right) in enumerate(zip(was, now, strict=True)):
            yield from _unequal(path, left, right, (*at, str(index)))
    elif not _same(was, now):
        yield f"{path}: {'.'.join(at)} is {_told(was)}, the records say {_told(now)}"


def _told(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else show(value)


def _same(was: object, now: object) -> bool:
    """Whether two values are equal but for what another machine's sums round; NaN is NaN's."""
    if isinstance(was, float) and isinstance(now, float):
        both_nan = math.isnan(was) and math.isnan(now)
        return both_nan or math.isclose(was, now, rel_tol=1e-9, abs_tol=1e-12)
    return was == now
