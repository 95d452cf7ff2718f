"""A report's sentences: what was asked, what came out, what it cost, how to do it again.

Words and numbers only; `summary` puts them together. No torch, no Ray.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fstune.arms.store import ArmStore
from fstune.report.phrases import (
    at_rung,
    confirmed_at,
    counted,
    describe_candidate,
    duration,
    interval,
    looked,
    nothing_learnt,
    percent,
    trivial_scores,
)
from fstune.report.series import objective_name
from fstune.results.deltas import CONFIDENCE, confirmation_confidence
from fstune.results.folder import SearchFolder
from fstune.results.learning import KNOWS_LEARNING
from fstune.results.outcomes import stored_pairs
from fstune.results.planning import Outlook
from fstune.results.records import Comparison, TrialRecord, own_trials
from fstune.results.selection import (
    FALSE_DISCOVERY_RATE,
    SPLITS,
    corrected_winner,
    false_discovery_adjusted,
)
from fstune.results.verdict import Verdict
from fstune.specs.sections import SearchSpec
from model.mechanisms import registry as mechanisms
from tasks import registry

Fact = tuple[str, str]
"""What, and its value."""


_SAYS: dict[Verdict, str] = {
    "gain": "Yes",
    "unconfirmed gain": "Perhaps",
    "loss": "No, it harms",
    "no effect": "No effect",
    "not learnt": "Not learnt",
    "not worth it": "Not worth it",
    "inconclusive": "Inconclusive",
    "diverged": "Diverged",
    "failed": "Failed",
    "infeasible": "Infeasible",
    "running": "Not yet",
}


@dataclass(frozen=True)
class Answer:
    """What the search, and its confirmation if there is one, let one say."""

    verdict: Verdict
    word: str
    """The verdict as an answer to the question."""
    sentence: str
    confirmation: str
    """Confirmed or not, in a sentence."""

    @property
    def headline(self) -> str:
        """The answer, and the verdict where that is another word."""
        same = self.word.lower() == self.verdict
        return self.word if same else f"{self.word}: {self.verdict}"


def subject(spec: SearchSpec) -> str:
    """What is compared with its absence; the variant, where the baseline has the mechanism too."""
    titles = [mechanisms.get(name).title for name in spec.mechanisms()]
    return "the variant" if not titles or _in_both(spec) else " and ".join(titles)


def _in_both(spec: SearchSpec) -> bool:
    """Whether the baseline has a mechanism, with settings of its own."""
    return bool(spec.mechanisms_of_baseline())


def _baseline(spec: SearchSpec) -> str:
    """What the baseline has instead."""
    own = describe_candidate(spec.baseline)
    off = bool(spec.mechanisms()) and not _in_both(spec)
    return ", ".join(filter(None, ["the mechanism off" if off else "", own]))


def _mechanisms(spec: SearchSpec) -> str:
    """The variant's mechanisms, and what is fixed of them."""
    said = []
    for name in spec.mechanisms():
        fixed = spec.fixed_settings(name)
        said.append(
            f"{mechanisms.get(name).title}, fixed: {json.dumps(fixed) if fixed else 'its defaults'}"
        )
    return "; ".join(said) or "none: two settings are compared"


def question(spec: SearchSpec) -> str:
    """What the search asks, in a sentence."""
    metric = spec.metric()
    better = "raise" if metric.higher_is_better else "lower"
    return (
        f"Does {subject(spec)} {better} {metric.name} on {spec.task_name}, against a baseline that "
        "sees the same data in the same order for the same number of steps?"
    )


