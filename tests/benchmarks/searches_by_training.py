"""Whole searches where the truth is known, trained and confirmed: nothing to find, and a gain.

    PYTHONPATH=. python tests/benchmarks/searches_by_training.py --runs DIR [--only NAME ...]

    nothing  the variant is the baseline with other seeds of weights and order: real noise, no
             effect. None may be confirmed, in ten searches; two points are to be excluded where
             seeds allow it. On two tasks, one with the mechanism in both arms and one without it.
    planted  `rightcopy`, which cannot be done without Future-Seed: the gain must be found and
             confirmed, in ten searches with different seeds of search, data and weights.

The commands are run as a user runs them, each in a process of its own. Run again with the same DIR,
it goes on where it stopped.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fstune.machine import describe

REPETITIONS = 10

COMMON = """\
model: {init: {num_layers: 2, width: 64, head_size: 32, vocab_size: 256}, tokenizer: bytes}
train: {lr: 4e-3, weight_decay: 0.0, batch_size: 16}
rungs: [{steps: 30, seeds: 1}, {steps: 60, seeds: 1}, {steps: 120, seeds: 3}]
objective: {metric: token_accuracy}
confirm: {seeds: 16}
resources: {gpus: 0, cpu_threads: 1}
"""
SIZES = "train_size: 4096, validation_size: 128, test_size: 128"
NOTHING = {
    "nothing_rightcopy": f"""\
task: {{name: rightcopy, length: 4, {SIZES}}}
fixed: {{future_seed: {{norm: true}}}}
space: {{train.seed: {{int_uniform: [10, 1000000]}}}}
baseline: {{train.seed: SEED, future_seed.alpha: 0.0}}
search: {{trials: 8, reduction_factor: 2, seed: SEED}}
""",
    "nothing_retrieval": f"""\
task: {{name: retrieval, pairs: 3, key_width: 1, value_width: 1, {SIZES}}}
space: {{train.seed: {{int_uniform: [10, 1000000]}}}}
baseline: {{train.seed: SEED}}
search: {{trials: 8, reduction_factor: 2, seed: SEED}}
""",
}
PLANTED = f"""\
task: {{name: rightcopy, length: 4, data_seed: SEED, {SIZES}}}
space:
  future_seed.alpha: {{choice: [-20.72, -4.0, -2.0, 0.0, 2.0]}}
  future_seed.alpha_lr: {{choice: [0.0, 0.02]}}
  future_seed.norm: {{choice: [true, false]}}
search: {{trials: 8, reduction_factor: 2, seed: SEED}}
"""


def searches() -> Iterator[tuple[str, str]]:
    """Name and text of every spec."""
    for seed in range(REPETITIONS // len(NOTHING)):
        for task, text in NOTHING.items():
            name = f"{task}_{seed}"
            yield name, f"name: {name}\n{COMMON}{text.replace('SEED', str(seed))}"
    for seed in range(REPETITIONS):
        common = COMMON.replace("batch_size: 16", f"batch_size: 16, seed: {seed}")
        yield (
            f"planted_{seed}",
            f"name: planted_{seed}\n{common}{PLANTED.replace('SEED', str(seed))}",
        )


def found_by(name: str, text: str, runs: Path) -> dict[str, Any]:
    """What a search and its confirmation came to."""
    spec = runs / f"{name}.yaml"
    spec.parent.mkdir(parents=True, exist_ok=True)
    spec.write_text(text)
    _fstune("search", str(spec), "--resume", runs=runs)
    _fstune("confirm", name, runs=runs)
    report = json.loads(_fstune("report", name, "--format", "json", runs=runs))
    metric = report["objective"]
    trials = [trial for trial in report["trials"] if trial["rungs"]]
    confirmed = [trial["confirmation"] for trial in trials if trial["confirmation"]]
    return {
        "candidates": len(trials),
        "unconfirmed_gains": sum(
            trial["rungs"][-1]["verdict"] == "unconfirmed gain" for trial in trials
        ),
        "confirmations": [
            {"verdict": each["verdict"], "seeds": each["seeds"], **each["delta"][metric]}
            for each in confirmed
        ],
        "looks": [trial["looks"] for trial in trials if trial.get("looks")],
    }


def _fstune(*arguments: str, runs: Path) -> str:
    command = [sys.executable, "-m", "fstune.cli", *arguments, "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=["nothing", "planted"])
    parser.add_argument("--out", type=Path, default=Path("docs/results/searches_by_training.json"))
    arguments = parser.parse_args()
    results = {}
    for name, text in searches():
        if not name.startswith(tuple(arguments.only)):
            continue
        results[name] = found_by(name, text, arguments.runs.resolve())
        confirmed = [
            f"{each['verdict']} by {each['seeds']} seeds {each['mean']:+.4f} "
            f"[{each['low']:+.4f}, {each['high']:+.4f}]"
            for each in results[name]["confirmations"]
        ]
        tried = f"{results[name]['candidates']} candidates"
        gains = f"{results[name]['unconfirmed_gains']} unconfirmed gains"
        print(f"{name:<20}{tried}, {gains}; confirmed: {'; '.join(confirmed)}", flush=True)
        report = {
            "benchmark": "searches_by_training",
            "command": f"python tests/benchmarks/searches_by_training.py {' '.join(sys.argv[1:])}",
            "searches": results,
            "versions": describe(),
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
