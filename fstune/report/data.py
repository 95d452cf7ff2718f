"""A search's findings as JSON, and the files that a report leaves.

Words are in `words`, terminal tables in `table`. No torch, no Ray.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fstune.files import write_json
from fstune.results.folder import SearchFolder
from fstune.results.ranking import best_of
from fstune.results.records import Comparison, Confirmation, LookRecord, RungRecord, TrialRecord
from fstune.results.selection import corrected_winner, false_discovery_adjusted
from fstune.specs.sections import SearchSpec


def as_json(records: SearchFolder, spec: SearchSpec) -> dict[str, Any]:
    """The search as the JSON that `fstune report NAME --format json` prints."""
    trials = records.trials()
    best = best_of(trials)
    adjusted = false_discovery_adjusted(trials, spec.metric().name)
    return {
        "search": spec.name,
        "spec_digest": spec.digest,
        "objective": spec.metric().name,
        "verdict_rules": records.rules,
        "trials": [
            _trial_json(trial) | {"q_value": adjusted.get(trial.number)} for trial in trials
        ],
        "best": None if best is None else best.number,
        "guesses": records.guesses(),
        "selection_corrected": _winner_json(trials, spec, records),
    }


def _winner_json(
    trials: Sequence[TrialRecord], spec: SearchSpec, records: SearchFolder
) -> dict[str, Any] | None:
    found = corrected_winner(trials, spec.metric(), records.store)
    if found is None:
        return None
    picked = [{"trial": number, "share": share} for number, share in found.picked.items()]
    return {"mean": found.mean, "naive": found.naive, "picked": picked}


def _trial_json(trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "candidate": trial.candidate,
        "equals": trial.equals,
        "verdict": trial.verdict,
        "confirmation": _confirmation_json(trial.confirmation),
        **({"looks": [_look_json(look) for look in trial.looks]} if trial.looks else {}),
        "state": "running" if trial.end is None else trial.end.state,
        "reason": None if trial.end is None else trial.end.reason,
        "rungs": [_comparison_json(rung) for rung in trial.rungs],
        "arms": [
            {"seed": pair.seed, "baseline": pair.baseline, "variant": pair.variant}
            for pair in (trial.rungs[-1].arms if trial.rungs else [])
        ],
    }


def _confirmation_json(confirmation: Confirmation | None) -> dict[str, Any] | None:
    if confirmation is None or confirmation.comparison is None:
        return None if confirmation is None else {"verdict": confirmation.verdict}
    return _comparison_json(confirmation.comparison)


def _look_json(look: LookRecord) -> dict[str, Any]:
    return {**asdict(look.at), "ended_at": look.ended_at}


def _comparison_json(rung: Comparison) -> dict[str, Any]:
    return {
        "steps": rung.steps,
        "seeds": rung.seeds,
        "verdict": rung.verdict,
        "flags": rung.flags,
        # Said where there is something to say: reports of older rules know neither.
        **({"no_better_than": rung.guessed} if rung.guessed else {}),
        **({"settled": True} if isinstance(rung, RungRecord) and rung.settled else {}),
        "baseline": {name: delta.baseline for name, delta in rung.deltas.items()},
        "variant": {name: delta.variant for name, delta in rung.deltas.items()},
        "delta": {
            name: {
                "mean": delta.mean,
                "low": delta.low,
                "high": delta.high,
                "p_value": delta.p_value,
                "half_width": delta.half_width,
                "detectable": delta.detectable,
                "seeds_agree": delta.seeds_agree,
            }
            for name, delta in rung.deltas.items()
        },
    }


def write_report(records: SearchFolder, spec: SearchSpec) -> Path:
    """Keep the JSON beside the records; returns its path."""
    path = records.report_file("json")
    write_json(path, as_json(records, spec))
    return path
