"""Future-Seed beside its rivals on the tasks that need the future, each search confirmed.

    PYTHONPATH=. python tests/benchmarks/rivals.py --runs DIR [--data DIR] [NAME ...]

Each contender is searched against the same baseline, the model without any of them: a trained
initial state, the prompt read a second time from each layer's own state, and the prompt written
twice. Once at equal steps; and those that read the prompt twice once more at equal tokens read,
with half of the examples a step against the whole batch of the same baseline. Model, task and
training are those of the shipped tiny search NAME. Run again with the same DIR, nothing is done
twice. Printed is the table of docs/results.md.
"""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_searches import SHIPPED

from fstune.api import load
from fstune.machine import describe
from fstune.report.data import as_json
from fstune.specs.loading import find
from fstune.specs.loading import load as load_spec
from tasks import registry

SEEDS = 5
"""New seeds of each confirmation."""

GATED = {"alpha": {"choice": [0.0, 2.0]}, "alpha_lr": {"choice": [0.0, 0.02]}}
STATES = {"lr": {"choice": [0.001, 0.01, 0.03, 0.1]}}


@dataclass(frozen=True)
class Contender:
    """What is set against the plain model."""

    title: str
    space: dict[str, Any]
    fixed: dict[str, Any]
    baseline: dict[str, Any]
    halved: bool = False
    """Whether its arms see half of the examples a step, to read as many tokens."""


def paths(section: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in settings.items()}


SECOND = (paths("second_pass", GATED), {"second_pass": {"norm": True}}, {})
TWICE = ({"task.control": {"choice": ["repeat_prompt"]}}, {}, {"task.control": "none"})
CONTENDERS = {
    "seed": Contender(
        "Future-Seed", paths("future_seed", GATED), {"future_seed": {"norm": True}}, {}
    ),
    "state": Contender("learned state", paths("learned_state", STATES), {}, {}),
    "pass": Contender("second pass", *SECOND),
    "twice": Contender("prompt twice", *TWICE),
    "pass_tokens": Contender("second pass, equal tokens", *SECOND, halved=True),
    "twice_tokens": Contender("prompt twice, equal tokens", *TWICE, halved=True),
}


def names() -> list[str]:
    """The shipped tiny searches on tasks that need the future."""
    specs = {path.stem: load_spec(find(path.stem)).spec for path in SHIPPED.glob("*_tiny.yaml")}
    return sorted(
        name
        for name, spec in specs.items()
        if registry.get(spec.task_name).needs_future and "future_seed" in spec.mechanisms()
    )


def overrides(name: str, key: str, contender: Contender) -> list[str]:
    """The contender's search, as `--set` has it."""
    spec = load_spec(find(name)).spec
    baseline, last = dict(contender.baseline), spec.rungs[-1].steps
    batch = spec.train.batch_size
    if contender.halved:
        baseline["train.batch_size"] = batch
        batch //= 2
    trials = math.prod(len(domain["choice"]) for domain in contender.space.values())
    rungs = [{"steps": last // 2, "seeds": 1}, {"steps": last, "seeds": 2}]
    values = {
        "name": f"{name}_{key}",
        "space": contender.space,
        "fixed": contender.fixed,
        "baseline": baseline,
        "points": [],
        "rungs": rungs,
        "search": {"trials": trials},
        "train.batch_size": batch,
        "confirm": {"finalists": 1, "looks": "fixed", "seeds": SEEDS},
    }
    return [f"{path}={json.dumps(value)}" for path, value in values.items()]


def run(arguments: list[str], runs: Path) -> None:
    command = [sys.executable, "-m", "fstune.cli", *arguments, "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments[:2])}: {done.stderr.strip()}")


def found_by(search: str, runs: Path) -> dict[str, Any]:
    """The confirmed candidate of a search that has ended."""
    found = load(search, runs)
    report = as_json(found.records, found.spec)
    metric = report["objective"]
    trial = next(trial for trial in report["trials"] if trial["confirmation"])
    comparison = trial["confirmation"]
    return {
        "metric": metric,
        "candidate": trial["candidate"],
        "baseline": comparison["baseline"][metric],
        "delta": {key: comparison["delta"][metric][key] for key in ("mean", "low", "high")},
        "verdict": comparison["verdict"],
    }


def row(name: str, found: dict[str, dict[str, Any]]) -> str:
    cells = [f"`{name}`"]
    for key in CONTENDERS:
        delta = found[key]["delta"]
        shown = f"{delta['mean']:+.3f} [{delta['low']:+.3f}, {delta['high']:+.3f}]"
        cells.append(f"**{shown}**" if found[key]["verdict"] == "gain" else shown)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("docs/results/rivals.json"))
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()
    kept = json.loads(arguments.out.read_text())["searches"] if arguments.out.exists() else {}
    folders = [part for folder in arguments.data for part in ("--data", str(folder))]
    for name in arguments.names or names():
        found = {}
        for key, contender in CONTENDERS.items():
            settings = [p for o in overrides(name, key, contender) for p in ("--set", o)]
            run(["search", name, "--resume", *folders, *settings], runs)
            run(["confirm", f"{name}_{key}"], runs)
            found[key] = found_by(f"{name}_{key}", runs)
        kept[name] = found
        print(row(name, found), flush=True)
        report = {
            "benchmark": "rivals",
            "command": "python tests/benchmarks/rivals.py --runs DIR --data DIR",
            "seeds": SEEDS,
            "searches": dict(sorted(kept.items())),
            "versions": describe(),
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
