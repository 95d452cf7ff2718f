"""Small arms, outcomes, specs and records that several test modules share."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten

from fstune.arms.advance import Workbench, advance
from fstune.arms.arm import Outcome, Pair, Progress
from fstune.arms.inputs import ArmInputs, gather
from fstune.arms.store import ArmStore
from fstune.arms.trainer import ArmTrainer
from fstune.results.deltas import Delta
from fstune.results.folder import SearchFolder
from fstune.results.records import ArmPair, CurvePoint, RungRecord
from fstune.specs.loading import load
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings
from model.checkpoint import save
from model.config import ModelConfig
from model.initial import initialise

CPU = torch.device("cpu")
SHAPES = {
    "num_layers": 2,
    "width": 16,
    "head_size": 8,
    "vocab_size": 256,
    "ffn_width": 32,
    "decay_rank": 4,
    "in_context_rate_rank": 4,
    "value_mix_rank": 4,
    "gate_rank": 4,
}
TASK = {"name": "rightcopy", "length": 2, "train_size": 10, "validation_size": 6}
TRAIN = {"lr": 1e-2, "batch_size": 3}
SEED = {"alpha": 0.0, "alpha_lr": 0.1}


def settings(future_seed: dict[str, Any] | None = None, **changes: Any) -> ArmSettings:
    """An arm's settings; `changes` go over whole sections, `train` over its fields."""
    values = {
        "model": {"init": SHAPES},
        "task": TASK,
        "train": TRAIN | changes.pop("train", {}),
        "future_seed": future_seed,
    }
    return ArmSettings.model_validate(values | changes)


def materials(folder: Path, arm: ArmSettings) -> ArmInputs:
    return gather(arm, folder / "cache")


def new_run(folder: Path, arm_settings: ArmSettings, data: ArmInputs | None = None) -> ArmTrainer:
    data = data or materials(folder, arm_settings)
    return ArmTrainer(data.arm(arm_settings, 0), data, CPU)


def weights(run: ArmTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.subject.model.state_dict().items()}


