"""Trains the arms of shipped searches with several seeds and stores what came out of each example.

    python tests/benchmarks/make_outcome_table.py --runs DIR [--data DIR]
        [--out docs/results/outcome_table.npz]

`calibration.py` measures spread and correlation on it. For each search the file holds the
objective's metric as [arm, rung, seed, example], arm 0 being the baseline, and the gate's logits of
the other arms; the weakest gate is 3e-4, where an arm differs from its baseline by little but what
training makes of a small push. Run again with the same DIR, it goes on where it stopped.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fstune.arms.advance import Workbench
from fstune.arms.arm import Progress
from fstune.arms.inputs import checkpoint_layers
from fstune.arms.store import ArmStore
from fstune.machine import describe, use_fast_matmul
from fstune.results.pairing import arms_of, run_rung
from fstune.specs.loading import find, load
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar


@dataclass(frozen=True)
class Plan:
    """Which arms of a shipped search are trained, and how far."""

    spec: str
    steps: tuple[int, ...]
    seeds: int
    examples: int
    alphas: tuple[float, ...]
    rest: dict[str, Scalar]
    """The candidate's other settings."""
    metric: str = "token_accuracy"
    needs_data: bool = False


FROZEN = {"future_seed.alpha_lr": 0.0}
PLANS = (
    Plan(
        "quickstart", (60, 120), 8, 1000, (-8.0, -4.0, -2.0), {**FROZEN, "future_seed.norm": True}
    ),
    Plan(
        "retrieval_a2q_tiny", (60, 180), 8, 500, (-8.0, -2.0), {**FROZEN, "future_seed.norm": True}
    ),
    Plan(
        "arc_tiny",
        (16, 48),
        4,
        256,
        (-8.0, 0.0),
        {**FROZEN, "future_seed.layer_start": 1},
        metric="option_accuracy",
        needs_data=True,
    ),
    Plan(
        "squad_tiny",
        (10,),
        4,
        96,
        (0.0,),
        {**FROZEN, "future_seed.layer_start": 1},
        needs_data=True,
    ),
)


def planned(plan: Plan, data: Path | None) -> SearchSpec:
    """The shipped search with the plan's rungs, examples and gates."""
    rungs = ", ".join(f"{{steps: {steps}, seeds: {plan.seeds}}}" for steps in plan.steps)
    overrides = [
        f"rungs=[{rungs}]",
        f"task.validation_size={plan.examples}",
        "task.test_size=0",
        "confirm=null",
        "points=[]",
        "search={trials: 1}",
        f"objective.metric={plan.metric}",
        f"space.future_seed.alpha={{choice: {list(plan.alphas)}}}",
    ]
    loaded = load(find(plan.spec), overrides)
    return loaded.resolved([data] if data else [], checkpoint_layers).spec


def outcomes(
    spec: SearchSpec, candidates: list[dict[str, Scalar]], runs: Path, bench: Workbench
) -> NDArray[np.float32]:
    """The objective's metric of every arm as [arm, rung, seed, example]."""
    metric, num_seeds = spec.metric(), spec.rungs[-1].seeds
    by_arm: list[list[list[NDArray[np.float64]]]] = []
    for number, candidate in enumerate(candidates):
        started = time.perf_counter()
        for rung in range(len(spec.rungs)):
            run_rung(spec, candidate, rung, runs / "cache", bench)
        pairs = arms_of(spec, candidate, runs / "cache", range(num_seeds))
        for side in ("baseline", "variant") if number == 0 else ("variant",):
            by_rung = []
            for goal in spec.rungs:
                digests = [getattr(both, side).digest for both in pairs]
                found = [bench.store.outcome(digest, goal.steps) for digest in digests]
                by_rung.append([metric.per_example(each.measures) for each in found if each])
            by_arm.append(by_rung)
        print(spec.name, candidate, f"{time.perf_counter() - started:.0f} s", flush=True)
    return np.array(by_arm, dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/outcome_table.npz"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    use_fast_matmul()
    bench = Workbench(ArmStore(arguments.runs / "arms"), torch.device("cpu"), 0, _silent)
    table: dict[str, NDArray[np.float32]] = {}
    about = {}
    for plan in PLANS:
        if plan.needs_data and arguments.data is None:
            print(f"{plan.spec} is left out: it needs --data")
            continue
        spec = planned(plan, arguments.data)
        drawn = [{"future_seed.alpha": alpha, **plan.rest} for alpha in plan.alphas]
        table[plan.spec] = outcomes(spec, drawn, arguments.runs, bench)
        about[plan.spec] = {
            "metric": spec.metric().name,
            "steps": plan.steps,
            "alphas": plan.alphas,
            "rest": plan.rest,
        }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        arguments.out,
        about=np.array(json.dumps({"searches": about, **describe()})),
        allow_pickle=False,
        **table,
    )


def _silent(_: Progress) -> None: ...


if __name__ == "__main__":
    main()
