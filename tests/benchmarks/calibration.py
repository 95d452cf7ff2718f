"""How often fstune's verdicts are right, by simulation: no training.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/calibration.py
        [--searches 2000] [--intervals 500] [--table docs/results/outcome_table.npz]
        [--out docs/results/calibration.json]

Outcomes are drawn by `outcome_model.py` with the spread of real arms. What decides is fstune's own
code: `paired_deltas`, `verdict`, promotion between rungs, the ranking that picks the finalists, the
level of a confirmation; sizes are those of the shipped searches. Four parts:

    null      searches in which no candidate does anything: how often is there a gain?
    coverage  how often does an interval of nominal 95 % hold the true delta?
    power     how often is a candidate of +2 points confirmed, alone and in a whole search?
    earlier   the earlier work's protocol (fastdiscover on ARC) on outcomes of the same kind: three
              candidates, the best promoted at +0.8 points, a score the best of all evaluations
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from outcome_model import Model, Spread, measured, pairs, read_table, without_effect

from fstune.machine import describe
from fstune.results.deltas import CONFIDENCE, Delta, confirmation_confidence, paired_deltas
from fstune.results.ranking import ranked
from fstune.results.records import RungRecord, TrialRecord
from fstune.results.verdict import VERDICT_RULES, Verdict, verdict
from fstune.search.promotion import Standing, next_climb
from fstune.specs.loading import find, load
from fstune.specs.sections import SearchSpec
from tasks.metrics import TOKEN_ACCURACY

METRIC = TOKEN_ACCURACY
"""Of one target an example: right or wrong, the widest spread that a metric between 0 and 1 has."""

EFFECT = 0.02
SEEDS = (1, 2, 3, 5, 8)
EXAMPLES = (128, 256, 1000)
POWER_EXAMPLES = (128, 256, 512, 1000, 2000)
HALF_WIDTH = 1.96


@dataclass(frozen=True)
class Sizes:
    """What a shipped search asks for."""

    name: str
    trials: int
    factor: int
    rung_seeds: tuple[int, ...]
    validation: int
    test: int
    finalists: int
    confirm_seeds: int
    margin: float

    @classmethod
    def of(cls, spec: SearchSpec) -> "Sizes":
        assert spec.confirm is not None
        return cls(
            name=spec.name,
            trials=spec.search.trials,
            factor=spec.search.reduction_factor,
            rung_seeds=tuple(rung.seeds for rung in spec.rungs),
            validation=spec.task.validation_size,
            test=spec.task.test_size,
            finalists=spec.confirm.finalists,
            confirm_seeds=spec.confirm.seeds,
            margin=spec.objective.margin,
        )


@dataclass(frozen=True)
class Found:
    """What a search said."""

    best: int
    """The best candidate at the last rung."""
    search: Verdict
    claimed: float
    """The best one's delta there."""
    confirmed: dict[int, Delta]
    verdicts: dict[int, Verdict]


def delta_of(right: Any, arm: int, num_seeds: int, confidence: float = CONFIDENCE) -> Delta:
    return paired_deltas(pairs(right, arm, num_seeds), [METRIC], confidence)[METRIC.name]


def simulated(
    sizes: Sizes, model: Model, effects: Sequence[float], chance: np.random.Generator
) -> Found:
    """One search and its confirmation; candidate k is arm k + 1 of what is drawn."""
    last = len(sizes.rung_seeds) - 1
    shape = (last + 1, max(sizes.rung_seeds), sizes.validation)
    right_RASN, _ = model.draw([0.0, *effects], shape, chance)
    trials: list[TrialRecord] = []
    while (climb := _next(trials, sizes, last)) is not None:
        number, rung = climb
        if number == len(trials):
            trials.append(TrialRecord(number, {}))
        found = delta_of(right_RASN[rung], number + 1, sizes.rung_seeds[rung])
        trials[number].rungs.append(_record(found, sizes, rung))
    order = [trial for trial in ranked(trials) if len(trial.rungs) == last + 1]
    finalists = [trial.number for trial in order[: sizes.finalists]]
    right_ASN = model.draw(
        [0.0, *(effects[number] for number in finalists)],
        (1, sizes.confirm_seeds, sizes.test),
        chance,
    )[0][0]
    level = confirmation_confidence(len(finalists))
    confirmed = {
        number: delta_of(right_ASN, place + 1, sizes.confirm_seeds, level)
        for place, number in enumerate(finalists)
    }
    best = order[0]
    return Found(
        best=best.number,
        search=best.verdict,
        claimed=best.rungs[-1].deltas[METRIC.name].mean,
        confirmed=confirmed,
        verdicts={
            number: verdict(delta, sizes.margin, confirms=True)
            for number, delta in confirmed.items()
        },
    )


