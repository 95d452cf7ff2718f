"""Tokens per second of an evaluation against those of training, and what tracking costs.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/evaluation_cpu.py \
        > docs/results/evaluation_cpu.json

Both read the same examples of a shipped tiny search with Future-Seed on: the training step by its
batches with gradients and optimiser, the evaluation in its own batches. Tracking is what MLflow
takes of the driver's time for one rung's evaluation, as a share of a second.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from timing import in_turns, ratios, spread

from fstune.arms.advance import Workbench
from fstune.arms.inputs import gather
from fstune.arms.store import ArmStore
from fstune.arms.trainer import ArmTrainer
from fstune.machine import WORKER_VARIABLES, cores, describe, use_fast_matmul
from fstune.results.folder import SearchFolder
from fstune.results.pairing import run_rung
from fstune.specs.loading import find, load
from fstune.tracking.tracker import Tracker, local_uri

SEARCHES = ("quickstart", "sudoku_tiny", "permfill_tiny")
TURNS = 10
EVALUATIONS = 20


def evaluation(name: str, folder: Path) -> dict[str, object]:
    """Training steps over as many tokens as one evaluation reads."""
    spec = load(find(name)).spec
    torch.set_num_threads(spec.resources.cpu_threads or cores())
    _, settings = spec.settings(dict(spec.points[0]) if spec.points else {})
    materials = gather(settings, folder)
    run = ArmTrainer(materials.arm(settings, 0), materials, torch.device("cpu"))
    evaluated = int(materials.evaluated.prompt_lengths.sum())
    per_step = settings.train.batch_size * int(materials.train.prompt_lengths.mean())
    steps = max(1, evaluated // per_step)

    def train() -> None:
        for _ in range(steps):
            run.train_step()

    seconds = in_turns({"train": train, "evaluate": run.outcome}, TURNS)
    seconds["train"] = [s * evaluated / (steps * per_step) for s in seconds["train"]]
    return {
        "search": name,
        "evaluated_tokens_per_s": round(evaluated / min(seconds["evaluate"])),
        "times_the_rate_of_training": ratios(seconds["train"], seconds["evaluate"]),
    }


def tracking(folder: Path) -> dict[str, object]:
    """Seconds of the driver per evaluation that is logged."""
    spec = load(find("quickstart"), ["rungs=[{steps: 1}, {steps: 2}]"]).spec
    records = SearchFolder(folder / "searches" / spec.name)
    records.root.mkdir(parents=True)
    bench = Workbench(ArmStore(folder / "arms"), torch.device("cpu"))
    candidate = dict(spec.points[1])
    record = run_rung(spec, candidate, 0, folder / "cache", bench)
    tracker = Tracker(records, spec, folder, local_uri(folder))
    tracker.open({}, {})
    seconds = []
    records.write_candidate(0, candidate)
    for rung in range(EVALUATIONS):
        records.write_rung(0, replace(record, rung=rung))
        trial = records.trial(0)
        assert trial is not None
        started = time.perf_counter()
        tracker.sync(trial)
        seconds.append(time.perf_counter() - started)
    return {
        "evaluations": EVALUATIONS,
        "ms_per_evaluation": spread([1000 * s for s in seconds[1:]], 1),
        "share_at_one_evaluation_a_second": round(sorted(seconds[1:])[EVALUATIONS // 2], 4),
    }


def main() -> None:
    if any(os.environ.get(name) != value for name, value in WORKER_VARIABLES.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WORKER_VARIABLES)
    use_fast_matmul()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        result = {
            "benchmark": "evaluation_cpu",
            "command": "PYTHONPATH=.:tests/benchmarks python tests/benchmarks/evaluation_cpu.py",
            "searches": [evaluation(name, Path(folder)) for name in SEARCHES],
            "tracking": tracking(Path(folder)),
            **describe(),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
