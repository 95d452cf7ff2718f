"""The price of an answer: seeds, optimiser steps and hours until a question is decided, three ways.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/price.py
        [--tries 300] [--out docs/results/price.json] [--page docs/price.md]

For true effects of 0, +1, +2 and +5 points and each kind of outcome of `calibration.py`, 1,000 test
examples, arc's steps. The ways: the earlier work's (fastdiscover on ARC: one seed, 24 examples an
evaluation, the best of 8 and of 16), five fixed seeds, and a sequential confirmation as shipped.
What decides is fstune's own code. Hours are steps times what a step takes: here the tiny one of
`step_cpu.py`, on a GPU what was counted for 0.1B at B 8, T 4096 (`STEP_S`, not measured). Writes
the page.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from calibration import Earlier, measured_spreads, models, share
from outcome_model import Model
from simulated_search import Sizes, delta_of, looked_at

from fstune.machine import describe
from fstune.results.deltas import confirmation_confidence
from fstune.results.verdict import VERDICT_RULES, verdict
from fstune.specs.loading import find, load

EFFECTS = (0.0, 0.01, 0.02, 0.05)
FIXED = 5

STEP_S = {"RTX 4090": 0.79, "H100": 0.25}
"""Of 12 layers of width 768, B 8, T 4096, bf16, all kept: 687 GB moved, 17.8 TFLOP of products and
7,930 launches were counted, over 0.93 and 2.9 TB/s and 150 and 550 TFLOP/s."""

EARLIER_STEPS = (160, 320)
"""Of its quick and its med runs of ARC."""


def earlier(model: Model, effect: float, tries: int, chance: np.random.Generator) -> dict[str, Any]:
    """One candidate of this effect by the earlier protocol; a gain is one of the med run."""
    alone = Earlier(candidates=1)
    played = [alone.play(model, chance, effect) for _ in range(tries)]
    promoted = [med for _, med in played if med is not None]
    quick, med = EARLIER_STEPS
    return {
        "gain": share(sum(each > 0 for each in promoted), tries),
        "excluded": None,
        "seeds": 1.0,
        "steps": round(2 * quick + 2 * med * len(promoted) / tries),
    }


def five(
    model: Model, sizes: Sizes, effect: float, steps: int, tries: int, chance: np.random.Generator
) -> dict[str, Any]:
    gains = 0
    for _ in range(tries):
        right, _ = model.draw([0.0, effect], (1, FIXED, sizes.test), chance)
        found = delta_of(right[0], 1, FIXED, confirmation_confidence(1))
        gains += verdict(found, sizes.margin, confirms=True) == "gain"
    return {
        "gain": share(gains, tries),
        "excluded": None,
        "seeds": float(FIXED),
        "steps": 2 * FIXED * steps,
    }


def shipped(
    model: Model, sizes: Sizes, effect: float, steps: int, tries: int, chance: np.random.Generator
) -> dict[str, Any]:
    shape = (1, sizes.confirm_seeds, sizes.test)
    seen = [looked_at(model.draw([0.0, effect], shape, chance)[0][0], sizes) for _ in range(tries)]
    seeds = float(np.mean([each.seeds for each in seen]))
    return {
        "gain": share(sum(each.decision == "gain" for each in seen), tries),
        "excluded": share(sum(each.decision == "not worth it" for each in seen), tries),
        "seeds": round(seeds, 1),
        "steps": round(2 * seeds * steps),
    }


def row(kind: str, effect: float, way: str, found: dict[str, Any], here_s: float) -> str:
    def percent(of: dict[str, Any] | None) -> str:
        return "–" if of is None else f"{100 * of['share']:.0f} %"

    hours = [f"{found['steps'] * step_s / 3600:.2f}" for step_s in (here_s, *STEP_S.values())]
    cells = [
        kind,
        f"{100 * effect:+.0f}",
        way,
        percent(found["gain"]),
        percent(found["excluded"]),
        f"{found['seeds']:.1f}",
        f"{found['steps']:,}",
        *hours,
    ]
    return f"| {' | '.join(cells)} |"


PAGE = Path(__file__).with_name("price_page.md")
"""Its words."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=300)
    parser.add_argument("--table", type=Path, default=Path("docs/results/outcome_table.npz"))
    parser.add_argument("--step", type=Path, default=Path("docs/results/step_cpu.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/price.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/price.md"))
    arguments = parser.parse_args()
    spec = load(find("arc")).spec
    sizes, steps = Sizes.of(spec), spec.rungs[-1].steps
    tiny = json.loads(arguments.step.read_text())["tiny"]
    here_s = next(e["step_ms"]["median"] for e in tiny if e["search"] == "quickstart") / 1000
    command = "PYTHONPATH=.:tests/benchmarks python tests/benchmarks/price.py"
    command = " ".join([command, *sys.argv[1:]])
    found: dict[str, Any] = {}
    rows = []
    for place, (kind, model) in enumerate(models(measured_spreads(arguments.table)[1]).items()):
        for effect in EFFECTS:
            chance = np.random.default_rng([20_261_201, place, round(1000 * effect)])
            tries = arguments.tries
            ways = {
                "earlier work": earlier(model, effect, tries, chance),
                "five seeds": five(model, sizes, effect, steps, tries, chance),
                "**shipped**": shipped(model, sizes, effect, steps, tries, chance),
            }
            for way, one in ways.items():
                found[f"{kind}, {effect:+g}, {way.strip('*')}"] = one
                rows.append(row(kind, effect, way, one, here_s))
                print(rows[-1], flush=True)
    report = {"benchmark": "price", "command": command, "found": found, "versions": describe()}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    page = PAGE.read_text().format(
        command=command,
        rules=VERDICT_RULES,
        tries=arguments.tries,
        test=sizes.test,
        steps=steps,
        worth=100 * sizes.worth,
        here_ms=1000 * here_s,
        gpus=", ".join(f"{name} {step_s:g} s" for name, step_s in STEP_S.items()),
        gpu_heads=" | ".join(f"h {name}" for name in STEP_S),
        gpu_rules="---|" * len(STEP_S),
        rows="\n".join(rows),
    )
    arguments.page.write_text(page)


if __name__ == "__main__":
    main()