def setting(spec: SearchSpec, rules: int) -> list[Fact]:
    """Mechanism, task, model, training and budget.

    Args:
        spec: the search's.
        rules: version of the verdict rules that it is decided by.
    """
    task, rungs = registry.get(spec.task_name), spec.rungs
    sizes = spec.task
    climbs = " → ".join(at_rung(rung.steps, rung.seeds) for rung in rungs)
    train = spec.train
    return [
        ("Mechanism", _mechanisms(spec)),
        ("Varied", ", ".join(spec.space) or "nothing"),
        ("Baseline", _baseline(spec)),
        ("Task", f"{task.name}, version {task.version}: {task.summary}"),
        (
            "Examples",
            f"{sizes.train_size} to train on, {sizes.validation_size} for validation, "
            f"{sizes.test_size} for the confirmation",
        ),
        ("Model", _model(spec)),
        (
            "Training",
            f"{train.optimizer}, lr {train.lr:g}, {train.batch_size} examples a step, "
            f"{spec.model.precision}",
        ),
        *_weights(spec),
        (
            "Budget",
            f"{spec.search.trials} candidates ({spec.search.sampler}, {spec.search.scheduler}): "
            f"{climbs}",
        ),
        (
            "Judged by",
            f"Δ {spec.metric().name}, ranked by {ranked_by(spec, rules)}; within "
            f"±{spec.objective.margin:g} it is no effect",
        ),
    ]


def ranked_by(spec: SearchSpec, rules: int) -> str:
    """What candidates are ranked by, in words."""
    lower = spec.objective.bound == "lower"
    at_last = f"{objective_name(spec)}{' for the seeds that were run' if lower else ''}"
    if rules < KNOWS_LEARNING:
        return at_last
    return (
        f"what it may still be (the upper bound for the seeds that were run), and at the last rung "
        f"by {at_last}; what is surely no better than the margin comes last"
    )


def _weights(spec: SearchSpec) -> list[Fact]:
    """Which weights were evaluated, where they are not those of the last step."""
    chosen, told = spec.evaluation, []
    if chosen.cooldown:
        told.append(
            f"after a branch whose rates fall to 0 over {percent(chosen.cooldown)} of the rung"
        )
    if chosen.weights == "mean":
        told.append(f"their exponential mean over the steps, decay {chosen.mean_decay:g}")
    return [("Weights evaluated", "; ".join(told))] if told else []


def without_understanding(records: SearchFolder, spec: SearchSpec) -> list[Fact]:
    """What chance and trivial strategies score."""
    metric = spec.metric().name
    scores = trivial_scores(records.guesses(), metric)
    return [("Without understanding", f"{metric}: {scores}")] if scores else []


def _model(spec: SearchSpec) -> str:
    shapes = spec.model.init
    if shapes is None:
        return f"checkpoint {(spec.model.checkpoint or '').rsplit('/', 1)[-1]}"
    return (
        f"{shapes.num_layers} layers of width {shapes.width}, {shapes.num_heads} heads, "
        f"vocabulary {shapes.vocab_size}, from scratch"
    )


def answer(
    spec: SearchSpec, order: Sequence[TrialRecord], best: TrialRecord | None, finalists: int
) -> Answer:
    """The answer: a confirmed finalist's if there is one, else the best candidate's.

    Args:
        spec: the search's.
        order: its trials from best to worst.
        best: the best that did not break off; None if there is none.
        finalists: how many share a confirmation's level, tried already or not.
    """
    tried = [trial for trial in order if trial.confirmation is not None]
    gains = [trial for trial in tried if trial.verdict == "gain"]
    chosen = next(iter(gains or tried), best)
    if chosen is None:
        return _without_a_best(spec, order)
    confirmed = chosen.confirmation
    if confirmed is None:
        sentence = _sentence(spec, chosen, chosen.rungs[-1], CONFIDENCE, "validation")
        return Answer(chosen.verdict, _SAYS[chosen.verdict], sentence, _unconfirmed(spec, chosen))
    level = confirmed_at(spec, finalists)
    if confirmed.comparison is None:
        sentence = f"Candidate {chosen.number} broke off when confirmed: {confirmed.failure}."
    else:
        sentence = _sentence(spec, chosen, confirmed.comparison, level, "test")
        if seen := looked(spec, chosen.looks):
            sentence = f"{sentence} {seen[0].upper()}{seen[1:]}."
    told = (
        f"Confirmed for {len(gains)} of {finalists} finalists"
        if gains
        else f"Not confirmed for any of {finalists} finalists"
    )
    if len(tried) < finalists:
        told += f", of which {len(tried)} {'was' if len(tried) == 1 else 'were'} tried so far"
    told += (
        ": new seeds, and test examples that nothing had looked at. "
        f"{_hold_together(spec)} {percent(confirmation_confidence(1))}."
    )
    return Answer(chosen.verdict, _SAYS[chosen.verdict], sentence, told)