def on_a_checkpoint(folder: Path, **values: Any) -> ArmSettings:
    """Settings with a model in which every weight takes part: a new one puts out nothing."""
    model = initialise(ModelConfig(**SHAPES), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save(model, folder / "model.pth")
    return settings(model={"checkpoint": str(folder / "model.pth")}, **values)


def bench(folder: Path, every: int = 0) -> tuple[Workbench, list[Progress]]:
    """A workbench, and all that it is told."""
    told: list[Progress] = []
    return Workbench(ArmStore(folder / "arms"), CPU, every, told.append), told


def trained(told: list[Progress]) -> list[int]:
    """The optimiser steps that were told."""
    return [progress.step for progress in told if progress.doing == "train"]


def outcome(correct: Any, total: Any = 1, nll: Any = 0.0, **changes: Any) -> Outcome:
    """An evaluation with these values per example."""
    correct = np.asarray(correct, dtype=np.float64)
    values = {
        "arm": "arm",
        "seed_index": 0,
        "examples": "split",
        "step": 10,
        "measures": {
            "nll_sum": np.broadcast_to(np.asarray(nll, dtype=np.float64), correct.shape).copy(),
            "correct": correct,
            "total": np.broadcast_to(np.asarray(total, dtype=np.float64), correct.shape).copy(),
        },
        "predictions": ("one", "two"),
        "diagnostics": {"gate/L01": 0.1, "peak_memory_gb": 1.5},
        "events": ("step 3: something",),
        "train_tokens": 0,
        "train_wall_s": 0.0,
        "eval_wall_s": 0.0,
        "ended_at": 0.0,
    }
    return Outcome(**values | changes)


def pair(baseline: Any, variant: Any, **changes: Any) -> Pair:
    """A pair with these correct tokens per example."""
    return Pair(outcome(baseline, **changes), outcome(variant, **changes))


def delta(mean: float, low: float, high: float) -> Delta:
    """Of a metric where more is better."""
    return Delta(0.5, 0.5 + mean, mean, low, high, higher_is_better=True)


SPEC = """\
name: small
model:
  init: {num_layers: 2, width: 16, head_size: 8, vocab_size: 256, ffn_width: 32, decay_rank: 4,
         in_context_rate_rank: 4, value_mix_rank: 4, gate_rank: 4}
task: {name: rightcopy, length: 2, train_size: 10, validation_size: 6}
train: {lr: 1e-2, batch_size: 3}
rungs:
  - {steps: 2, seeds: 1}
  - {steps: 4, seeds: 2}
space:
  future_seed.alpha: {uniform: [-40.0, 2.0]}
search: {trials: 4}
"""


def spec(folder: Path, text: str = SPEC, more: str = "") -> SearchSpec:
    path = folder / "spec.yaml"
    path.write_text(textwrap.dedent(text) + textwrap.dedent(more))
    return load(path).spec


def made(folder: Path, made_of: SearchSpec) -> SearchFolder:
    """The records of a search that has only just begun."""
    records = SearchFolder(folder / "searches" / made_of.name)
    records.root.mkdir(parents=True)
    records.write_spec(made_of)
    return records


def rung_record(rung: int = 0, mean: float = 0.25, **changes: Any) -> RungRecord:
    """A rung's record in which every metric, bound and time differs from every other."""
    steps = 2 * (rung + 1)

    def deltas(step: int) -> dict[str, Delta]:
        return {
            "token_accuracy": Delta(0.1, 0.1 + mean, mean, mean - 0.01 / step, mean + 0.01, True),
            "nll": Delta(3.0, 3.0 - 2 * mean, -2 * mean, -3 * mean, -mean / step, False),
            "exact_match": Delta(0.0, mean / 2, mean / 2, 0.0, mean, True),
        }

    values = {
        "rung": rung,
        "steps": steps,
        "seeds": rung + 1,
        "deltas": deltas(steps),
        "verdict": "unconfirmed gain",
        "objective": mean - 0.01 / steps,
        "largest_gate": 0.5,
        "arms": [ArmPair(seed, f"base{seed}", f"variant{seed}") for seed in range(rung + 1)],
        "curve": [CurvePoint(step, 1e9 + step, deltas(step)) for step in (steps - 1, steps)],
        "wall_s": 1.5,
    }
    return RungRecord(**values | changes)


class Place:
    """An arm, what it stands on, and a workbench in a folder of its own."""

    def __init__(self, folder: Path, arm_settings: ArmSettings, every: int = 0) -> None:
        self.data = materials(folder.parent, arm_settings)
        self.arm = self.data.arm(arm_settings, 0)
        self.bench, self.told = bench(folder, every)

    def advance(self, to_step: int) -> Outcome:
        return advance(self.arm, self.data, to_step, self.bench)

    @property
    def store(self) -> ArmStore:
        return self.bench.store

    def saved(self) -> dict[str, Any]:
        """The latest checkpoint's content."""
        latest = self.store.latest_checkpoint(self.arm.digest)
        assert latest is not None
        content: dict[str, Any] = torch.load(latest[1] / "run.pt", weights_only=True)
        return content


def assert_same_numbers(found: Outcome, wanted: Outcome) -> None:
    """Bit for bit, but for the times."""
    assert set(found.measures) == set(wanted.measures)
    for name, values in wanted.measures.items():
        np.testing.assert_array_equal(found.measures[name], values, err_msg=name)
    assert timeless(found) == timeless(wanted)


def timeless(outcome: Outcome) -> Outcome:
    """All of it but its measures, and what is different every time."""
    machine = ("tokens_per_s", "peak_memory_gb")
    kept = {name: value for name, value in outcome.diagnostics.items() if name not in machine}
    assert len(kept) == len(outcome.diagnostics) - len(machine)
    rest = {"measures": {}, "ended_at": 0.0, "train_wall_s": 0.0, "eval_wall_s": 0.0}
    return dataclasses.replace(outcome, diagnostics=kept, **rest)


def assert_same_checkpoint(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Bit for bit, but for the time; takes the times out of both."""
    del found["train_wall_s"], wanted["train_wall_s"]
    (ours, one), (theirs, other) = map(tree_flatten, (found, wanted))
    assert one == other
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine, its) if torch.is_tensor(mine) else mine == its
