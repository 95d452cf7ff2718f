"""What a sequential confirmation finds, and which second rule a gain needs: no training.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/sequential_power.py
        [--paths 20000] [--out docs/results/sequential_power.json]

Seeds' deltas are drawn, with the noise of 1,000 examples, and looked at as a confirmation looks:
Student's t with the boundaries of `fstune.results.sequential`, two points being what matters. Where
seeds are skewed t is wrong: a seed in eight that fails is often not among those drawn. So a second
rule has to agree with a gain. Compared are, alone and together:

    sign flips   exact test that seeds' signs do not matter, 1 %, from eight seeds on
    winsorised   t with a tenth of the seeds at either end moved to the next (Dixon and Tukey,
                 Technometrics 10(1), 1968)
    Johnson      t corrected for the seeds' skewness (Johnson, Journal of the American Statistical
                 Association 73, 1978)
    Hall         the same by a cubic that never turns (`leans` at any skewness)
    Hall below   the same at a skewness below -1 only
    N seeds      no gain before N seeds
    survives j   the mean stays above zero with j more seeds that lose all that they can
    N or j       N seeds, or fewer that survive j
    loses e      the mean stays above zero with one more seed that loses e effects that matter

The rule that is chosen takes most false gains away of those with which two points are found in 20
seeds or less on average, in as many of a hundred confirmations as by t alone, to half a percent.
Prints Markdown: percent of gains (percent in which the effect is excluded) mean seeds. Takes two
minutes.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from calibration import PAIRED, UNSTEADY, measured_spreads, models
from numpy.typing import NDArray
from outcome_model import QUADRATURE, Model
from scipy.special import ndtr, ndtri

from fstune.machine import describe
from fstune.results import sequential
from fstune.results.deltas import FALSE_GAIN
from fstune.results.sequential import Bools, Design, Floats, leans
from fstune.specs.sections import LOOKS

SEED = 20_261_202
EFFECT = 0.02
"""What matters: two points."""

EXAMPLES = 1000
FLIPS = 4096

Draw = Callable[[tuple[int, int], np.random.Generator], Floats]


@dataclass(frozen=True)
class Row:
    """What is drawn."""

    draw: Draw
    """Seeds' deltas, [path, seed]."""
    baseline: float
    """Its score, which is what a seed may lose."""


def noise(model: Model, baseline: float, variant: float) -> float:
    """Standard deviation that examples, right or wrong at these rates, give to a seed's delta."""
    shared = model.example + model.seed_example
    x_K, weight_K = QUADRATURE
    one_K, other_K = (
        ndtr((ndtri(rate) + math.sqrt(shared) * x_K) / math.sqrt(1 - shared))
        for rate in (baseline, variant)
    )
    both = float(weight_K @ (one_K * other_K) / weight_K.sum()) - baseline * variant
    variance = baseline * (1 - baseline) + variant * (1 - variant) - 2 * both
    return math.sqrt(variance / EXAMPLES)


def as_measured(model: Model, effect: float) -> Row:
    """Arms whose seeds differ as the model's do."""
    spread = noise(model, model.rate, model.rate + effect)

    def draw(shape: tuple[int, int], chance: np.random.Generator) -> Floats:
        baseline_PS, variant_PS = (
            ndtr(
                math.hypot(1, model.arm_seed) * ndtri(rate)
                + model.arm_seed * chance.standard_normal(shape)
            )
            for rate in (model.rate, model.rate + effect)
        )
        return variant_PS - baseline_PS + spread * chance.standard_normal(shape)

    return Row(draw, model.rate)


def shaped(draw: Draw, spread: float, baseline: float) -> Row:
    """Seeds' true deltas of some shape, and a normal spread about them."""
    return Row(lambda shape, c: draw(shape, c) + spread * c.standard_normal(shape), baseline)


def two_points(often: float, seldom: float, share: float) -> Draw:
    return lambda shape, chance: np.where(chance.random(shape) < share, seldom, often)


def either(rates: tuple[float, ...], shares: tuple[float, ...]) -> Draw:
    """Each arm's seed at one of these rates."""

    def draw(shape: tuple[int, int], chance: np.random.Generator) -> Floats:
        baseline_PS, variant_PS = (chance.choice(rates, shape, p=shares) for _ in range(2))
        return variant_PS - baseline_PS

    return draw


