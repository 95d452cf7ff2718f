"""Two variants of any searches set against each other: paired where their contexts are one.

Reads records and stored outcomes; trains nothing. Where model, task, training or data differ, a
difference of scores says nothing of the mechanism: it is refused, or shown without a delta.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from fstune.arms.store import ArmStore
from fstune.errors import InputError
from fstune.report.phrases import at_rung, describe_candidate, interval
from fstune.results.deltas import Delta, paired_deltas
from fstune.results.folder import SearchFolder
from fstune.results.outcomes import required_pairs
from fstune.results.ranking import ranked
from fstune.results.records import ArmPair, TrialRecord
from fstune.specs.sections import SearchSpec
from model.mechanisms import registry as mechanisms
from tasks import registry

_OWN = frozenset({*mechanisms.names(), "train_sample"})
"""What two variants of one context may have each for itself: mechanisms. A seed's sample of the
training rows is compared by the digest of what was read."""


@dataclass(frozen=True)
class ComparedVariant:
    """A trial's variant, as far as it came."""

    label: str
    spec: SearchSpec
    trial: TrialRecord
    store: ArmStore

    @classmethod
    def find(cls, name: str, runs: Path) -> "ComparedVariant":
        """The trial that `SEARCH:NUMBER` names, or the best one of `SEARCH`.

        Raises:
            InputError: if there is none, or it has not come to a rung.
        """
        search, _, number = name.partition(":")
        records = SearchFolder.find(runs, search)
        trials = records.trials()
        if not number:
            chosen = next(iter(ranked(trials)), None)
        else:
            chosen = next((trial for trial in trials if str(trial.number) == number), None)
        if chosen is None:
            known = f"0 to {len(trials) - 1}" if trials else "none yet"
            raise InputError(f"{search} has no trial {number or '0'}; it has {known}")
        if not chosen.rungs:
            raise InputError(f"{search}:{chosen.number} has not come to a rung: nothing to compare")
        return cls(f"{search}:{chosen.number}", records.spec(), chosen, records.store)

    @property
    def arms(self) -> dict[int, str]:
        """The variant's digest by seed, at the last rung."""
        return {pair.seed: pair.variant for pair in self.trial.rungs[-1].arms}


def different_context(
    one: ComparedVariant, other: ComparedVariant
) -> dict[str, tuple[object, object]]:
    """Fields outside the mechanism in which two variants differ, with both values.

    Of every seed that they have in common: what repetitions differ in is not seen in the first
    (`SearchSpec.seeds`). A field stands with the values of the first seed at which it differs.

    Raises:
        InputError: if they have no seed in common.
    """
    found: dict[str, tuple[object, object]] = {}
    for seed in _common_seeds(one, other):
        left, right = (
            dict(_flat(side.store.described(side.arms[seed]) or {})) for side in (one, other)
        )
        for field in (*left, *right):
            if left.get(field) != right.get(field):
                found.setdefault(field, (left.get(field), right.get(field)))
    return found


def delta_between(
    one: ComparedVariant, other: ComparedVariant
) -> tuple[int, int, dict[str, Delta]]:
    """Step, number of seeds and the deltas `other` minus `one`, over the same examples.

    Raises:
        InputError: if no step and seed was evaluated for both.
    """
    seeds = _common_seeds(one, other)
    evaluated = [
        set(side.store.evaluated_steps(side.arms[seed])) for side in (one, other) for seed in seeds
    ]
    steps = set.intersection(*evaluated)
    if not steps:
        raise InputError(f"{one.label} and {other.label} were not evaluated at a common step")
    arms = [ArmPair(seed, one.arms[seed], other.arms[seed]) for seed in seeds]
    pairs = required_pairs(one.store, arms, max(steps))
    metrics = registry.get(one.spec.task_name).measured(one.spec.task)
    return max(steps), len(seeds), paired_deltas(pairs, metrics)


def _common_seeds(one: ComparedVariant, other: ComparedVariant) -> list[int]:
    seeds = sorted(one.arms.keys() & other.arms.keys())
    if not seeds:
        raise InputError(f"{one.label} and {other.label} have no seed in common")
    return seeds


def _flat(value: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, object]]:
    for key, inner in value.items():
        if key in _OWN:
            continue
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{at}{key}.")
        else:
            yield f"{at}{key}".removeprefix("settings."), inner


def comparison_view(one: ComparedVariant, other: ComparedVariant, unmatched: bool) -> Group:
    """Both sides, and what differs between them.

    Args:
        one: what is subtracted.
        other: what it is subtracted from.
        unmatched: show two contexts side by side rather than refuse.

    Raises:
        InputError: if the contexts differ, unless `unmatched`; or if nothing is common.
    """
    differing = different_context(one, other)
    if differing and not unmatched:
        raise InputError(
            f"{one.label} and {other.label} have different contexts, so that their difference says "
            f"nothing of the mechanism:\n{_listed(differing)}\n"
            "see them side by side with --unmatched"
        )
    lines = [line for side in (one, other) for line in _own_lines(side)]
    if differing:
        lines.append(
            Text(f"unmatched, no delta between them; they differ in\n{_listed(differing)}")
        )
        return Group(*lines)
    step, seeds, deltas = delta_between(one, other)
    heading = f"{other.label} minus {one.label} after {at_rung(step, seeds)}, same examples"
    lines.append(Text(heading, style="bold"))
    lines += [Text(_between(name, delta)) for name, delta in deltas.items()]
    return Group(*lines)


def _between(name: str, delta: Delta) -> str:
    return f"  {name:<20}{interval(delta)}  p {delta.p_value:.2g}"


def _own_lines(side: ComparedVariant) -> list[Text]:
    rung, metric = side.trial.rungs[-1], side.spec.metric().name
    delta = rung.deltas[metric]
    return [
        Text(f"{side.label}  {describe_candidate(side.trial.candidate)}", style="bold"),
        Text(f"  {metric} {delta.variant:.4f}, against its baseline {interval(delta)}"),
        Text(f"  after {at_rung(rung.steps, rung.seeds)}: {rung.verdict}"),
    ]


def _listed(differing: Mapping[str, tuple[object, object]]) -> str:
    return "\n".join(f"  {field}: {a} and {b}" for field, (a, b) in differing.items())
