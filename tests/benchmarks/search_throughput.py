"""Trials per hour of one small search, against the way of the shell scripts before it.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/search_throughput.py \
        > docs/results/search_throughput.json

The earlier work started a process for every run, loaded model and data in each, and trained the
baseline again for every candidate. That is re-enacted with this project's own model, data and
training loop: the same arms to the same step, in a new process and a new store each.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from fstune.api import prepare
from fstune.arms.advance import Workbench, advance
from fstune.arms.inputs import gather
from fstune.arms.store import ArmStore
from fstune.machine import WORKER_VARIABLES, describe, use_fast_matmul
from fstune.specs.loading import load

STEPS = 60
SPEC = f"""\
name: throughput
model: {{init: {{num_layers: 2, width: 64, head_size: 32, vocab_size: 256}}}}
task: {{name: rightcopy, length: 6, train_size: 512, validation_size: 128}}
train: {{lr: 1e-3, batch_size: 16}}
rungs: [{{steps: {STEPS}}}]
space: {{future_seed.alpha: {{uniform: [-3.0, 3.0]}}}}
search: {{trials: 12, scheduler: none, sampler: random}}
resources: {{gpus: 0, cpu_threads: 1}}
"""


def one_run(spec_path: Path, candidate: str, arm: str) -> None:
    """One arm from nothing, as a script would run it."""
    use_fast_matmul()
    torch.set_num_threads(1)
    settings = load(spec_path).spec.settings(json.loads(candidate))[arm == "variant"]
    with tempfile.TemporaryDirectory() as folder:
        materials = gather(settings, Path(folder) / "cache")
        bench = Workbench(ArmStore(Path(folder) / "arms"), torch.device("cpu"))
        advance(materials.arm(settings, 0), materials, STEPS, bench)


def earlier_way(spec_path: Path, candidates: list[dict[str, object]]) -> float:
    """Seconds that the runs of all candidates take, one process after the other."""
    started = time.perf_counter()
    for candidate in candidates:
        for arm in ("baseline", "variant"):
            command = [sys.executable, __file__, str(spec_path), json.dumps(candidate), arm]
            subprocess.run(command, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one", nargs="*", help="spec, candidate and arm: one run, for the peer")
    one = parser.parse_args().one
    if one:
        one_run(Path(one[0]), one[1], one[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "throughput.yaml"
        path.write_text(SPEC)
        started = time.perf_counter()
        began = time.time()
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints there, and this script its result
            search = prepare(path, runs=Path(folder) / "mlruns")
            search.run()
        ours_s = time.perf_counter() - started
        # An arm's settings are written just before its first step.
        arms = (Path(folder) / "mlruns" / "arms").glob("*/arm.json")
        first_step_s = min(path.stat().st_mtime for path in arms) - began
        candidates = [dict(trial.candidate) for trial in search.records.trials()]
        os.environ.update(WORKER_VARIABLES)
        earlier_s = earlier_way(path, candidates)
    trials = len(candidates)
    print(
        json.dumps(
            {
                "benchmark": "search_throughput",
                "command": "PYTHONPATH=.:tests/benchmarks "
                "python tests/benchmarks/search_throughput.py",
                "trials": trials,
                "steps_per_arm": STEPS,
                "ours": {
                    "seconds": round(ours_s, 1),
                    "per_hour": round(3600 * trials / ours_s),
                    "start_to_first_step_s": round(first_step_s, 1),
                },
                "a_process_per_run": {
                    "seconds": round(earlier_s, 1),
                    "per_hour": round(3600 * trials / earlier_s),
                },
                "times_faster": round(earlier_s / ours_s, 2),
                **describe(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