def _hold_together(spec: SearchSpec) -> str:
    if spec.confirm is not None and spec.confirm.looks == "sequential":
        return "The intervals hold at all looks together at"
    return "The finalists' intervals hold together at"


def _without_a_best(spec: SearchSpec, order: Sequence[TrialRecord]) -> Answer:
    """What is said while no candidate stands, or once none is left to hope for."""
    ends = [trial.end for trial in order if trial.end is not None]
    reached = sum(bool(trial.rungs) for trial in order)
    nothing = (
        f"No candidate stands: {reached} of {len(order)} reached a rung, and broke off later."
        if reached
        else "No candidate has reached a rung."
    )
    if len(ends) < max(len(order), spec.search.trials):
        return Answer("running", _SAYS["running"], nothing, "")
    ways = Counter(end.state for end in ends)
    verdict: Verdict = ends[0].broke_off or "failed"
    if len(ways) > 1:
        verdict = "failed"
    told = ", ".join(f"{count} {state}" for state, count in ways.items())
    first = f"Candidate {order[0].number} {ends[0].state}: {ends[0].reason.partition(chr(10))[0]}"
    return Answer(verdict, _SAYS[verdict], f"{nothing} {told}. {first}", "")


def _sentence(
    spec: SearchSpec, trial: TrialRecord, at: Comparison, level: float, split: str
) -> str:
    delta = at.deltas[spec.metric().name]
    no_better = f" {nothing_learnt(at)}" if at.verdict == "not learnt" else ""
    return (
        f"With {describe_candidate(trial.candidate) or 'its fixed settings'} (candidate "
        f"{trial.number}), {subject(spec)} takes {spec.metric().name} from {delta.baseline:.4f} "
        f"to {delta.variant:.4f}: Δ {interval(delta)}, {percent(level)} interval, at "
        f"{at_rung(at.steps, at.seeds)} on the {split} examples.{no_better}"
    )


def _unconfirmed(spec: SearchSpec, chosen: TrialRecord) -> str:
    if chosen.verdict != "unconfirmed gain":
        return "Not confirmed: there is no gain to confirm."
    picked = (
        "Not confirmed: the best of several candidates looks better than it is, and the search "
        "has looked at these examples."
    )
    if spec.confirm is None:
        return f"{picked} The spec has no section `confirm`."
    return f"{picked} `fstune confirm {spec.name}` tries it on new seeds and the test examples."


def outlook(spec: SearchSpec, trial: TrialRecord, store: ArmStore) -> str:
    """What it would take to decide about a candidate; empty where that is done, or not known."""
    at = trial.comparisons[-1] if trial.comparisons else None
    if at is None or trial.verdict not in _OPEN or at.seeds < 2:
        return ""
    pairs, examples = stored_pairs(store, at.arms, at.steps), spec.task.test_size
    worth = spec.objective.worth_deciding
    if not (pairs and worth and examples):
        return ""
    known = Outlook.of(spec, pairs)
    gain = known.variation.mean
    seen, worthy = (known.prospect(examples, effect) for effect in (gain, worth))
    hours = known.price.hours(seen.seeds, examples)
    decided = 100 * (seen.gain + seen.excluded)
    return (
        f"If candidate {trial.number} gains what it seems to, {gain:+.3g}, {decided:.0f} "
        f"of 100 confirmations decide, by {seen.seeds:.0f} new seeds on average, "
        f"{duration(3600 * hours)} here. A gain of {worth:g} would be found in "
        f"{100 * worthy.gain:.0f} of 100; `fstune plan {spec.name}` has more."
    )


_OPEN: tuple[Verdict, ...] = ("unconfirmed gain", "inconclusive")


