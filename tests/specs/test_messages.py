from pathlib import Path

import pytest
from spec_cases import assert_told

from tasks import registry

# What is replaced in GOOD, what by, and every line that must come of it.
BROKEN = {
    "unknown section": ("search:", "serach:", [
        "1: search: must be given",
        "19: serach: is not a known key; did you mean 'search'?",
    ]),
    "unknown key": ("batch_size", "batchsize", [
        "5: train.batchsize: is not a known key; did you mean 'batch_size'?"]),
    "unknown key of a task": ("length: 4", "lenght: 4", [
        "4: task.lenght: is not a known key; did you mean 'length'?"]),
    "unknown key of a shape": ("num_layers", "n_layers", [
        "3: model.init.num_layers: must be given",
        "3: model.init.n_layers: is not a known key; did you mean 'num_layers'?"]),
    "unknown key of a rung": ("seeds: 2", "seed: 2", [
        "9: rungs.1.seed: is not a known key; did you mean 'seeds'?"]),
    "unknown key of a domain": ("choice: [1, 2]", "choices: [1, 2]", [
        "11: space.future_seed.layer_start.choices: is not a known key; did you mean 'choice'?",
    ]),
    "unknown task": ("rightcopy", "rightcpy", [
        f"4: task.name: must be one of {', '.join(map(repr, registry.names()))}, got 'rightcpy'; "
        "did you mean 'rightcopy'?"]),
    "no task name": ("name: rightcopy, ", "", ["4: task: must have a `name`"]),
    "quoted number": ("trials: 6", 'trials: "6"', [
        "19: search.trials: must be a whole number, got '6'"]),
    "fraction": ("trials: 6", "trials: 6.0", [
        "19: search.trials: must be a whole number, got 6.0"]),
    "true is no number": ("trials: 6", "trials: true", [
        "19: search.trials: must be a whole number, got true"]),
    "too small": ("trials: 6", "trials: 0", ["19: search.trials: must be at least 1, got 0"]),
    "not positive": ("lr: 1e-3", "lr: 0", ["5: train.lr: must be over 0, got 0"]),
    "not finite": ("trials: 6", "trials: 6, prune_below: .inf", [
        "19: search.prune_below: must be finite, got inf"]),
    "no such word": ("trials: 6", "trials: 6, sampler: tpee", [
        "19: search.sampler: must be 'tpe', 'random', 'gp' or 'grid', got 'tpee'; did you "
        "mean 'tpe'?"]),
    "list for a mapping": ("{lr: 1e-3, batch_size: 8}", "[1]", [
        "5: train: must hold `key: value` lines, got [1]"]),
    "nothing for a mapping": ("{lr: 1e-3, batch_size: 8}", "", [
        "5: train: must hold `key: value` lines, got nothing"]),
    "rule of a shape": ("width: 64", "width: 65", [
        "3: model.init.width: width is a multiple of head_size must hold, "
        "got width=65, head_size=32"]),
    "no rungs": ("\n  - {steps: 10, seeds: 1}\n  - {steps: 30, seeds: 2}", " []", [
        "7: rungs: must have at least 1 entry, got []"]),
    "three bounds": ("[-4.0, 2]", "[-4, 0, 2]", [
        "12: space.future_seed.alpha.uniform: must have 2 entries, low and high, "
        "got [-4, 0, 2]"]),
    "one bound": ("[-4.0, 2]", "[-4]", [
        "12: space.future_seed.alpha.uniform: must have 2 entries, low and high"]),
    "fixed context": ("fixed: {", "fixed: {train: {lr: 1}, ", [
        "15: fixed.train: is not a known key; known are future_seed"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_value_or_key_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    assert_told(tmp_path, *BROKEN[case])