def _next(trials: list[TrialRecord], sizes: Sizes, last: int) -> tuple[int, int] | None:
    """Who is compared where next: with one slot, as `scheduler: asha_promote` decides."""
    all_drawn = len(trials) >= sizes.trials
    standings = [
        Standing(t.number, tuple(r.objective for r in t.rungs), ended=len(t.rungs) == last + 1)
        for t in trials
    ]
    climb = next_climb(standings, last, sizes.factor, all_drawn)
    if climb is not None:
        return climb.number, climb.rung
    return None if all_drawn else (len(trials), 0)


def _record(delta: Delta, sizes: Sizes, rung: int) -> RungRecord:
    return RungRecord(
        steps=rung + 1,
        seeds=sizes.rung_seeds[rung],
        deltas={METRIC.name: delta},
        verdict=verdict(delta, sizes.margin),
        objective=delta.gain("lower"),
        largest_gate=1.0,
        arms=[],
        rung=rung,
        curve=[],
        wall_s=0.0,
    )


def share(hits: int, tries: int) -> dict[str, float | int]:
    """A share with the bounds of Wilson's 95 % interval (JASA 22, 1927)."""
    z2 = HALF_WIDTH**2
    p = hits / tries
    middle = (p + z2 / (2 * tries)) / (1 + z2 / tries)
    half = HALF_WIDTH * np.sqrt(p * (1 - p) / tries + z2 / (4 * tries**2)) / (1 + z2 / tries)
    return {
        "of": tries,
        "share": round(p, 4),
        "low": round(max(float(middle - half), 0.0), 4),
        "high": round(float(middle + half), 4),
    }


def null(sizes: Sizes, model: Model, searches: int, chance: np.random.Generator) -> dict[str, Any]:
    """Searches in which no candidate does anything."""
    found = [simulated(sizes, model, [0.0] * sizes.trials, chance) for _ in range(searches)]
    gains = sum("gain" in one.verdicts.values() for one in found)
    first = [one.confirmed[one.best] for one in found]
    return {
        "gain_in_the_search": share(sum(o.search == "unconfirmed gain" for o in found), searches),
        "gain_after_confirm": share(gains, searches),
        "loss_after_confirm": share(sum("loss" in o.verdicts.values() for o in found), searches),
        "mean_delta_in_the_search": round(float(np.mean([one.claimed for one in found])), 4),
        "mean_delta_after_confirm": round(float(np.mean([each.mean for each in first])), 4),
    }


def coverage(
    model: Model, num_seeds: int, num_examples: int, intervals: int, chance: np.random.Generator
) -> dict[str, Any]:
    """How often an interval holds the truth, and on which side it misses."""
    below = above = 0
    widths = []
    for _ in range(intervals):
        right, rate_RAS = model.draw([0.0, 0.0], (1, num_seeds, num_examples), chance)
        found = delta_of(right[0], 1, num_seeds)
        # One seed's interval is meant to hold that seed's own delta.
        truth = float(rate_RAS[0, 1, 0] - rate_RAS[0, 0, 0]) if num_seeds == 1 else 0.0
        below += truth < found.low
        above += truth > found.high
        widths.append(found.high - found.low)
    return {
        "seeds": num_seeds,
        "examples": num_examples,
        **share(intervals - below - above, intervals),
        "truth_below": round(below / intervals, 4),
        "truth_above": round(above / intervals, 4),
        "median_half_width": round(float(np.median(widths)) / 2, 4),
    }


