"""How many optimiser steps a search needs, replayed from a table of real arms.

    python tests/benchmarks/search_efficiency.py [--seeds 100] [--table docs/results/arm_table.npz]

Each method searches the table of `make_arm_table.py` with one slot. fstune's own suggesters and
schedulers decide; a rung's record is taken from the table instead of being trained. What counts is
the number of optimiser steps, baselines' once for each arm, until the candidate that the search
would name best, were it stopped there, has a delta at the last rung, over all the table's seeds,
within 10 % of the table's best. Best is who has come furthest and, among those, has the highest
objective by what the method has seen: for fstune's own the lower bound, for the others the mean.
Beside it (`trained`), until such a candidate has come to the last rung, named best or not.

    grid      all to the last rung, axes and values in an order that the seed shuffles
    random    all to the last rung
    serial    the earlier work's immediate prune (its rounds 20 to 28): a quick run; if its mean
              delta is under a threshold, the next candidate; else a run of three times the steps
              from the beginning, one seed. Candidates in random order. The thresholds were 0.1 to
              0.4 points of accuracy; here 0.002 of the metric. Each length has a baseline of its
              own (the earlier work trained the short one only).
    the rest  scheduler and sampler of that name
"""

import argparse
import contextlib
import json
import logging
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from fstune.files import canonical_json
from fstune.machine import describe
from fstune.results.deltas import Delta
from fstune.results.folder import SearchFolder
from fstune.results.records import CurvePoint, EndRecord, RungRecord
from fstune.results.verdict import verdict
from fstune.search.asha import Suggester, scheduler
from fstune.search.climber import Climber
from fstune.search.trainable import OBJECTIVE, RUNG_CLOCK
from fstune.specs.loading import load
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import Scalar

SERIAL_THRESHOLD = 0.002
NEAR = 0.9
CURVE_STEPS = list(range(0, 2001, 25))

Climbed = tuple[int, int]
"""Index of a candidate in the table, and the rung to which it climbed."""


