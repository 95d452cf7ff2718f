"""What a trial costs beyond training and evaluation, after the first.

    python tests/benchmarks/trial_overhead.py [--trials 20]

Runs a search of trials that hardly train and prints the seconds between one trial's end and the
next one's, less what training and evaluating its arms took, as median and spread, and the search's
fixed costs.
"""

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fstune.api import prepare
from fstune.arms.store import ArmStore
from fstune.machine import describe

SPEC = """
name: overhead
model: {{init: {{num_layers: 2, width: 32, head_size: 16, vocab_size: 256}}}}
task: {{name: rightcopy, length: 3, train_size: 64, validation_size: 16}}
train: {{lr: 1e-3, batch_size: 4}}
rungs: [{{steps: 1}}, {{steps: 2}}]
space: {{future_seed.alpha: {{uniform: [-3.0, 3.0]}}}}
search: {{trials: {trials}, scheduler: none, sampler: tpe}}
resources: {{gpus: 0, cpu_threads: 1}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "overhead.yaml"
        spec.write_text(SPEC.format(trials=trials))
        started = time.time()
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints there, and this script its result
            search = prepare(spec, runs=Path(folder) / "mlruns")
            search.run()
        total_s = time.time() - started
        store = ArmStore(search.runs / "arms")
        ends, inside_s = [], []
        for trial in search.records.trials():
            end = search.records.root / "trials" / f"{trial.number:04d}" / "end.json"
            ends.append(end.stat().st_mtime)
            # Baselines are trained in the first trial, which does not count here.
            variant = trial.rungs[-1].arms[0].variant
            outcomes = [store.outcome(variant, step) for step in store.evaluated_steps(variant)]
            inside_s.append(outcomes[-1].train_wall_s + sum(o.eval_wall_s for o in outcomes))
    gaps = [
        later - earlier - inside
        for earlier, later, inside in zip(ends, ends[1:], inside_s[1:], strict=False)
    ]
    print(
        json.dumps(
            {
                "benchmark": "trial_overhead",
                "trials": trials,
                "rungs_per_trial": 2,
                "overhead_per_trial_s": {
                    "median": round(statistics.median(gaps), 3),
                    "min": round(min(gaps), 3),
                    "max": round(max(gaps), 3),
                },
                "first_trial_ends_after_s": round(ends[0] - started, 1),
                "whole_search_s": round(total_s, 1),
                "machine": platform.processor() or platform.machine(),
                **describe(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