def power(
    model: Model, sizes: Sizes, shape: tuple[int, int], tries: int, chance: np.random.Generator
) -> dict[str, Any]:
    """How often a finalist of +2 points, one of so many, is called a gain."""
    level = confirmation_confidence(sizes.finalists)
    told = 0
    for _ in range(tries):
        right, _ = model.draw([0.0, EFFECT], (1, *shape), chance)
        found = delta_of(right[0], 1, shape[0], level)
        told += verdict(found, sizes.margin, confirms=True) == "gain"
    return {"seeds": shape[0], "examples": shape[1], **share(told, tries)}


def planted(
    sizes: Sizes, model: Model, searches: int, chance: np.random.Generator
) -> dict[str, Any]:
    """Whole searches in which one candidate is worth 2 points and the others nothing."""
    picked = confirmed = wrongly = 0
    for _ in range(searches):
        effects = [0.0] * sizes.trials
        planted_one = int(chance.integers(sizes.trials))
        effects[planted_one] = EFFECT
        found = simulated(sizes, model, effects, chance)
        picked += planted_one in found.verdicts
        confirmed += found.verdicts.get(planted_one) == "gain"
        wrongly += any(v == "gain" for n, v in found.verdicts.items() if n != planted_one)
    return {
        "among_the_finalists": share(picked, searches),
        "confirmed": share(confirmed, searches),
        "another_confirmed": share(wrongly, searches),
    }


@dataclass(frozen=True)
class Earlier:
    """The earlier work's protocol on ARC."""

    candidates: int = 3
    threshold: float = 0.008
    pool: int = 200
    draws: int = 24
    """Examples of an evaluation, with replacement, the same for all arms."""
    quick: int = 8
    med: int = 16
    """Evaluations of a run; a score is the best of them. The med run repeats the quick one."""

    def play(self, model: Model, chance: np.random.Generator) -> tuple[float, float | None]:
        """Delta of the best candidate's quick run, and of its med run if it was promoted."""
        shape = (self.med, 1, self.pool)
        right = model.draw([0.0] * (self.candidates + 1), shape, chance)[0][:, :, 0]
        drawn_ED = chance.integers(self.pool, size=(self.med, self.draws))
        score_EA = np.stack([right[e][:, drawn_ED[e]].mean(axis=1) for e in range(self.med)])
        quick_A, med_A = score_EA[: self.quick].max(axis=0), score_EA.max(axis=0)
        best = 1 + int(quick_A[1:].argmax())
        gain = float(quick_A[best] - quick_A[0])
        return gain, float(med_A[best] - med_A[0]) if gain >= self.threshold else None


def earlier(model: Model, searches: int, chance: np.random.Generator) -> dict[str, Any]:
    """The earlier protocol where nothing has an effect."""
    played = [Earlier().play(model, chance) for _ in range(searches)]
    med = [after for _, after in played if after is not None]
    return {
        "quick_gain": share(len(med), searches),
        "med_gain_of_promoted": share(sum(after > 0 for after in med), len(med)),
        "gain_announced": share(sum(after > 0 for after in med), searches),
        "mean_med_delta_of_promoted": round(float(np.mean(med)), 4),
    }


Titled = Iterator[tuple[str, Any]]
Models = dict[str, Model]
Part = Callable[[Models, argparse.Namespace, np.random.Generator], Titled]

KINDS = {
    "guessing": "quickstart, baseline against itself",
    "learnt": "quickstart, alpha -2 against itself",
    "text": "squad_tiny, baseline against itself",
}
"""What is simulated, and the arms on which its spread was measured: a model that guesses one digit,
one of which seeds learn the task sooner or later, and one that is tuned on real text."""

UNSTEADY = "text, seeds differ by 0.05"
PAIRED = "text, arms correlate by 0.8"
"""Assumed, where the text's arms at hand are at the ends: the pairs of one seed, trained for ten
steps, agree to 0.99 and differ by nothing from seed to seed; those of different seeds share the
example alone. Between them: an example's outcomes correlate by 0.8, which the earlier work's own
simulation took, and a pair's delta differs by 1 point from seed to seed."""