class Table:
    """What came out of every candidate."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path)
        self.text = str(stored["spec"])
        self.candidates: list[dict[str, Scalar]] = json.loads(str(stored["candidates"]))
        self.environment = json.loads(str(stored["environment"]))
        self._index = {_key(candidate): n for n, candidate in enumerate(self.candidates)}
        self._delta, self._low, self._high = (stored[key] for key in ("delta", "low", "high"))
        # The tables at hand were made before it was kept: ranked by the bounds that they have.
        self._half_width = stored["half_width"] if "half_width" in stored else self._low * np.nan
        self.by_seed = stored["by_seed"]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "spec.yaml").write_text(self.text)
            self.spec = load(Path(folder) / "spec.yaml").spec
        self.baselines = [
            canonical_json(self.spec.settings(candidate)[0].model_dump(mode="json"))
            for candidate in self.candidates
        ]
        self.metric = self.spec.metric()
        self.sign = 1.0 if self.metric.higher_is_better else -1.0
        self.true_gain = self.sign * self._delta[:, -1]
        self.goal = NEAR * float(self.true_gain.max())

    def index(self, candidate: dict[str, Scalar]) -> int:
        return self._index[_key(candidate)]

    def objective(self, index: int, rung: int, method: str) -> float:
        """What `method` ranks a candidate by: fstune's own methods by the objective's bound."""
        delta = self.delta(index, rung)
        return delta.gain(self.spec.objective.bound if method in OWN else "mean")

    def delta(self, index: int, rung: int) -> Delta:
        mean, low, high = (
            float(each[index, rung]) for each in (self._delta, self._low, self._high)
        )
        half_width = float(self._half_width[index, rung])
        return Delta(
            baseline=0.0,
            variant=0.0,
            mean=mean,
            low=low,
            high=high,
            higher_is_better=self.metric.higher_is_better,
            half_width=None if np.isnan(half_width) else half_width,
        )

    def record(self, index: int, rung: int) -> RungRecord:
        """What a worker would have written."""
        goal = self.spec.rungs[rung]
        delta = self.delta(index, rung)
        return RungRecord(
            steps=goal.steps,
            seeds=goal.seeds,
            deltas={self.metric.name: delta},
            verdict=verdict(delta, self.spec.objective.margin),
            objective=delta.gain(self.spec.objective.bound),
            largest_gate=1.0,
            arms=[],
            rung=rung,
            curve=[CurvePoint(goal.steps, 0.0, {})],
            wall_s=0.0,
        )


def _key(candidate: dict[str, Scalar]) -> str:
    return canonical_json(dict(sorted(candidate.items())))


@dataclass
class Account:
    """Optimiser steps spent, and who was named best at which of them."""

    table: Table
    steps: int = 0
    reached: dict[tuple[str, int], int] = field(default_factory=dict)
    found: list[tuple[int, float]] = field(default_factory=list)
    """Steps spent, and the gain in truth of who is named best from there on."""
    best: tuple[int, float] = (-1, -float("inf"))
    """Rung and objective of who is named best now."""
    trained: float = float("inf")
    """Steps spent until a candidate near the best has come to the last rung."""

    def climb(self, index: int, rung: int, objective: float) -> None:
        """Pay for both arms of every seed, from where they are; note who is best now."""
        goal = self.table.spec.rungs[rung]
        for seed in range(goal.seeds):
            self.train(f"variant {index}", seed, goal.steps)
            self.train(self.table.baselines[index], seed, goal.steps)
        self.judge(index, rung, objective)

    def train(self, arm: str, seed: int, steps: int) -> None:
        before = self.reached.get((arm, seed), 0)
        self.steps += max(0, steps - before)
        self.reached[arm, seed] = max(steps, before)

    def judge(self, index: int, rung: int, objective: float) -> None:
        if (rung, objective) > self.best:
            self.best = rung, objective
            self.found.append((self.steps, float(self.table.true_gain[index])))
        if (
            rung == len(self.table.spec.rungs) - 1
            and self.table.true_gain[index] >= self.table.goal
        ):
            self.trained = min(self.trained, self.steps)

    @property
    def done(self) -> bool:
        goals = self.steps_to_goal(), self.trained
        return bool(np.isfinite(goals).all()) and self.steps >= CURVE_STEPS[-1]

    def steps_to_goal(self) -> float:
        return next((s for s, gain in self.found if gain >= self.table.goal), float("inf"))


def grid(table: Table, seed: int) -> Iterator[Climbed]:
    chance = random.Random(seed)
    axes = list(table.candidates[0])
    chance.shuffle(axes)
    values = {axis: sorted({c[axis] for c in table.candidates}) for axis in axes}
    for own in values.values():
        chance.shuffle(own)
    for index in sorted(
        range(len(table.candidates)),
        key=lambda n: [values[axis].index(table.candidates[n][axis]) for axis in axes],
    ):
        yield from ((index, rung) for rung in range(len(table.spec.rungs)))


def serial(table: Table, account: Account, seed: int) -> None:
    quick, med = table.spec.rungs[-2].steps, table.spec.rungs[-1].steps
    order = list(range(len(table.candidates)))
    random.Random(seed).shuffle(order)
    quick_rung = len(table.spec.rungs) - 2
    for index in order:
        account.train(f"quick {table.baselines[index]}", 0, quick)
        account.train(f"quick {index}", 0, quick)
        seen = table.sign * table.by_seed[index, :, 0]
        account.judge(index, quick_rung, seen[quick_rung])
        if seen[quick_rung] < SERIAL_THRESHOLD:
            continue
        account.train(f"med {table.baselines[index]}", 0, med)
        account.train(f"med {index}", 0, med)
        account.judge(index, quick_rung + 1, seen[quick_rung + 1])
        if account.done:
            return


def promoted(spec: SearchSpec, records: SearchFolder, table: Table) -> Iterator[Climbed]:
    """Climbs as fstune's own suggester asks for them."""
    climber = Climber(spec, records)
    for asked in range(10**6):
        config = climber.suggest(f"t{asked}")
        if not isinstance(config, dict):
            return
        number, rung = config["number"], config["rung"]
        index = table.index(config["candidate"])
        records.write_rung(number, table.record(index, rung))
        if rung == len(spec.rungs) - 1:
            records.write_end(number, EndRecord("completed", "reached the last rung"))
        climber.on_trial_complete(f"t{asked}", {})
        yield index, rung


def stopping(spec: SearchSpec, records: SearchFolder, table: Table) -> Iterator[Climbed]:
    """Climbs under Tune's ASHA, or under no scheduler, as fstune ships them."""
    suggester, judge = Suggester(spec, records), scheduler(spec, records)
    last = len(spec.rungs) - 1
    for number in range(spec.search.trials):
        config = suggester.suggest(f"t{number}")
        assert config is not None
        trial = Trial("PairedTrial", config=config, trial_id=f"t{number}", stub=True)
        judge.on_trial_add(None, trial)
        index = table.index(config["candidate"])
        for rung in range(last + 1):
            record = table.record(index, rung)
            records.write_rung(number, record)
            told: dict[str, Any] = {
                OBJECTIVE: record.objective,
                RUNG_CLOCK: spec.search.reduction_factor**rung,
                "rung": rung,
                "last_rung": rung == last,
                "training_iteration": rung + 1,
            }
            yield index, rung
            decision = TrialScheduler.STOP
            if rung < last:
                decision = judge.on_trial_result(None, trial, told)
            trial.run_metadata.last_result = told
            if decision == TrialScheduler.STOP:
                break
            suggester.on_trial_result(f"t{number}", told)
        trial.set_status(Trial.TERMINATED)
        judge.on_trial_complete(None, trial, told)
        suggester.on_trial_complete(f"t{number}", told)