def cost(trials: Sequence[TrialRecord], spec: SearchSpec, store: ArmStore) -> list[Fact]:
    """What was spent: steps, tokens and seconds of every arm, each counted once."""
    reached: dict[str, set[int]] = {}
    trials = own_trials(trials)
    for trial in trials:
        for at in trial.comparisons:
            for arm in (arm for pair in at.arms for arm in (pair.baseline, pair.variant)):
                reached.setdefault(arm, set()).add(at.steps)
    outcomes = [store.outcome(arm, max(steps)) for arm, steps in reached.items()]
    steps_taken = sum(map(spec.evaluation.steps_taken, reached.values()))
    known = [outcome for outcome in outcomes if outcome is not None]
    rungs = [rung for trial in trials for rung in trial.rungs]
    asked, reused = 2 * sum(rung.seeds for rung in rungs), sum(rung.reused for rung in rungs)
    facts = [
        (
            "Arms",
            f"{len(reached)}; of {asked} that the rungs asked for, {reused} had been trained that "
            "far before: for another candidate or search, or by an arm worker",
        ),
        ("Optimiser steps", f"{steps_taken:,}"),
    ]
    if len(known) == len(outcomes):
        tokens = sum(outcome.train_tokens for outcome in known)
        facts += [
            ("Tokens trained on", f"{tokens:,}"),
            ("Training of all arms", duration(sum(outcome.train_wall_s for outcome in known))),
        ]
    here_s = duration(sum(rung.wall_s for rung in rungs))
    facts.append(("Wall time of the rungs", f"{here_s}, evaluation included"))
    broke_off = sum(trial.end is not None and trial.end.broke_off is not None for trial in trials)
    if broke_off:
        candidates = counted(broke_off, "candidate")
        facts.append(("Not counted", f"what {candidates} took from the last rung to breaking off"))
    return facts


def facts(records: SearchFolder, spec: SearchSpec) -> list[Fact]:
    """Digests, versions, device, and when the last evaluation ended."""
    found = [
        ("spec digest", spec.digest),
        ("verdict rules", f"version {records.rules}"),
    ]
    ends = [point.ended_at for t in records.trials() for r in t.rungs for point in r.curve]
    if ends:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(max(ends)))
        found.append(("last evaluation", when))
    environments = records.environments()
    for first in environments[:1]:
        found += [(name.replace("version.", ""), str(value)) for name, value in first.items()]
    for before, after in pairwise(environments):
        changed = [
            f"{name.replace('version.', '')}: {before.get(name)}, then {after.get(name)}"
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        ]
        found.append(("went on with", "; ".join(changed)))
    return found


def reproduce(spec: SearchSpec, resolved: str) -> list[str]:
    """The commands that make the search again from its resolved spec."""
    lines = [f"fstune search {resolved} --runs again"]
    if spec.confirm is not None:
        lines.append(f"fstune confirm {spec.name} --runs again")
    return [*lines, f"fstune report {spec.name} --runs again --format html"]


def luck(trials: Sequence[TrialRecord], spec: SearchSpec, store: ArmStore) -> str:
    """What stands of a search's results once it is taken into account how many were tried."""
    compared = [trial for trial in own_trials(trials) if trial.rungs]
    if len(compared) < 2:
        return ""
    adjusted = false_discovery_adjusted(compared, spec.metric().name)
    standing = sum(q_value <= FALSE_DISCOVERY_RATE for q_value in adjusted.values())
    told = (
        f"{len(compared)} candidates were compared. At a false discovery rate of "
        f"{percent(FALSE_DISCOVERY_RATE)}, {standing} differ from their baseline (q in the table "
        "below)."
    )
    winner = corrected_winner(compared, spec.metric(), store)
    if winner is None:
        return told
    picked = ", ".join(
        f"{number} in {percent(share)}" for number, share in list(winner.picked.items())[:3]
    )
    return (
        f"{told} The best of the last rung, picked on one half of the examples, has a Δ of "
        f"{winner.mean:+.4f} on the other half, against {winner.naive:+.4f} on the half that "
        f"picked it ({SPLITS} divisions; candidate {picked}). Only a confirmation has examples and "
        "seeds that nobody has seen."
    )