SHIPPED = {"quickstart": ("guessing", "learnt"), "arc": ("text", PAIRED, UNSTEADY)}


def null_part(kinds: Models, arguments: argparse.Namespace, chance: np.random.Generator) -> Titled:
    for shipped, names in SHIPPED.items():
        sizes = Sizes.of(load(find(shipped)).spec)
        for name in names:
            # Where the spread is assumed rather than measured, a quarter as many.
            searches = arguments.searches // (1 if name in KINDS else 4)
            found = null(sizes, kinds[name], searches, chance)
            yield f"{shipped}'s sizes, {name}", found


def coverage_part(
    kinds: Models, arguments: argparse.Namespace, chance: np.random.Generator
) -> Titled:
    for name, model in kinds.items():
        yield (
            name,
            [
                coverage(model, num_seeds, num_examples, arguments.intervals, chance)
                for num_seeds in SEEDS
                for num_examples in EXAMPLES
            ],
        )


def power_part(kinds: Models, arguments: argparse.Namespace, chance: np.random.Generator) -> Titled:
    sizes = Sizes.of(load(find("arc")).spec)
    for name in ("text", PAIRED):
        yield (
            f"one of two finalists, {name}",
            [
                power(kinds[name], sizes, (num_seeds, num_examples), arguments.tries, chance)
                for num_seeds in SEEDS
                for num_examples in POWER_EXAMPLES
            ],
        )
        whole = planted(sizes, kinds[name], arguments.tries, chance)
        yield f"whole searches of arc's sizes, {name}", whole


def earlier_part(
    kinds: Models, arguments: argparse.Namespace, chance: np.random.Generator
) -> Titled:
    for name in ("text", PAIRED):
        yield name, earlier(kinds[name], arguments.searches, chance)


PARTS: dict[str, Part] = {
    "earlier": earlier_part,
    "null": null_part,
    "coverage": coverage_part,
    "power": power_part,
}


def measured_spreads(table: Path) -> tuple[dict[str, Any], dict[str, Spread]]:
    """What the table says of itself, and the spread of its arms against themselves and others."""
    about, values = read_table(table)
    spreads = {}
    for name, value_ARSN in values.items():
        alphas = about["searches"][name]["alphas"]
        for arm, title in enumerate(["baseline", *(f"alpha {alpha:g}" for alpha in alphas)]):
            spreads[f"{name}, {title} against itself"] = without_effect(value_ARSN[arm])
            if arm:
                spreads[f"{name}, {title} against baseline"] = measured(value_ARSN[[0, arm]])
    return about, spreads


def models(spreads: dict[str, Spread]) -> Models:
    """What is simulated."""
    kinds = {name: Model.of(spreads[arms]) for name, arms in KINDS.items()}
    text = spreads[KINDS["text"]]
    kinds[PAIRED] = Model.of(replace(text, seed_example=0.8, seed_delta=0.01))
    kinds[UNSTEADY] = Model.of(replace(text, seed_delta=0.05))
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=2000)
    parser.add_argument("--intervals", type=int, default=500)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--table", type=Path, default=Path("docs/results/outcome_table.npz"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibration.json"))
    arguments = parser.parse_args()
    about, spreads = measured_spreads(arguments.table)
    kinds = models(spreads)
    report: dict[str, Any] = {
        "benchmark": "calibration",
        "command": " ".join(["python", "tests/benchmarks/calibration.py", *sys.argv[1:]]),
        "verdict_rules": VERDICT_RULES,
        "measured": {name: asdict(spread) for name, spread in spreads.items()},
        "models": {name: asdict(model) for name, model in kinds.items()},
        "versions": {**describe(), "table": about},
    }
    for name, spread in spreads.items():
        print(name, {key: round(value, 4) for key, value in asdict(spread).items()}, flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for place, (part, run) in enumerate(PARTS.items()):
        if part not in arguments.parts:
            continue
        report[part] = {}
        # A part says the same whichever others run.
        for title, found in run(kinds, arguments, np.random.default_rng([20_261_121, place])):
            report[part][title] = found
            for line in found if isinstance(found, list) else [found]:
                print(f"{part}: {title}", json.dumps(line), flush=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