Replay = Callable[[SearchSpec, SearchFolder, Table], Iterator[Climbed]]

OWN: dict[str, tuple[str, str, Replay]] = {
    "random": ("none", "random", stopping),
    "asha + random": ("asha", "random", stopping),
    "asha + tpe": ("asha", "tpe", stopping),
    "asha_promote + random": ("asha_promote", "random", promoted),
    "asha_promote + tpe": ("asha_promote", "tpe", promoted),
    "asha + gp": ("asha", "gp", stopping),
    "asha_promote + gp": ("asha_promote", "gp", promoted),
}
METHODS = ["grid", "serial", *OWN]


def replay(table: Table, method: str, seed: int) -> Account:
    """One search by one method; ends when it has found what is wanted and the curve is full."""
    account = Account(table)
    if method == "serial":
        serial(table, account, seed)
        return account
    with _searched(table, method, seed) as climbs:
        for index, rung in climbs:
            account.climb(index, rung, table.objective(index, rung, method))
            if account.done:
                break
    return account


@contextlib.contextmanager
def _searched(table: Table, method: str, seed: int) -> Iterator[Iterator[Climbed]]:
    if method == "grid":
        yield grid(table, seed)
        return
    kind, sampler, drive = OWN[method]
    search = {
        "trials": len(table.candidates),
        "scheduler": kind,
        "sampler": sampler,
        "seed": seed,
    }
    spec = SearchSpec.model_validate({**dict(table.spec), "search": search})
    with tempfile.TemporaryDirectory() as folder:
        records = SearchFolder(Path(folder) / "searches" / spec.name)
        records.root.mkdir(parents=True)
        records.write_spec(spec)
        yield drive(spec, records, table)


def quartiles(steps: list[float]) -> list[float]:
    """Of all searches: one that never found it counts as infinite, and is not interpolated with."""
    return [float(q) for q in np.quantile(steps, [0.25, 0.5, 0.75], method="inverted_cdf")]


def summary(accounts: list[Account]) -> dict[str, Any]:
    steps = [account.steps_to_goal() for account in accounts]
    curves = [
        [next((g for s, g in reversed(a.found) if s <= step), 0.0) for step in CURVE_STEPS]
        for a in accounts
    ]
    return {
        "found": int(np.isfinite(steps).sum()),
        "steps": [each if np.isfinite(each) else None for each in steps],
        "quartiles": [q if np.isfinite(q) else None for q in quartiles(steps)],
        "trained_quartiles": [
            q if np.isfinite(q) else None for q in quartiles([a.trained for a in accounts])
        ],
        "curve_quartiles": np.quantile(curves, [0.25, 0.5, 0.75], axis=0).round(4).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--table", type=Path, default=Path("docs/results/arm_table.npz"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/search_efficiency.json"))
    parser.add_argument("--methods", nargs="*", default=METHODS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Optuna's of what is experimental, Tune's of what is slow
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = Table(arguments.table)
    near = int((table.true_gain >= table.goal).sum())
    print(f"{len(table.candidates)} candidates, {near} within 10 % of the best")
    heads = "".join(f"{head:>8}" for head in [*["lower", "median", "upper"] * 2, "found"])
    print(f"{'steps to the goal':<24}{heads}  (named best; trained; of {arguments.seeds})")
    results: dict[str, Any] = {}
    for method in arguments.methods:
        found = summary([replay(table, method, seed) for seed in range(arguments.seeds)])
        results[method] = found
        figures = "".join(
            f"{'never':>8}" if value is None else f"{value:>8.0f}"
            for value in [*found["quartiles"], *found["trained_quartiles"]]
        )
        print(f"{method:<24}{figures}{found['found']:>8}", flush=True)
        report = {
            "benchmark": "search_efficiency",
            "command": " ".join(["python", "tests/benchmarks/search_efficiency.py", *sys.argv[1:]]),
            "candidates": len(table.candidates),
            "within_10_percent": near,
            "best_gain": float(table.true_gain.max()),
            "seeds": arguments.seeds,
            "curve_steps": CURVE_STEPS,
            "methods": results,
            "versions": {**describe(), "table": table.environment},
        }
        # After each method: the whole takes long, and what is found is not to be lost.
        arguments.out.write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
