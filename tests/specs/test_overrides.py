from pathlib import Path

import pytest
from spec_cases import GOOD, SMALLEST, loaded, refused

from fstune.specs.overrides import override
from fstune.specs.yaml import parse

# What is put under SMALLEST, overrides, and the one line that must come of it.
UNDER_SMALLEST = {
    "--set of a key that is not": (
        "fixed: {future_seed: {}}",
        ["train.lrr=1"],
        "--set train.lrr=1: train.lrr: is not a known key; did you mean 'lr'?",
    ),
    "--set of a section that is not": (
        "fixed: {future_seed: {}}",
        ["trian.lr=1"],
        "--set trian.lr=1: trian: is not a known key; did you mean 'train'?",
    ),
    "--set below a value": (
        "fixed: {future_seed: {}}",
        ["name.first=1"],
        "--set name.first=1: name: has no part 'first'",
    ),
    "--set of a rung that is not": (
        "fixed: {future_seed: {}}",
        ["rungs.1.steps=3"],
        "--set rungs.1.steps=3: rungs: has no part '1'",
    ),
    "--set without a value": (
        "fixed: {future_seed: {}}",
        ["train.lr"],
        "--set train.lr: must be written as path=value",
    ),
    "--set to no YAML": (
        "fixed: {future_seed: {}}",
        ["train.lr=[1"],
        "--set train.lr=[1: is not YAML",
    ),
    "--set of the wrong type": (
        "fixed: {future_seed: {}}",
        ["train.batch_size=1e1"],
        "--set train.batch_size=1e1: train.batch_size: must be a whole number, got 10.0",
    ),
}


@pytest.mark.parametrize("case", UNDER_SMALLEST)
def test_what_cannot_be_set_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    text, overrides, expected = UNDER_SMALLEST[case]
    (line,) = refused(tmp_path, SMALLEST + text, *overrides)
    assert line.startswith(expected)


def test_set_changes_what_the_file_says(tmp_path: Path) -> None:
    spec = loaded(
        tmp_path,
        GOOD,
        "train.lr=1e-5",
        "rungs.1.steps=90",
        "space.future_seed.alpha={choice: [0.0, 1.0]}",
        "space.train.weight_decay.choice=[0.0]",
        "space.future_seed.layer_start.choice=[2, 3]",
        "resources.gpus=null",
        "search.trials=4",
    )
    assert spec.train.lr == 1e-5
    assert spec.rungs[1].steps == 90
    assert spec.space["future_seed.alpha"].choice == (0.0, 1.0)
    assert spec.space["future_seed.layer_start"].choice == (2, 3)


def test_where_keys_have_dots_is_the_callers_word() -> None:
    keyed = {("paths",): ("choice",), ("rows", "*"): ()}
    for assignment, value in {
        "paths.a.b=1": {"paths": {"a.b": 1}},
        "paths.a.b.choice=1": {"paths": {"a.b": {"choice": 1}}},
        "rows.0.a.b=1": {"rows": [{"a.b": 1}]},
        "other.a.b=1": {"other": {"a": {"b": 1}}},
    }.items():
        document = parse("{rows: [{}]}", "here")
        override(document, assignment, keyed)
        assert document.problems == []
        assert document.value == {"rows": [{}]} | value


def test_what_is_set_last_stands_and_is_named(tmp_path: Path) -> None:
    lines = refused(tmp_path, GOOD, "train.lr=1", "train={lr: -1}", "search.trials=0")
    assert lines == [
        "--set train={lr: -1}: train.lr: must be over 0, got -1",
        "--set search.trials=0: search.trials: must be at least 1, got 0",
    ]