SKEWED: dict[str, Draw] = {
    "+1/−7 (1/8)": two_points(0.01, -0.07, 1 / 8),
    "+3/−21 (1/8)": two_points(0.03, -0.21, 1 / 8),
    "+3/−9 (1/4)": two_points(0.03, -0.09, 1 / 4),
    "−3/+21 (1/8)": two_points(-0.03, 0.21, 1 / 8),
    "exponential left tail, sd 5": lambda shape, chance: 0.05 - chance.exponential(0.05, shape),
}
"""True effect 0."""

UNSKEWED: dict[str, tuple[Draw, float]] = {
    "one in eight learns, either arm": (either((0.1, 0.65), (7 / 8, 1 / 8)), 0.1),
    "either arm at 56 or 82 %": (either((0.56, 0.82), (0.5, 0.5)), 0.56),
    "letters at 22 24 26 28 %": (either((0.22, 0.24, 0.26, 0.28), (0.25,) * 4), 0.25),
    "t of 3 degrees, sd 5": (
        lambda shape, chance: 0.05 / math.sqrt(3) * chance.standard_t(3, shape),
        0.25,
    ),
    "sd 0.5 or 10": (
        lambda shape, chance: (
            chance.standard_normal(shape) * np.where(chance.random(shape) < 0.5, 0.005, 0.1)
        ),
        0.25,
    ),
}
"""True effect 0, and the baseline's score."""

STEADY = ("guessing", "text", PAIRED)
EFFECTS = (EFFECT, 0.05, 0.2, 0.6)


def rows(kinds: Mapping[str, Model]) -> dict[str, dict[str, Row]]:
    """What is simulated, by what is asked of it."""
    text = kinds["text"]
    examples = noise(text, text.rate, text.rate)
    # As far as the text's own seeds differ: between them lies what t was found to do elsewhere.
    seeds_too = math.hypot(examples, 0.0218)
    skewed = {
        f"{name}{title}": shaped(draw, spread, baseline)
        for title, spread, baseline in (
            ("", examples, text.rate),
            ("; baseline 60 %", examples, 0.6),
            ("; seeds differ", seeds_too, text.rate),
        )
        for name, draw in SKEWED.items()
    }
    nothing = {f"{name}, 0": as_measured(model, 0.0) for name, model in kinds.items()}
    for name, (draw, baseline) in UNSKEWED.items():
        nothing[name] = shaped(draw, examples, baseline)
    effects = {
        f"{name}, +{100 * effect:g}": as_measured(kinds[name], effect)
        for effect in EFFECTS
        for name in STEADY
    }
    for name in STEADY[1:]:
        effects[f"{name}, right 60 %, +2"] = as_measured(replace(kinds[name], rate=0.6), EFFECT)
    effects[f"{UNSTEADY}, +5"] = as_measured(kinds[UNSTEADY], 0.05)
    effects["+2: half of the seeds by 4"] = shaped(two_points(0.0, 0.04, 0.5), examples, text.rate)
    jumps = two_points(0.0, 0.55, 1 / 8)
    effects["+6.9: one in eight by 55, else the same"] = Row(jumps, 0.1)
    return {"nothing": nothing, "skewed": skewed, "effect": effects}


@dataclass(frozen=True)
class Seen:
    """Confirmations that Student's t calls a gain at one look."""

    delta_PS: Floats
    mean_P: Floats
    error_P: Floats
    least_P: Floats
    """The smallest that a seed's delta could be: minus the baseline's score, or a smaller seen."""
    boundary: float

    @property
    def seeds(self) -> int:
        return self.delta_PS.shape[1]


Rule = Callable[[Seen], Bools]


def t_alone(seen: Seen) -> Bools:
    return np.ones(len(seen.mean_P), bool)


@lru_cache
def flips(seeds: int) -> NDArray[np.float32]:
    """All signs of up to twelve seeds, or as many draws of more."""
    if 2**seeds <= FLIPS:
        drawn = np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1
    else:
        drawn = np.random.default_rng(SEED).integers(0, 2, (FLIPS, seeds))
        drawn[0] = 1
    return (2 * drawn - 1).astype(np.float32)


