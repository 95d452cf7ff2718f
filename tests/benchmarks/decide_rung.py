"""How long fstune's own code takes to decide a rung: deltas, intervals, tests and the verdict.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/decide_rung.py
        [--seeds 5] [--examples 1000] [--turns 20]

Of the tasks with most metrics, all at once, on outcomes of random numbers; prints seconds with
their quartiles as JSON. The first decision of a size draws what later ones share: it stands by
itself. The target is 0.2 s on two cores. Where other work competes for them, times are multiples of
the scheduler's slices rather than the code's own: the load average says so.
"""

import argparse
import json
import os
import time

import numpy as np
from timing import in_turns, spread

from fstune.arms.arm import Outcome, Pair
from fstune.machine import describe
from fstune.results.deltas import paired_deltas
from fstune.results.verdict import verdict
from tasks import registry
from tasks.metrics import CORRECT, NLL_SUM, TOTAL, Metric

TARGET_S = 0.2
MARGIN = 0.01
TASKS_TIMED = 3


def random_pairs(metrics: tuple[Metric, ...], num_seeds: int, num_examples: int) -> list[Pair]:
    """Pairs with every measure that the metrics need."""
    chance = np.random.default_rng(0)
    total_N = chance.integers(4, 20, num_examples)
    names = {name for metric in metrics for name in metric.needs} | {CORRECT, NLL_SUM, TOTAL}

    def outcome(seed: int, rate: float) -> Outcome:
        measures = {name: chance.binomial(total_N, rate).astype(np.float64) for name in names}
        measures[TOTAL] = total_N.astype(np.float64)
        return Outcome("arm", seed, "split", 1, measures, (), {}, (), 0, 0.0, 0.0, 0.0)

    return [Pair(outcome(seed, 0.5), outcome(seed, 0.52)) for seed in range(num_seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    by_metrics = sorted(registry.names(), key=lambda name: -len(registry.get(name).metrics))
    results = {}
    for task in by_metrics[:TASKS_TIMED]:
        metrics = registry.get(task).metrics
        pairs = random_pairs(metrics, arguments.seeds, arguments.examples)

        def decide() -> None:
            deltas = paired_deltas(pairs, metrics)  # noqa: B023  # called within this turn only
            verdict(deltas[metrics[0].name], MARGIN)  # noqa: B023

        started = time.perf_counter()
        decide()
        first_s = time.perf_counter() - started
        seconds = in_turns({"decide": decide}, arguments.turns)["decide"]
        results[task] = {
            "metrics": [metric.name for metric in metrics],
            "pooled": [metric.name for metric in metrics if metric.pooled],
            "first_s": round(first_s, 4),
            "seconds": {
                "min": round(min(seconds), 4),
                **spread(seconds),
                "max": round(max(seconds), 4),
            },
        }
    report = {
        "benchmark": "decide_rung",
        "seeds": arguments.seeds,
        "examples": arguments.examples,
        "target_s": TARGET_S,
        "load_average_1min": round(os.getloadavg()[0], 2),
        "tasks": results,
        **describe(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
