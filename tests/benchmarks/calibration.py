"""How often fstune's verdicts are right, by simulation: no training.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/calibration.py
        [--searches 2000] [--intervals 500] [--table docs/results/outcome_table.npz]
        [--out docs/results/calibration.json]

Outcomes are drawn by `outcome_model.py` with the spread of real arms. What decides is fstune's own
code: `paired_deltas`, `verdict`, promotion between rungs, the ranking that picks the finalists, the
looks of a confirmation; sizes are those of the shipped searches. Four parts:

    null      searches in which no candidate does anything: how often is there a gain?
    coverage  how often does an interval of nominal 95 % hold the true delta?
    power     what does a confirmation come to at 0, +1, +2, +5 points, after how many seeds; how
              often does a whole search confirm a candidate of +2 points?
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
from outcome_model import Model, Spread, measured, read_table, without_effect
from simulated_search import METRIC, Sizes, delta_of, finalists, looked_at, outcomes, searched

from fstune.machine import describe
from fstune.results.deltas import confirmation_confidence
from fstune.results.sequential import Look
from fstune.results.verdict import VERDICT_RULES, Verdict, verdict
from fstune.specs.loading import find, load

EFFECTS = (0.0, 0.01, 0.02, 0.05)
SEEDS = (1, 2, 3, 5, 8)
FIXED_SEEDS = (5, 8, 16)
EXAMPLES = (128, 256, 1000)
HALF_WIDTH = 1.96


@dataclass(frozen=True)
class Found:
    """What a search said, and its confirmation."""

    best: int
    """The best candidate at the last rung."""
    search: Verdict
    claimed: float
    """The best one's delta there."""
    confirmed: dict[int, Look]
    """The last look at each finalist that was tried."""


def simulated(
    sizes: Sizes, model: Model, effects: Sequence[float], chance: np.random.Generator
) -> Found:
    """One search and its sequential confirmation; candidate k is arm k + 1 of what is drawn."""
    order = searched(sizes, outcomes(sizes, model, effects, chance))
    chosen = finalists(order, sizes, sizes.finalists)
    confirmed = {}
    for number in chosen:
        shape = (1, sizes.confirm_seeds, sizes.test)
        right_RASN, _ = model.draw([0.0, effects[number]], shape, chance)
        confirmed[number] = looked_at(right_RASN[0], sizes)
        if confirmed[number].decision != "gain":
            break
    best = order[0]
    return Found(
        best=best.number,
        search=best.verdict,
        claimed=best.rungs[-1].deltas[METRIC.name].mean,
        confirmed=confirmed,
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
    first = [next(iter(one.confirmed.values())) for one in found]
    return {
        "gain_in_the_search": share(sum(o.search == "unconfirmed gain" for o in found), searches),
        "gain_after_confirm": share(sum(each.decision == "gain" for each in first), searches),
        "worth_excluded": share(sum(each.excluded for each in first), searches),
        "seeds": round(float(np.mean([each.seeds for each in first])), 1),
        "mean_delta_in_the_search": round(float(np.mean([one.claimed for one in found])), 4),
        "mean_delta_after_confirm": round(float(np.mean([each.estimate for each in first])), 4),
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
    model: Model, sizes: Sizes, effect: float, tries: int, chance: np.random.Generator
) -> dict[str, Any]:
    """What the confirmation of a finalist of this effect comes to, and after how many seeds."""
    shape = (1, sizes.confirm_seeds, sizes.test)
    found = [looked_at(model.draw([0.0, effect], shape, chance)[0][0], sizes) for _ in range(tries)]
    return {
        "effect": effect,
        "gain": share(sum(each.decision == "gain" for each in found), tries),
        "worth_excluded": share(sum(each.excluded for each in found), tries),
        "interval_holds": share(sum(each.low <= effect <= each.high for each in found), tries),
        "seeds": round(float(np.mean([each.seeds for each in found])), 1),
        "bias": round(float(np.mean([each.mean for each in found])) - effect, 4),
        "bias_corrected": round(float(np.mean([each.estimate for each in found])) - effect, 4),
    }


def fixed(
    model: Model, sizes: Sizes, effect: float, tries: int, chance: np.random.Generator
) -> list[dict[str, Any]]:
    """The same with one look, at so many seeds."""
    rows = []
    for seeds in FIXED_SEEDS:
        told = 0
        for _ in range(tries):
            right, _ = model.draw([0.0, effect], (1, seeds, sizes.test), chance)
            delta = delta_of(right[0], 1, seeds, confirmation_confidence(1))
            told += verdict(delta, sizes.margin, confirms=True) == "gain"
        rows.append({"effect": effect, "seeds": seeds, "gain": share(told, tries)})
    return rows


def planted(
    sizes: Sizes, model: Model, searches: int, chance: np.random.Generator
) -> dict[str, Any]:
    """Whole searches in which one candidate is worth 2 points and the others nothing."""
    picked = confirmed = wrongly = 0
    for _ in range(searches):
        effects = [0.0] * sizes.trials
        planted_one = int(chance.integers(sizes.trials))
        effects[planted_one] = sizes.worth
        found = simulated(sizes, model, effects, chance).confirmed
        picked += planted_one in found
        gains = {number for number, seen in found.items() if seen.decision == "gain"}
        confirmed += planted_one in gains
        wrongly += bool(gains - {planted_one})
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

    def play(
        self, model: Model, chance: np.random.Generator, effect: float = 0.0
    ) -> tuple[float, float | None]:
        """Delta of the best candidate's quick run, and of its med run if it was promoted.

        Args:
            model: of the outcomes.
            chance: draws.
            effect: of every candidate.
        """
        shape = (self.med, 1, self.pool)
        right = model.draw([0.0, *[effect] * self.candidates], shape, chance)[0][:, :, 0]
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
    for name, model in kinds.items():
        found = [power(model, sizes, effect, arguments.tries, chance) for effect in EFFECTS]
        yield f"one finalist, {name}", found
        yield f"one look, {name}", fixed(model, sizes, sizes.worth, arguments.tries, chance)
    for name in ("text", PAIRED):
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