def sign_flips(seen: Seen) -> Bools:
    if seen.seeds < 8:
        return np.zeros(len(seen.mean_P), bool)
    sign_RS, agrees = flips(seen.seeds), []
    for delta_PS in np.array_split(seen.delta_PS.astype(np.float32), 1 + len(seen.mean_P) // 2000):
        sum_P = delta_PS.sum(axis=1)
        as_large_P = (sign_RS @ delta_PS.T >= sum_P - 1e-6 * np.abs(sum_P)).mean(axis=0)
        agrees.append(as_large_P <= FALSE_GAIN)
    return np.concatenate(agrees)


def winsorised(seen: Seen) -> Bools:
    moved = max(1, seen.seeds // 10)
    delta_PS = np.sort(seen.delta_PS, axis=1)
    delta_PS = np.clip(delta_PS, delta_PS[:, [moved]], delta_PS[:, [-1 - moved]])
    error_P = delta_PS.std(axis=1, ddof=1) / math.sqrt(seen.seeds)
    kept = (seen.seeds - 2 * moved - 1) / (seen.seeds - 1)
    return delta_PS.mean(axis=1) * kept > seen.boundary * error_P


def johnson(seen: Seen) -> Bools:
    spread_P = np.maximum(seen.error_P * math.sqrt(seen.seeds), 1e-12)
    third_P = ((seen.delta_PS - seen.mean_P[:, None]) ** 3).mean(axis=1)
    skew_P, u_P = third_P / spread_P**3, seen.mean_P / spread_P
    t_P = math.sqrt(seen.seeds) * (u_P + skew_P * (1 / (6 * seen.seeds) + u_P**2 / 3))
    return t_P > seen.boundary


def hall(seen: Seen, below: float = 0.0) -> Bools:
    return ~leans(seen.delta_PS, seen.error_P, seen.boundary, below)


def hall_below(seen: Seen) -> Bools:
    return hall(seen, sequential.LEANING)


def from_seeds(least: int) -> Rule:
    return lambda seen: np.full(len(seen.mean_P), seen.seeds >= least)


def survives(more: int) -> Rule:
    return lambda seen: seen.seeds * seen.mean_P + more * seen.least_P > 0


def loses(effects: int) -> Rule:
    return lambda seen: seen.seeds * seen.mean_P > np.minimum(-seen.least_P, effects * EFFECT)


def any_of(*rules: Rule) -> Rule:
    return lambda seen: np.logical_or.reduce([rule(seen) for rule in rules])


def all_of(*rules: Rule) -> Rule:
    return lambda seen: np.logical_and.reduce([rule(seen) for rule in rules])


def project(seen: Seen) -> Bools:
    """What `fstune.results.sequential` does."""
    numbers = (seen.seeds, seen.mean_P, seen.least_P)
    return ~(
        sequential.needs_seeds(*numbers)
        | sequential.undone_by_one(*numbers, EFFECT)
        | leans(seen.delta_PS, seen.error_P, seen.boundary)
    )


TESTS: dict[str, Rule] = {
    "sign flips": sign_flips,
    "winsorised": winsorised,
    "Johnson": johnson,
    "Hall": hall,
    "Hall below": hall_below,
}
WAITS: dict[str, Rule] = {f"{seeds} seeds": from_seeds(seeds) for seeds in (8, 12, 16, 24)}
WAITS |= {f"survives {more}": survives(more) for more in (1, 2, 3)}
WAITS |= {
    f"{seeds} or {more}": any_of(from_seeds(seeds), survives(more))
    for seeds, more in ((12, 1), (12, 2), (12, 3), (16, 1), (16, 2), (16, 3), (24, 3))
}
TOGETHER: dict[str, Rule] = {
    f"{wait}, {test}": all_of(WAITS[wait], TESTS[test])
    for wait in ("12 or 3", "16 or 2", "16 or 3")
    for test in ("sign flips", "Hall", "Hall below")
}
TOGETHER |= {
    f"12 or 3, loses {effects}": all_of(WAITS["12 or 3"], loses(effects))
    for effects in (8, 10, 12, 14, 16)
}
CHOSEN = "12 or 3, loses 12, Hall below"
RULES: dict[str, Rule] = {"t alone": t_alone, **TESTS, **WAITS, **TOGETHER, CHOSEN: project}

Found = dict[str, float]


def played(
    row: Row, design: Design, rules: Iterable[str], num_paths: int, chance: np.random.Generator
) -> dict[str, Found]:
    """What confirmations come to by each rule."""
    delta_PS = row.draw((num_paths, design.looks[-1]), chance)
    agrees = {name: np.zeros((len(design.looks), num_paths), bool) for name in rules}
    excludes_KP = np.zeros((len(design.looks), num_paths), bool)
    for k, seeds in enumerate(design.looks):
        seen_PS = delta_PS[:, :seeds]
        mean_P, error_P = seen_PS.mean(axis=1), seen_PS.std(axis=1, ddof=1) / math.sqrt(seeds)
        gains_P, excludes_KP[k] = design.by_t(k, mean_P, error_P, EFFECT)
        least_P = np.minimum(seen_PS.min(axis=1), -row.baseline)
        crossed = (each[gains_P] for each in (seen_PS, mean_P, error_P, least_P))
        seen = Seen(*crossed, design.gain[k])
        for name, agrees_KP in agrees.items():
            agrees_KP[k, gains_P] = RULES[name](seen)
    return {name: stopped(gains_KP, excludes_KP, design) for name, gains_KP in agrees.items()}


def stopped(gains_KP: Bools, excludes_KP: Bools, design: Design) -> Found:
    """Percent of gains, percent in which an effect that matters is excluded, mean seeds."""
    stops_KP = gains_KP | excludes_KP
    at_P = np.where(stops_KP.any(axis=0), stops_KP.argmax(axis=0), len(design.looks) - 1)
    paths = np.arange(len(at_P))
    gains_P = gains_KP[at_P, paths]
    return {
        "gain": round(100 * float(gains_P.mean()), 2),
        "excluded": round(100 * float((excludes_KP[at_P, paths] & ~gains_P).mean()), 2),
        "seeds": round(float(np.array(design.looks)[at_P].mean()), 1),
    }


def printed(title: str, found: Mapping[str, Mapping[str, Found]]) -> None:
    """A table of one line for each row that is drawn."""
    columns = list(next(iter(found.values())))
    print(f"\n| {title} | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, each in found.items():
        cells = (f"{f['gain']:.1f} ({f['excluded']:.1f}) {f['seeds']:.0f}" for f in each.values())
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def by_rule(kinds: Mapping[str, Model], num_paths: int) -> dict[str, Any]:
    """Every rule on every row, with looks up to the last."""
    report: dict[str, Any] = {}
    design = Design.ending_at(LOOKS[-1])
    for place, (title, drawn) in enumerate(rows(kinds).items()):
        report[title] = {
            name: played(row, design, RULES, num_paths, np.random.default_rng([SEED, place, k]))
            for k, (name, row) in enumerate(drawn.items())
        }
        # Rules down, rows across: what one chooses by.
        turned = {
            rule: {name: each[rule] for name, each in report[title].items()} for rule in RULES
        }
        printed(title, turned)
    return report


def frontier(report: Mapping[str, Mapping[str, Mapping[str, Found]]]) -> dict[str, Found]:
    """What each rule takes away and costs: its worst cases in percent, and mean seeds."""

    def worst(part: str, rule: str, name: str = "") -> float:
        return max(each[rule]["gain"] for row, each in report[part].items() if row.startswith(name))

    found = {}
    for rule in RULES:
        of_two = [report["effect"][f"{name}, +2"][rule] for name in STEADY]
        found[rule] = {
            "false gains": worst("nothing", rule),
            **{name: worst("skewed", rule, name) for name in SKEWED},
            "power": min(each["gain"] for each in of_two),
            "seeds": max(each["seeds"] for each in of_two),
        }
    columns = list(found[CHOSEN])
    print("\n| worst of | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for rule, each in found.items():
        print(f"| {rule} | " + " | ".join(f"{value:.1f}" for value in each.values()) + " |")
    return found


def by_design(kinds: Mapping[str, Model], num_paths: int) -> dict[str, Any]:
    """The chosen rule for each last look."""
    drawn = {
        f"{name}, +{100 * effect:g}": as_measured(kinds[name], effect)
        for name in STEADY
        for effect in (0.0, 0.01, *EFFECTS)
    }
    report = {}
    for k, (name, row) in enumerate(drawn.items()):
        chance = np.random.default_rng([SEED, len(drawn), k])
        report[name] = {
            f"up to {last}": played(row, Design.ending_at(last), [CHOSEN], num_paths, chance)[
                CHOSEN
            ]
            for last in LOOKS[1:]
        }
    printed("looks", report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=20_000)
    parser.add_argument("--table", type=Path, default=Path("docs/results/outcome_table.npz"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/sequential_power.json"))
    arguments = parser.parse_args()
    kinds = models(measured_spreads(arguments.table)[1])
    of_rules = by_rule(kinds, arguments.paths)
    report = {
        "benchmark": "sequential_power",
        "command": " ".join(["python", "tests/benchmarks/sequential_power.py", *sys.argv[1:]]),
        "worth": EFFECT,
        "examples": EXAMPLES,
        "paths": arguments.paths,
        "chosen": CHOSEN,
        "frontier": frontier(of_rules),
        "by_rule": of_rules,
        "by_last_look": by_design(kinds, arguments.paths),
        "versions": describe(),
    }
    arguments.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
