"""Whether the right candidate becomes a finalist, by simulation: this rule and the one before.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/who_climbs.py
        [--searches 100] [--finalists 2] [--out docs/results/who_climbs.json]

Searches of arc's shipped sizes in which one candidate of 24 is worth 2 or 5 points, 0, 6, 12 or 18
of the others change 0.3 % of their baseline's answers and the rest do nothing but with noise of
their own. Both rules see the same outcomes.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from calibration import PAIRED, measured_spreads, models, share
from outcome_model import Model
from simulated_search import Sizes, finalists, outcomes, searched

from fstune.machine import describe
from fstune.results.verdict import VERDICT_RULES
from fstune.specs.loading import find, load

RULES = (2, VERDICT_RULES)
"""Ranked by the lower bound at every rung, and as it is."""

NO_OPS = (0, 6, 12, 18)
EFFECTS = (0.02, 0.05)


def hits(
    sizes: Sizes, model: Model, effect: float, no_ops: int, searches: int, most: int
) -> dict[str, dict[str, dict[str, float | int]]]:
    """By rules: how often the candidate is first, and among so many finalists."""
    first, among = dict.fromkeys(RULES, 0), dict.fromkeys(RULES, 0)
    chance = np.random.default_rng([20_261_201, no_ops, round(1000 * effect)])
    for _ in range(searches):
        effects: list[float | None] = [effect, *[None] * no_ops]
        effects += [0.0] * (sizes.trials - len(effects))
        order = chance.permutation(sizes.trials)
        right = outcomes(sizes, model, [effects[place] for place in order], chance)
        planted = int(np.flatnonzero(order == 0)[0])
        for rules in RULES:
            chosen = finalists(searched(sizes, right, rules), sizes, most)
            first[rules] += chosen[0] == planted
            among[rules] += planted in chosen
    return {
        f"rules {rules}": {
            "first": share(first[rules], searches),
            f"among {most}": share(among[rules], searches),
        }
        for rules in RULES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--finalists", type=int, default=2)
    parser.add_argument("--table", type=Path, default=Path("docs/results/outcome_table.npz"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/who_climbs.json"))
    arguments = parser.parse_args()
    kinds = models(measured_spreads(arguments.table)[1])
    sizes = Sizes.of(load(find("arc")).spec)
    report = {
        "benchmark": "who_climbs",
        "command": " ".join(["python", "tests/benchmarks/who_climbs.py", *sys.argv[1:]]),
        "versions": describe(),
        "searches": {},
    }
    most = arguments.finalists
    for kind in ("text", PAIRED):
        for effect in EFFECTS:
            for no_ops in NO_OPS:
                found = hits(sizes, kinds[kind], effect, no_ops, arguments.searches, most)
                report["searches"][f"{kind}, {effect:+g}, {no_ops} no-ops"] = found
                cells = [
                    f"{100 * found[f'rules {rules}'][what]['share']:.0f} %"
                    for rules in RULES
                    for what in ("first", f"among {most}")
                ]
                line = [kind, f"{100 * effect:+.0f} points", str(no_ops), *cells]
                print(f"| {' | '.join(line)} |", flush=True)
                arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
