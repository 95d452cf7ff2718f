"""Searches from Python: run one, and read what one found as records and as pandas tables.

    from fstune.api import load, search

    found = search("quickstart", overrides={"search.trials": 4})
    found = load("quickstart")
    found.trials[["delta", "low", "high", "verdict"]]

The command line goes the same way. Nothing heavy is imported before it is needed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from fstune.arms.store import ArmStore
from fstune.files import RUNS
from fstune.results.deltas import Delta
from fstune.results.folder import SearchFolder
from fstune.results.ranking import best_of, ranked
from fstune.results.records import Comparison, TrialRecord
from fstune.results.selection import false_discovery_adjusted
from fstune.specs.loading import find
from fstune.specs.loading import load as load_spec
from fstune.specs.sections import SearchSpec
from tasks import registry

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

    from fstune.search.lifecycle import Search
    from tasks.metrics import Metric


@dataclass(frozen=True)
class Found:
    """What a search has found so far; every table is read anew from the disk when it is asked for.

    Tables are in the units of the metrics; a delta is variant minus baseline, and `low` and `high`
    are the bounds of its interval (95 %; those of k finalists hold together at 98 %).
    """

    spec: SearchSpec
    """Resolved: with every default, and every file's absolute path."""
    records: SearchFolder
    """The search's own files: `records.trials()` has all that the tables are made from."""

    @property
    def store(self) -> ArmStore:
        """The trained arms: `store.outcome(digest, step)` has the scores of every example."""
        return self.records.store

    @property
    def trials(self) -> "pd.DataFrame":
        """One row per trial, best first, by its number.

        The candidate's settings by path; `state`, `reason`, `verdict`, `rungs` (how many it has
        reached), `equals` (the trial that does the same) and `flags`; of the objective's metric at
        its last rung `steps`, `seeds`, `baseline`, `variant`, `delta`, `low`, `high`, `p_value`,
        `q_value` (adjusted for the number of trials), `detectable` and `seeds_agree`; and of its
        confirmation `confirmed` (the verdict), `confirmed_delta`, `confirmed_low`,
        `confirmed_high`. Missing where a trial has none.
        """
        trials = self.records.trials()
        metric = self.spec.metric().name
        adjusted = false_discovery_adjusted(trials, metric)
        rows = [_trial_row(trial, metric, adjusted.get(trial.number)) for trial in ranked(trials)]
        columns = [*self.spec.space, *_TRIAL]
        return _frame(rows, ["trial", *columns]).set_index("trial")

    @property
    def deltas(self) -> "pd.DataFrame":
        """One row per trial, evaluation and metric: what curves are drawn from.

        `trial`, `compared` (search or confirmation), `rung` (from 0; missing for a confirmation),
        `step`, `seeds`, `at_rung` (whether it is the rung's own comparison, not one on the way),
        `metric`, `baseline`, `variant`, `delta`, `low`, `high`, `p_value`, `detectable`,
        `seeds_agree`.
        """
        rows = [row for trial in self.records.trials() for row in _delta_rows(trial)]
        return _frame(rows, [*_DELTA_KEYS, "metric", *_DELTA])

    @property
    def arms(self) -> "pd.DataFrame":
        """One row per arm where it was compared: a rung's or a confirmation's, one of its seeds.

        `trial`, `compared`, `rung`, `step`, `seed` (its index), `arm` (baseline or variant),
        `digest`, the arm's score in every metric, `train_tokens`, `train_wall_s` and
        `eval_wall_s`. Arms are shared: a baseline's digest stands beside every trial that it was
        compared with. Scores are missing where the arm is not stored here.
        """
        rows = [row for trial in self.records.trials() for row in self._arm_rows(trial)]
        return _frame(rows, [*_ARM_KEYS, *(metric.name for metric in self._metrics), *_ARM])

    @property
    def best(self) -> TrialRecord | None:
        """The best trial at the furthest rung; None while none has reached a rung."""
        return best_of(self.records.trials())

    @property
    def _metrics(self) -> Sequence["Metric"]:
        return registry.get(self.spec.task_name).measured(self.spec.task)

    def _arm_rows(self, trial: TrialRecord) -> Iterator[dict[str, Any]]:
        store = self.store
        for compared, rung, comparison in _comparisons(trial):
            at = {"trial": trial.number, "compared": compared, "rung": rung}
            at["step"] = comparison.steps
            for pair in comparison.arms:
                for arm in ("baseline", "variant"):
                    digest = getattr(pair, arm)
                    row = at | {"seed": pair.seed, "arm": arm, "digest": digest}
                    outcome = store.outcome(digest, comparison.steps)
                    if outcome is not None:
                        row |= {name: getattr(outcome, name) for name in _ARM}
                        row |= {
                            metric.name: float(metric.score(outcome.measures))
                            for metric in self._metrics
                        }
                    yield row


