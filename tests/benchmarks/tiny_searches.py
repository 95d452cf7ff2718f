"""Runs the shipped tiny searches and writes the table of what they found.

    PYTHONPATH=. python tests/benchmarks/tiny_searches.py --runs DIR [--data DIR]
        [--set PATH=VALUE] [NAME ...]

One after the other, as a user runs them, each within minutes on two cores. What lacks its data is
left out and named. Run again with the same DIR, searches that have ended are not run again; their
seconds are those of the records. Printed is the table of docs/results.md.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fstune.machine import describe
from fstune.report.data import as_json
from fstune.report.phrases import describe_candidate
from fstune.results.folder import SearchFolder
from tasks import registry

SHIPPED = Path(__file__).parents[2] / "search_spaces"


def names() -> list[str]:
    return ["quickstart", *sorted(path.stem for path in SHIPPED.glob("*_tiny.yaml"))]


def search(name: str, runs: Path, options: list[str]) -> tuple[float, str]:
    """Seconds that the command took, and what it said if it failed."""
    command = [sys.executable, "-m", "fstune.cli", "search", name, "--resume", "--runs", str(runs)]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return time.perf_counter() - started, done.stderr.strip() if done.returncode else ""


def found_by(name: str, runs: Path) -> dict[str, Any]:
    """The best candidate of a search that has ended."""
    records = SearchFolder(runs / "searches" / name)
    spec = records.spec()
    report = as_json(records, spec)
    metric = report["objective"]
    best = report["trials"][report["best"]]
    last = best["rungs"][-1]
    corrected = report["selection_corrected"]
    return {
        "task": spec.task_name,
        "needs_future": registry.get(spec.task_name).needs_future,
        "metric": metric,
        "candidate": describe_candidate(best["candidate"]),
        "steps": last["steps"],
        "seeds": last["seeds"],
        "baseline": last["baseline"][metric],
        "delta": {key: last["delta"][metric][key] for key in ("mean", "low", "high")},
        "verdict": best["verdict"],
        "selection_corrected": corrected and corrected["mean"],
        "guesses": {
            guess: scores[metric] for guess, scores in report["guesses"].items() if metric in scores
        },
    }


def row(name: str, found: dict[str, Any]) -> str:
    delta = found["delta"]
    guesses = ", ".join(f"{guess} {value:.3f}" for guess, value in found["guesses"].items())
    cells = [
        f"`{name}`",
        "yes" if found["needs_future"] else "no",
        f"{found['metric']} after {found['steps']} × {found['seeds']}",
        f"{found['baseline']:.3f}",
        f"{delta['mean']:+.3f} [{delta['low']:+.3f}, {delta['high']:+.3f}]",
        found["verdict"],
        guesses or "–",
        f"{found['seconds']:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("docs/results/tiny_searches.json"))
    arguments = parser.parse_args()
    kept = json.loads(arguments.out.read_text())["searches"] if arguments.out.exists() else {}
    options = [part for folder in arguments.data for part in ("--data", str(folder))]
    options += [part for override in arguments.overrides for part in ("--set", override)]
    for name in arguments.names or names():
        seconds, error = search(name, arguments.runs.resolve(), options)
        if error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        known = kept.get(name, {}).get("seconds", 0.0)
        found = found_by(name, arguments.runs.resolve())
        # A search that had ended before only shows its table.
        kept[name] = found | {"seconds": max(seconds, known)}
        print(row(name, kept[name]), flush=True)
        report = {
            "benchmark": "tiny_searches",
            "command": "python tests/benchmarks/tiny_searches.py --runs DIR --data DIR",
            "searches": dict(sorted(kept.items())),
            "versions": describe(),
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
