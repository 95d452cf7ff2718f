"""Trains every candidate of a small space to the last rung and stores what came out.

    python tests/benchmarks/make_arm_table.py --runs DIR [--out docs/results/arm_table.npz]
        [--steps 8 24 72] [--lrs 2e-3 4e-3 8e-3 1.6e-2]

`search_efficiency.py` replays searches from the table without training. The file holds the spec's
text, and by candidate and rung the objective's delta over the rung's seeds with its bounds, half of
its interval for these very seeds (NaN with one), and the delta of each seed. Run again with the
same DIR, it goes on where it stopped.
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from fstune.arms.advance import DivergedError, Workbench
from fstune.arms.arm import Outcome, Progress
from fstune.arms.store import ArmStore
from fstune.machine import describe, use_fast_matmul
from fstune.results.pairing import run_rung
from fstune.results.records import ArmPair, RungRecord
from fstune.specs.loading import load
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar

SPEC = """\
name: arm_table
model: {init: {num_layers: 3, width: 32, head_size: 16, vocab_size: 256}, tokenizer: bytes}
task: {name: rightcopy, length: 3, train_size: 4096, validation_size: 128}
train: {weight_decay: 0.0, batch_size: 8}
rungs:
  - {steps: STEPS_0, seeds: 1}
  - {steps: STEPS_1, seeds: 1}
  - {steps: STEPS_2, seeds: 2}
space:
  train.lr: {choice: LRS}
  future_seed.alpha: {int_uniform: [-8, 2]}
  future_seed.alpha_lr: {choice: [0.0, 0.05]}
  future_seed.layer_start: {int_uniform: [1, 2]}
  future_seed.norm: {choice: [true, false]}
objective: {metric: nll, bound: lower}
search: {trials: 100}
resources: {gpus: 0, cpu_threads: 1}
"""


def candidates(spec: SearchSpec) -> list[dict[str, Scalar]]:
    """Every candidate of a space of choices and whole numbers without conditions."""
    values = []
    for path, domain in spec.space.items():
        low, high = domain.int_uniform or (0, -1)
        values.append([(path, value) for value in domain.choice or range(low, high + 1)])
    return [dict(point) for point in itertools.product(*values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/arm_table.npz"))
    parser.add_argument("--steps", type=int, nargs=3, default=[8, 24, 72])
    parser.add_argument("--lrs", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3, 1.6e-2])
    arguments = parser.parse_args()
    runs, out = arguments.runs, arguments.out
    text = SPEC.replace("LRS", str(arguments.lrs))
    for rung, steps in enumerate(arguments.steps):
        text = text.replace(f"STEPS_{rung}", str(steps))
    runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    use_fast_matmul()
    (runs / "spec.yaml").write_text(text)
    spec = load(runs / "spec.yaml").spec
    bench = Workbench(ArmStore(runs / "arms"), torch.device("cpu"), 0, _silent)
    drawn = candidates(spec)
    shape = (len(drawn), len(spec.rungs))
    # A rung that an arm did not reach alive stays NaN.
    delta, low, high, half_width = (np.full(shape, np.nan) for _ in range(4))
    by_seed = np.full((*shape, spec.rungs[-1].seeds), np.nan)
    started = time.perf_counter()
    for number, candidate in enumerate(drawn):
        for rung in range(len(spec.rungs)):
            try:
                record = run_rung(spec, candidate, rung, runs / "cache", bench)
            except DivergedError:
                break
            found = record.deltas[spec.metric().name]
            delta[number, rung] = found.mean
            low[number, rung], high[number, rung] = found.low, found.high
            if found.half_width is not None:
                half_width[number, rung] = found.half_width
            for pair in record.arms:
                by_seed[number, rung, pair.seed] = _seed_delta(spec, bench.store, record, pair)
        for pair in record.arms:
            bench.store.drop_checkpoints(pair.variant)
        wall_s = time.perf_counter() - started
        print(f"{number + 1}/{len(drawn)} {wall_s:.0f} s", json.dumps(candidate), flush=True)
    if math.isnan(delta[:, -1].max()):
        print("some candidates diverged")
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        spec=np.array(text),
        candidates=np.array(json.dumps(drawn)),
        environment=np.array(json.dumps(describe())),
        delta=delta,
        low=low,
        high=high,
        half_width=half_width,
        by_seed=by_seed,
    )


def _seed_delta(spec: SearchSpec, store: ArmStore, record: RungRecord, pair: ArmPair) -> float:
    def mean(outcome: Outcome | None) -> float:
        assert outcome is not None
        return spec.metric().score(outcome.measures)

    step = record.steps
    return mean(store.outcome(pair.variant, step)) - mean(store.outcome(pair.baseline, step))


def _silent(_: Progress) -> None: ...


if __name__ == "__main__":
    main()
