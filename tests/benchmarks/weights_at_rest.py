"""How far seeds disagree, by which weights are evaluated: the last, their mean, a cooled branch.

    PYTHONPATH=. python tests/benchmarks/weights_at_rest.py --runs DIR [--data DIR] [--seeds 8]
        [NAME ...]

Of each shipped tiny search the baseline and its first point, the mechanism fully on, at the last
rung's steps with several seeds. Printed are the rows of a table: the standard deviation between
seeds of the paired delta, of the task's primary metric in points (of NLL per token × 100 in
parentheses), for each way, and what both arms score. What is trained alike is trained once: an arm
costs 1.4 times its steps. Run again with the same DIR, nothing is trained twice; searches may be
given to several processes at a time.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fstune.arms.advance import Workbench, advance, workbench
from fstune.arms.arm import ArmSpec
from fstune.arms.inputs import ArmInputs, checkpoint_layers
from fstune.arms.store import ArmStore
from fstune.arms.trainer import CHECKPOINT_FILE, ArmTrainer
from fstune.files import write_json
from fstune.machine import describe
from fstune.results.pairing import arms_of
from fstune.specs.loading import find, load
from fstune.specs.sections import SearchSpec
from tasks.metrics import NLL, Measures, Metric

NAMES = (
    *("constr_tiny", "rightcopy_tiny", "kvsort_tiny", "permfill_tiny", "retrieval_a2q_tiny"),
    *("sudoku_tiny", "protein_ss_inplace_tiny", "punctuation_inplace_tiny"),
)
COOLDOWN = 0.2
WAYS: dict[str, dict[str, Any]] = {
    "last": {},
    "mean": {"weights": "mean"},
    "cooldown": {"cooldown": COOLDOWN},
    "both": {"weights": "mean", "cooldown": COOLDOWN},
}

ORDER = {"both": "", "cooldown": "both", "mean": "both", "last": "mean"}
"""In which order an arm is evaluated in each way, and from whose checkpoint it goes on."""


def search(name: str, way: str, seeds: int, data: list[Path]) -> SearchSpec:
    """A shipped search with nothing but its last rung, evaluated in one of the ways."""
    shipped = load(find(name)).spec
    values = {
        "rungs": [{"steps": shipped.rungs[-1].steps, "seeds": seeds}],
        "search": {"trials": len(shipped.points)},
        "objective": {},
        "evaluation": WAYS[way],
        "resources": {"gpus": 0, "cpu_threads": 1},
    }
    overrides = [f"{section}={json.dumps(value)}" for section, value in values.items()]
    return load(find(name), overrides).resolved(data, checkpoint_layers).spec


def measured(specs: dict[str, SearchSpec], runs: Path) -> Iterator[dict[str, list[Measures]]]:
    """The baseline's and the variant's measures by way, seed by seed."""
    store = ArmStore(runs / "arms")
    arms = {
        way: arms_of(spec, spec.points[0], runs / "cache", range(spec.rungs[-1].seeds))
        for way, spec in specs.items()
    }
    bench = workbench(store, specs["last"])
    for seed in range(len(arms["last"])):
        found: dict[str, list[Measures]] = {way: [] for way in specs}
        for role in ("baseline", "variant"):
            own = {way: getattr(each[seed], role) for way, each in arms.items()}
            data = getattr(arms["last"][seed], f"{role}_data")
            for way, before in ORDER.items():
                hand_on(own.get(before), own[way], data, bench)
                steps = specs[way].rungs[-1].steps
                found[way].append(advance(own[way], data, steps, bench).measures)
            for arm in own.values():
                store.drop_checkpoints(arm.digest)
        yield found


def hand_on(before: ArmSpec | None, arm: ArmSpec, data: ArmInputs, bench: Workbench) -> None:
    """Let an arm go on from where another one's checkpoint is; they are trained alike up to there.

    One that has been evaluated needs nothing.
    """
    store = bench.store
    digest = store.register(arm)
    held = None if before is None else store.latest_checkpoint(before.digest)
    if held is None or store.latest_checkpoint(digest) or store.evaluated_steps(digest):
        return
    run = ArmTrainer(arm, data, bench.device)
    run.restore(held[1] / CHECKPOINT_FILE)
    store.save_checkpoint(digest, run.step, lambda folder: run.save(folder / CHECKPOINT_FILE))


def spreads(specs: dict[str, SearchSpec], runs: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By way and metric: both arms' scores, and how far seeds disagree on the delta."""
    by_seed = list(measured(specs, runs))
    metrics = (specs["last"].metric(), NLL)
    return {
        way: {metric.name: _spread(metric, [each[way] for each in by_seed]) for metric in metrics}
        for way in specs
    }


def _spread(metric: Metric, pairs: list[list[Measures]]) -> dict[str, Any]:
    scores = np.array([[metric.score(measures) for measures in pair] for pair in pairs])
    deltas = scores[:, 1] - scores[:, 0]
    return {
        "baseline": scores[:, 0].mean(),
        "variant": scores[:, 1].mean(),
        "sd_of_delta": deltas.std(ddof=1),
        "deltas": deltas.tolist(),
    }


def row(name: str, ways: dict[str, dict[str, dict[str, Any]]]) -> str:
    cells = [f"`{name}`", next(iter(ways["last"]))]
    for found in ways.values():
        first, nll = next(iter(found.values())), found[NLL.name]
        scores = f"{first['baseline']:.3f} → {first['variant']:.3f}"
        sds = f"{100 * first['sd_of_delta']:.2f} ({100 * nll['sd_of_delta']:.2f})"
        cells.append(f"{sds}, {scores}")
    return f"| {' | '.join(cells)} |"


def store_row(out: Path, runs: Path, name: str, seeds: int, ways: dict[str, Any]) -> None:
    """Put a search's figures into the report, beside those that other processes have put there."""
    with FileLock(runs / "report.lock"):
        kept = json.loads(out.read_text())["searches"] if out.exists() else {}
        kept[name] = {"seeds": seeds, "ways": ways}
        report = {
            "benchmark": "weights_at_rest",
            "command": "python tests/benchmarks/weights_at_rest.py --runs DIR --data DIR",
            "ways": WAYS,
            "searches": dict(sorted(kept.items())),
            "versions": describe(),
        }
        write_json(out, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs/results/weights_at_rest.json"))
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()
    for name in arguments.names or NAMES:
        specs = {way: search(name, way, arguments.seeds, arguments.data) for way in WAYS}
        ways = spreads(specs, runs)
        print(row(name, ways), flush=True)
        store_row(arguments.out, runs, name, arguments.seeds, ways)


if __name__ == "__main__":
    main()
