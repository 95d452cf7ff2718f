"""Specs to begin with, and what comes of them when they are changed."""

from pathlib import Path

import pytest

from fstune.errors import SpecError
from fstune.specs.loading import Loaded, load
from fstune.specs.sections import SearchSpec

GOOD = """\
name: small
model:
  init: {num_layers: 4, width: 64, head_size: 32, vocab_size: 256}
task: {name: rightcopy, length: 4, train_size: 64, validation_size: 16}
train: {lr: 1e-3, batch_size: 8}
evaluation: {every: 5}
rungs:
  - {steps: 10, seeds: 1}
  - {steps: 30, seeds: 2}
space:
  future_seed.layer_start: {choice: [1, 2]}
  future_seed.alpha: {uniform: [-4.0, 2]}
  future_seed.schedule.kind: {choice: [none, linear]}
  future_seed.schedule.min: {uniform: [0.1, 0.9], when: {future_seed.schedule.kind: linear}}
fixed: {future_seed: {norm: true}}
points:
  - {future_seed.layer_start: 2}
objective: {metric: nll}
search: {trials: 6}
"""


SMALLEST = """\
name: least
model: {init: {num_layers: 4, width: 64, head_size: 32, vocab_size: 256}}
task: {name: rightcopy, train_size: 64, validation_size: 16}
rungs: [{steps: 10}]
search: {trials: 1}
"""


def read(folder: Path, text: str = GOOD, *overrides: str) -> Loaded:
    file = folder / "spec.yaml"
    file.write_text(text)
    return load(file, overrides)


def loaded(folder: Path, text: str = GOOD, *overrides: str) -> SearchSpec:
    return read(folder, text, *overrides).spec


def refused(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    file = folder / "spec.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        load(file, overrides)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def assert_told(folder: Path, old: str, new: str, expected: list[str]) -> None:
    """GOOD with `new` in place of `old` must be refused in lines that begin as expected."""
    assert GOOD.count(old) == 1
    lines = refused(folder, GOOD.replace(old, new))
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"spec.yaml:{start}")