def prepare(
    spec: str | Path,
    *,
    data: Sequence[str | Path] = (),
    runs: str | Path = RUNS,
    overrides: Sequence[str] = (),
    tracking_uri: str | None = None,
    resume: bool = False,
) -> "Search":
    """A search that is checked and made, or with `resume` found again, and not yet run.

    Args:
        spec: a YAML file, or the name of a shipped search.
        data: folders in which relative data files and checkpoints are sought.
        runs: folder of all that runs write.
        overrides: `path=value`, instead of what the spec says; each value is YAML.
        tracking_uri: an MLflow server; SQLite in `runs` if None.
        resume: go on if a search of that name exists.

    Raises:
        InputError: the spec, its files, its data or the machine do not allow the search, or there
            is one of that name, with `resume` one that was made from another spec; says what is
            wrong and where.
    """
    runs = Path(runs)
    loaded = load_spec(find(str(spec)), overrides)
    from fstune.arms.inputs import checkpoint_layers
    from fstune.search import making

    if making.exists(loaded.spec.name, runs):
        if resume:
            return making.resume(loaded, runs, tracking_uri)
        raise making.name_is_taken(loaded.spec.name, runs)
    resolved = loaded.resolved([Path(folder) for folder in data], checkpoint_layers)
    return making.create(resolved, runs, tracking_uri)


def search(
    spec: str | Path,
    *,
    data: Sequence[str | Path] = (),
    runs: str | Path = RUNS,
    overrides: Mapping[str, JsonValue] | None = None,
    tracking_uri: str | None = None,
    resume: bool = False,
) -> Found:
    """Run a search to its end. What Ray, Optuna and MLflow have to say is not held back.

    Args:
        spec: a YAML file, or the name of a shipped search.
        data: folders in which relative data files and checkpoints are sought.
        runs: folder of all that runs write.
        overrides: values by path, instead of what the spec says: `{"search.trials": 4}`.
        tracking_uri: an MLflow server; SQLite in `runs` if None.
        resume: go on if a search of that name exists.

    Raises:
        InputError: as of `prepare`.
        SearchFailedError: no trial reached a rung.
        KeyboardInterrupt: it was stopped; call again with `resume=True` to go on.
    """
    made = prepare(
        spec,
        data=data,
        runs=runs,
        overrides=[f"{path}={json.dumps(value)}" for path, value in (overrides or {}).items()],
        tracking_uri=tracking_uri,
        resume=resume,
    )
    made.run()
    return Found(made.spec, made.records)


def load(name: str, runs: str | Path = RUNS) -> Found:
    """What a search has found, also while it runs.

    Args:
        name: of the search.
        runs: folder of all that runs write.

    Raises:
        InputError: there is none of that name; lists those that there are.
    """
    records = SearchFolder.find(Path(runs), name)
    return Found(records.spec(), records)


_DELTA = ("baseline", "variant", "delta", "low", "high", "p_value", "detectable", "seeds_agree")


_DELTA_KEYS = ("trial", "compared", "rung", "step", "seeds", "at_rung")


_ARM_KEYS = ("trial", "compared", "rung", "step", "seed", "arm", "digest")


_ARM = ("train_tokens", "train_wall_s", "eval_wall_s")


_TRIAL = (
    *("state", "reason", "verdict", "rungs", "equals", "flags", "steps", "seeds"),
    *(*_DELTA, "q_value"),
    *("confirmed", "confirmed_delta", "confirmed_low", "confirmed_high"),
)


def _trial_row(trial: TrialRecord, metric: str, adjusted: float | None) -> dict[str, Any]:
    end = trial.end
    row: dict[str, Any] = {"trial": trial.number, **trial.candidate}
    row |= {"state": "running" if end is None else end.state, "reason": end and end.reason}
    row |= {"verdict": trial.verdict, "rungs": len(trial.rungs), "equals": trial.equals}
    if trial.rungs:
        last = trial.rungs[-1]
        row |= {"flags": "; ".join(last.flags), "steps": last.steps, "seeds": last.seeds}
        row |= _delta_columns(last.deltas[metric]) | {"q_value": adjusted}
    if trial.confirmation is not None:
        row["confirmed"] = trial.confirmation.verdict
        if trial.confirmation.comparison is not None:
            delta = trial.confirmation.comparison.deltas[metric]
            row |= {"confirmed_delta": delta.mean, "confirmed_low": delta.low}
            row["confirmed_high"] = delta.high
    return row


def _delta_columns(delta: Delta) -> dict[str, Any]:
    return {name: getattr(delta, "mean" if name == "delta" else name) for name in _DELTA}


def _comparisons(trial: TrialRecord) -> Iterator[tuple[str, int | None, Comparison]]:
    """Where a trial was compared: the search's rungs, and its confirmation."""
    yield from (("search", rung.rung, rung) for rung in trial.rungs)
    if trial.confirmation is not None and trial.confirmation.comparison is not None:
        yield "confirmation", None, trial.confirmation.comparison


def _delta_rows(trial: TrialRecord) -> Iterator[dict[str, Any]]:
    for compared, rung, comparison in _comparisons(trial):
        points = [(comparison.steps, comparison.deltas)]
        if rung is not None:
            points = [(point.step, point.deltas) for point in trial.rungs[rung].curve]
        for step, deltas in points:
            at = {"trial": trial.number, "compared": compared, "rung": rung, "step": step}
            at |= {"seeds": comparison.seeds, "at_rung": step == comparison.steps}
            for metric, delta in deltas.items():
                yield at | {"metric": metric} | _delta_columns(delta)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(columns))
    whole = [name for name in _WHOLE if name in frame.columns]
    return frame.astype(dict.fromkeys(whole, "Int64"))


_WHOLE = ("rung", "rungs", "step", "steps", "seed", "seeds", "seeds_agree", "equals")
"""Whole numbers, also where some are missing."""
