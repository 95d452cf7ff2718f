import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fstune.errors import InputError, SpecError
from fstune.specs.loading import (
    find,
    load,
    locate,
    read_resolved,
    resolve_files,
    shipped,
    write_resolved,
)
from fstune.specs.sections import SearchSpec, schema
from tasks import registry

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


def refused(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    file = folder / "spec.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        load(file, overrides)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def loaded(folder: Path, text: str = GOOD, *overrides: str) -> SearchSpec:
    file = folder / "spec.yaml"
    file.write_text(text)
    return load(file, overrides)


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
    "repeated key": ("search: {", "name: again\nsearch: {", [
        "19: name: repeated key, first given in line 1"]),
    "repeated key inside": ("lr: 1e-3", "lr: 1e-3, lr: 1e-4", [
        "5: train.lr: repeated key, first given in line 5"]),
    "quoted number": ("trials: 6", 'trials: "6"', [
        "19: search.trials: must be a whole number, got '6'"]),
    "fraction": ("trials: 6", "trials: 6.0", [
        "19: search.trials: must be a whole number, got 6.0"]),
    "true is no number": ("trials: 6", "trials: true", [
        "19: search.trials: must be a whole number, got true"]),
    "no is text": ("norm: true", "norm: no", [
        "15: fixed.future_seed.norm: must be true or false, got 'no'"]),
    "1_000 is text": ("train_size: 64", "train_size: 1_000", [
        "4: task.train_size: must be a whole number, got '1_000'"]),
    "too small": ("trials: 6", "trials: 0", ["19: search.trials: must be at least 1, got 0"]),
    "not positive": ("lr: 1e-3", "lr: 0", ["5: train.lr: must be over 0, got 0"]),
    "not finite": ("trials: 6", "trials: 6, prune_below: .inf", [
        "19: search.prune_below: must be finite, got inf"]),
    "no such word": ("trials: 6", "trials: 6, sampler: tpee", [
        "19: search.sampler: must be 'tpe', 'random' or 'gp', got 'tpee'; did you mean 'tpe'?"]),
    "a sampler that cannot": ("trials: 6", "trials: 6, sampler: gp", [
        "19: search.sampler: gp takes no conditions, and space.future_seed.schedule.min has one; "
        "tpe and random do"]),
    "a seed as candidate": ("space:", "space:\n  train.seed: {choice: [1, 2]}", [
        "11: space.train.seed: must stay as it is: seeds are repetitions, not candidates: give a "
        "rung more `seeds`"]),
    "other examples for each candidate": (
        "space:", "space:\n  task.validation_size: {choice: [8, 16]}", [
        "11: space.task.validation_size: must stay as it is: all candidates are compared on the "
        "same examples"]),
    "other examples for the baseline": (
        "space:", "baseline: {task.validation_size: 8}\nspace:", [
        "10: baseline.task.validation_size: must stay as it is: all candidates are compared"]),
    "all repetitions one": ("rungs:", "seeds: {order: false, data: false, init: false}\nrungs:", [
        "7: seeds: order, data or init must be true, or all repetitions are one and the same"]),
    "name of odd letters": ("name: small", "name: small/er", [
        "1: name: must be letters, digits, _ and - only, got 'small/er'"]),
    "list for a mapping": ("{lr: 1e-3, batch_size: 8}", "[1]", [
        "5: train: must hold `key: value` lines, got [1]"]),
    "nothing for a mapping": ("{lr: 1e-3, batch_size: 8}", "", [
        "5: train: must hold `key: value` lines, got nothing"]),
    "two sources of a model": ("  init:", "  checkpoint: a.pth\n  init:", [
        "3: model.checkpoint: exactly one of `checkpoint` and `init` must be given"]),
    "rule of a shape": ("width: 64", "width: 65", [
        "3: model.init.width: width is a multiple of head_size must hold, "
        "got width=65, head_size=32"]),
    "rungs fall": ("{steps: 30, seeds: 2}", "{steps: 6, seeds: 1}", [
        "9: rungs.1.steps: must not fall, got 6 after 10"]),
    "seeds fall": ("seeds: 1}", "seeds: 3}", [
        "9: rungs.1.seeds: must not fall, got 2 after 3"]),
    "a rung again": ("{steps: 30, seeds: 2}", "{steps: 10, seeds: 1}", [
        "9: rungs.1: must have more steps or more seeds"]),
    "no rungs": ("\n  - {steps: 10, seeds: 1}\n  - {steps: 30, seeds: 2}", " []", [
        "7: rungs: must have at least 1 entry, got []"]),
    "evaluations at rungs only": ("every: 5", "every: 30", [
        "6: evaluation.every: has no effect: no step before the last rung's 30 is added, got 30"]),
    "unknown path": ("future_seed.alpha:", "future_seed.alhpa:", [
        "12: space.future_seed.alhpa: is no setting; did you mean 'future_seed.alpha'?"]),
    "path of a whole section": ("future_seed.alpha:", "future_seed:", [
        "12: space.future_seed: is no setting, it holds future_seed.layer_start, "]),
    "path of another task": ("future_seed.alpha: {", "task.order: {", [
        "12: space.task.order: is no setting"]),
    "seed as a candidate": ("future_seed.alpha: {uniform: [-4.0, 2]}",
        "train.seed: {choice: [1, 2]}", [
        "12: space.train.seed: must stay as it is: seeds are repetitions"]),
    "two kinds": ("choice: [1, 2]", "choice: [1, 2], uniform: [1, 2]", [
        "11: space.future_seed.layer_start.choice: exactly one of choice, uniform, log_uniform, "
        "int_uniform must be given, got choice, uniform"]),
    "bounds turned": ("[-4.0, 2]", "[2, -4]", [
        "12: space.future_seed.alpha.uniform: low < high must hold, got low=2.0, high=-4.0"]),
    "three bounds": ("[-4.0, 2]", "[-4, 0, 2]", [
        "12: space.future_seed.alpha.uniform: must have 2 entries, low and high, "
        "got [-4, 0, 2]"]),
    "one bound": ("[-4.0, 2]", "[-4]", [
        "12: space.future_seed.alpha.uniform: must have 2 entries, low and high"]),
    "logarithm of 0": ("uniform: [-4.0, 2]", "log_uniform: [0, 2]", [
        "12: space.future_seed.alpha.log_uniform: 0 < low must hold, got low=0.0"]),
    "value twice": ("[1, 2]", "[1, 2, 1]", [
        "11: space.future_seed.layer_start.choice: values must differ, got 1 twice"]),
    "a list as a value": ("[1, 2]", "[1, [2]]", [
        "11: space.future_seed.layer_start.choice.1: must be a single value: a number, text, "
        "true or false, got [2]"]),
    "value of another type": ("[1, 2]", "[1, 2.5]", [
        "11: space.future_seed.layer_start: must be a whole number, got 2.5",
        "17: points.0.future_seed.layer_start: must be one of 1, 2.5, got 2"]),
    "value that is refused": ("[1, 2]", "[0, 2]", [
        "11: space.future_seed.layer_start: layer_start >= 1 must hold, got 0"]),
    "bound that is refused": ("[0.1, 0.9]", "[-0.1, 0.9]", [
        "14: space.future_seed.schedule.min: 0 <= min <= max must hold, got min=-0.1, max=1.0"]),
    "layers that are not there": ("[1, 2]", "[1, 4]", [
        "11: space.future_seed.layer_start: must be under 4, the number of layers, got 4",
        "17: points.0.future_seed.layer_start: must be one of 1, 4, got 2"]),
    "set twice": ("norm: true", "layer_start: 1", [
        "11: space.future_seed.layer_start: must be in `fixed` or in `space`, got both"]),
    "circle of conditions": ("choice: [none, linear]",
        "choice: [none, linear], when: {future_seed.schedule.min: 0.5}", [
        "13: space.future_seed.schedule.kind.when.future_seed.schedule.min: must name a path "
        "with a choice or int_uniform, got a range",
        "13: space.future_seed.schedule.kind.when.future_seed.schedule.min: conditions must not "
        "go in a circle"]),
    "condition on nothing": ("{future_seed.schedule.kind: linear}", "{future_seed.kind: linear}", [
        "14: space.future_seed.schedule.min.when.future_seed.kind: must name a path of the space; "
        "known are future_seed.layer_start, future_seed.alpha, "]),
    "condition never met": ("kind: linear}", "kind: cosine}", [
        "14: space.future_seed.schedule.min.when.future_seed.schedule.kind: must be one of "
        "'none', 'linear', to be ever met, got 'cosine'"]),
    "schedule without a kind": (", when: {future_seed.schedule.kind: linear}", "", [
        "14: space.future_seed.schedule.min: has no effect while schedule.kind is none; give it "
        "`when: {future_seed.schedule.kind: [linear, cosine]}`"]),
    "schedule fixed without a kind": ("norm: true", "norm: true, schedule: {max: 1.5}", [
        "15: fixed.future_seed.schedule.max: has no effect while schedule.kind is none"]),
    "schedule of nothing but ones": (
        "  future_seed.schedule.min: {uniform: [0.1, 0.9], when: {future_seed.schedule.kind: "
        "linear}}\n", "", [
        "13: space.future_seed.schedule.kind: has no effect while schedule.min and schedule.max "
        "are both 1, got 'linear'"]),
    "scale of nothing": ("norm: true", "seed_scale: 0", [
        "15: fixed.future_seed.seed_scale: must be over 0: at 0 nothing is handed on, got 0"]),
    "scale that may be nothing": ("future_seed.alpha: {uniform: [-4.0, 2]}",
        "future_seed.seed_scale: {uniform: [0, 2]}", [
        "12: space.future_seed.seed_scale: must be over 0: at 0 nothing is handed on, got 0"]),
    "gate that cannot part": ("norm: true", "gate: head", [
        "15: fixed.future_seed.gate: has no effect while alpha_lr is 0: it starts as the scalar "
        "gate and stays it, got 'head'"]),
    "unknown fixed": ("norm: true", "nrom: true", [
        "15: fixed.future_seed.nrom: is no setting; did you mean 'future_seed.norm'?"]),
    "fixed context": ("fixed: {", "fixed: {train: {lr: 1}, ", [
        "15: fixed.train: is not a known key; known are future_seed"]),
    "fixed and hollow": ("norm: true", "norm: {}", [
        "15: fixed.future_seed: norm must have a value, got {}"]),
    "fixed of another type": ("norm: true", "norm: 1", [
        "15: fixed.future_seed.norm: must be true or false, got 1"]),
    "point outside": ("{future_seed.layer_start: 2}", "{future_seed.layer_start: 3}", [
        "17: points.0.future_seed.layer_start: must be one of 1, 2, got 3"]),
    "point elsewhere": ("{future_seed.layer_start: 2}", "{future_seed.layerstart: 2}", [
        "17: points.0.future_seed.layerstart: is not in the space; "
        "did you mean 'future_seed.layer_start'?"]),
    "point against a condition": ("{future_seed.layer_start: 2}",
        "{future_seed.schedule.kind: none, future_seed.schedule.min: 0.5}", [
        "17: points.0.future_seed.schedule.min: counts only where future_seed.schedule.kind is "
        "'linear', got 'none'"]),
    "point without its condition": ("{future_seed.layer_start: 2}",
        "{future_seed.schedule.min: 0.5}", [
        "17: points.0.future_seed.schedule.min: counts only with future_seed.schedule.kind, "
        "which must be given beside it"]),
    "point twice": ("points:\n", "points:\n  - {future_seed.layer_start: 2}\n", [
        "18: points.1: must differ from the points before it"]),
    "more points than trials": ("points:", "points:\n  - {future_seed.alpha: 0}\n  - {}\n"
        "  - {future_seed.alpha: 1}\n  - {future_seed.alpha: -1}\n  - {future_seed.alpha: -2}\n"
        "  - {future_seed.alpha: -3}", [
        "25: search.trials: must be at least 7, the number of points, got 6"]),
    "unknown metric": ("metric: nll", "metric: token_acc", [
        "18: objective.metric: must be one of rightcopy's metrics, token_accuracy, nll, "
        "exact_match, got 'token_acc'; did you mean 'token_accuracy'?"]),
    "decay of a constant": ("lr: 1e-3", "lr: 1e-3, lr_total_steps: 50", [
        "5: train.lr_total_steps: has no effect while lr_schedule is constant, got 50"]),
    "decay before the end": ("lr: 1e-3", "lr: 1e-3, lr_schedule: linear, lr_total_steps: 20", [
        "5: train.lr_total_steps: must be at least 30, the last rung's steps, got 20"]),
    "warm-up to the end": ("lr: 1e-3", "lr: 1e-3, lr_schedule: linear, lr_warmup_steps: 30", [
        "5: train.lr_schedule: has no effect: the warm-up lasts 30 of 30 steps, got 'linear'"]),
    "baseline as it is": ("objective:", "baseline: {train.lr: 1e-3}\nobjective:", [
        "18: baseline.train.lr: has no effect: it is 0.001 in both arms"]),
    "baseline elsewhere": ("objective:", "baseline: {train.rl: 1e-4}\nobjective:", [
        "18: baseline.train.rl: is no setting; did you mean 'train.lr'?"]),
    "baseline refused": ("objective:", "baseline: {train.lr: -1}\nobjective:", [
        "18: baseline.train.lr: must be over 0, got -1"]),
    "alias": ("{choice: [1, 2]}", "*here", [
        "11: is not YAML: aliases are not supported: write the value out"]),
    "tag": ("{choice: [1, 2]}", "!!set {1}", [
        "11: space.future_seed.layer_start: tags are not supported, got set"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_spec_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    old, new, expected = BROKEN[case]
    assert GOOD.count(old) == 1
    lines = refused(tmp_path, GOOD.replace(old, new))
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"spec.yaml:{start}")


SMALLEST = """\
name: least
model: {init: {num_layers: 4, width: 64, head_size: 32, vocab_size: 256}}
task: {name: rightcopy, train_size: 64, validation_size: 16}
rungs: [{steps: 10}]
search: {trials: 1}
"""
# What is put under SMALLEST, overrides, and the one line that must come of it.
UNDER_SMALLEST = {
    "arms alike": ("", [], "spec.yaml:1: space: must vary the mechanism"),
    "arms alike, context varied": (
        "space: {train.lr: {choice: [1e-3, 1e-4]}}",
        [],
        "spec.yaml:6: space: must vary the mechanism",
    ),
    "one candidate": (
        "fixed: {future_seed: {}}",
        ["search.trials=2"],
        "--set search.trials=2: search.trials: must be at most 1, the candidates of the space",
    ),
    "candidates counted": (
        "space: {future_seed.norm: {choice: [true, false]}, future_seed.clip: {choice: [0, 1],"
        " when: {future_seed.norm: true}}}",
        ["search.trials=4"],
        "--set search.trials=4: search.trials: must be at most 3, the candidates of the space",
    ),
    "layers, fixed": (
        "fixed: {future_seed: {layer_start: 4}}",
        [],
        "spec.yaml:6: fixed.future_seed.layer_start: must be under 4, the number of layers, got 4",
    ),
    "layers, in the baseline": (
        "fixed: {future_seed: {}}\nbaseline: {future_seed.layer_start: 9}",
        [],
        "spec.yaml:7: baseline.future_seed.layer_start: must be under 4, the number of layers",
    ),
    "layers that vary": (
        "space: {model.init.num_layers: {choice: [2, 4]}}\nfixed: {future_seed: {layer_start: 2}}",
        [],
        "spec.yaml:7: fixed.future_seed.layer_start: must be under 2, the number of layers, got 2",
    ),
    "no strength anywhere": (
        "fixed: {future_seed: {schedule: {kind: linear, min: 0, max: 0}}}",
        [],
        "spec.yaml:6: fixed.future_seed.schedule.max: must be over 0",
    ),
    "no strength at the last layer": (
        "fixed: {future_seed: {layer_start: 3, schedule: {kind: linear, min: 0}}}",
        [],
        "spec.yaml:6: fixed.future_seed.schedule.min: must be over 0",
    ),
    "a schedule over one layer": (
        "fixed: {future_seed: {layer_start: 3, schedule: {kind: linear, min: 0.5, max: 0.7}}}",
        [],
        "spec.yaml:6: fixed.future_seed.schedule.max: has no effect while only the last layer",
    ),
    "values that do not go together": (
        "space: {future_seed.schedule.min: {choice: [0.1, 0.9]}, future_seed.schedule.max: "
        "{choice: [0.5, 1.0]}}\nfixed: {future_seed: {schedule: {kind: linear}}}",
        [],
        "spec.yaml:6: space.future_seed.schedule.max: 0 <= min <= max must hold, got min=0.9, "
        "max=0.5, at future_seed.schedule.max = 0.5 and future_seed.schedule.min = 0.9",
    ),
    "two values of a gate that is frozen": (
        "space: {future_seed.gate: {choice: [scalar, input]}}",
        [],
        "spec.yaml:6: space.future_seed.gate: has no effect while alpha_lr is 0",
    ),
    "no gate learns, and nothing else does": (
        "train: {parameters: gates}\nfixed: {future_seed: {}}",
        ["model={checkpoint: any.pth}"],
        "spec.yaml:6: train.parameters: trains nothing: no gate learns, since future_seed.alpha_lr",
    ),
    "a rate for a model that is not trained": (
        "train: {parameters: gates}\nfixed: {future_seed: {alpha_lr: 0.1}}\n"
        "space: {train.lr: {choice: [1e-3, 1e-4]}}",
        ["model={checkpoint: any.pth}"],
        "spec.yaml:8: space.train.lr: has no effect while train.parameters is gates: their rate is",
    ),
    "a schedule for a model that is not trained": (
        "train: {parameters: gates, lr_schedule: linear}\nfixed: {future_seed: {alpha_lr: 0.1}}",
        ["model={checkpoint: any.pth}"],
        "spec.yaml:6: train.lr_schedule: has no effect while train.parameters is gates",
    ),
    "gates on a model that is new": (
        "train: {parameters: gates}\nfixed: {future_seed: {alpha_lr: 0.1}}",
        [],
        "spec.yaml:6: train.parameters: needs model.checkpoint: a new model's states change",
    ),
    "pruning on one rung": (
        "fixed: {future_seed: {}}",
        ["search.prune_below=0.1"],
        "--set search.prune_below=0.1: search.prune_below: has no effect with a single rung",
    ),
    "a factor without its scheduler": (
        "fixed: {future_seed: {}}",
        ["search.reduction_factor=4"],
        "--set search.reduction_factor=4: search.reduction_factor: has no effect with a single",
    ),
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


GATES_ONLY = [
    "train: {parameters: gates, lr: 1e-3}\nfixed: {future_seed: {alpha_lr: 0.1}}",
    "train: {parameters: gates}\nspace: {future_seed.alpha_lr: {choice: [0, 0.1]}}",
    "space: {train.parameters: {choice: [all, gates]}, train.lr: {choice: [1e-3, 1e-4]}}\n"
    "fixed: {future_seed: {alpha_lr: 0.1}}",
    "train: {lr_schedule: linear}\nspace: {train.parameters: {choice: [all, gates]}}\n"
    "fixed: {future_seed: {alpha_lr: 0.1}}",
]


@pytest.mark.parametrize("text", GATES_ONLY)
def test_gates_may_be_trained_alone(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, SMALLEST + text, "model={checkpoint: any.pth}")


@pytest.mark.parametrize("case", UNDER_SMALLEST)
def test_a_rule_across_sections_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    text, overrides, expected = UNDER_SMALLEST[case]
    lines = refused(tmp_path, SMALLEST + text, *overrides)
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)


UNREADABLE = {
    "empty": (b"", "spec.yaml:1: is empty"),
    "comments": (b"# nothing\n", "spec.yaml:1: is empty"),
    "a list": (b"\n- a\n", "spec.yaml:2: a spec is `key: value` lines at its top, got a list"),
    "a word": (b"hello", "spec.yaml:1: a spec is `key: value` lines at its top, got a single"),
    "no YAML": (b"name: a\nmodel: {", "spec.yaml:2: is not YAML: "),
    "two documents": (b"name: a\n---\nname: b", "spec.yaml:2: is not YAML: "),
    "latin-1": ("name: ä".encode("latin-1"), "spec.yaml:1: is not UTF-8 text; save"),
    "binary": (b"name: \x00", "spec.yaml:1: is not text: special characters are not allowed"),
    "deep": (b"a: " + b"[" * 3000, "spec.yaml: is nested too deeply"),
    "itself": (b"&a a: *a", "spec.yaml:1: is not YAML: aliases are not supported"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_spec_at_all_is_one_clear_line(tmp_path: Path, case: str) -> None:
    text, expected = UNREADABLE[case]
    lines = refused(tmp_path, text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_all_problems_are_told_at_once_and_in_order(tmp_path: Path) -> None:
    text = (
        GOOD.replace("length: 4", "lenght: 4")
        .replace("lr: 1e-3", "lr: -1")
        .replace("seeds: 2", "seeds: 2, seeds: 3")
        .replace("[1, 2]", "[1, 4]")
        .replace("uniform: [-4.0, 2]", "uniform: [2]")
        .replace("norm: true", "norm: 3")
        .replace("steps: 30", "steps: 3")
    )
    lines = refused(tmp_path, text, "search.seed=-1")
    assert [line.split(": ")[0] + ": " + line.split(": ")[1] for line in lines] == [
        "--set search.seed=-1: search.seed",
        "spec.yaml:4: task.lenght",
        "spec.yaml:5: train.lr",
        "spec.yaml:9: rungs.1.seeds",
        "spec.yaml:9: rungs.1.steps",
        "spec.yaml:11: space.future_seed.layer_start",
        "spec.yaml:12: space.future_seed.alpha.uniform",
        "spec.yaml:15: fixed.future_seed.norm",
    ]


def test_scalars_are_yaml_1_2(tmp_path: Path) -> None:
    text = GOOD.replace("1e-3", "1e-4").replace("length: 4", "length: 0x4, alphabet: on")
    spec = loaded(tmp_path, text)
    assert spec.train.lr == 1e-4
    assert vars(spec.task)["alphabet"] == "on"
    assert vars(spec.task)["length"] == 4


def test_a_byte_order_mark_and_crlf_are_read(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(file) == loaded(tmp_path)


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


def test_defaults_are_those_of_the_fields(tmp_path: Path) -> None:
    spec = loaded(tmp_path, SMALLEST + "fixed: {future_seed: {}}")
    assert spec.metric().name == "token_accuracy"
    assert (spec.search.sampler, spec.search.scheduler) == ("tpe", "asha_promote")
    assert spec.rungs[0].seeds == 1


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_search_loads(name: str, tmp_path: Path) -> None:
    spec = load(find(name))
    assert spec.name == name
    assert find(f"{name}.yaml") == find(name)
    write_resolved(spec, tmp_path / "spec.json")
    assert read_resolved(tmp_path / "spec.json") == spec
    for point in spec.points:
        spec.settings(point)


def test_a_search_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"did you mean 'quickstart'.*hotpot_len4096, hotpot_tiny"):
        find("quickstrat")


def test_a_resolved_spec_reads_back_identically(tmp_path: Path) -> None:
    spec = loaded(tmp_path, GOOD, "train.lr_schedule=linear", "baseline.train.lr=0.5")
    file = tmp_path / "spec.json"
    write_resolved(spec, file)
    again = read_resolved(file)
    assert again == spec
    assert again.digest == spec.digest
    write_resolved(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()
    file.write_text(file.read_text().replace('"name"', '"nome"'))
    with pytest.raises(SpecError, match="is not a resolved spec"):
        read_resolved(file)


def test_the_digest_is_of_what_decides_results(tmp_path: Path) -> None:
    spec = loaded(tmp_path)
    for same in ("name=other", "resources={gpus: 4, concurrent_trials: 2}"):
        assert loaded(tmp_path, GOOD, same).digest == spec.digest
    for other in ("train.lr=1e-5", "search.seed=1", "objective.margin=0.1", "rungs.0.steps=9"):
        assert loaded(tmp_path, GOOD, other).digest != spec.digest
    turned = GOOD.splitlines()
    turned[10], turned[11] = turned[11], turned[10]
    assert loaded(tmp_path, "\n".join(turned)).digest == spec.digest


def test_the_baseline_lacks_the_mechanism_and_nothing_else(tmp_path: Path) -> None:
    spec = loaded(tmp_path)
    baseline, variant = spec.settings({"future_seed.alpha": 1, "train.batch_size": 4})
    assert baseline.future_seed is None
    assert variant.future_seed is not None
    assert variant.future_seed.norm
    assert variant.future_seed.alpha == 1.0
    assert variant.model_copy(update={"future_seed": None}) == baseline
    assert baseline.train.batch_size == 4
    assert spec.settings({})[1].train.batch_size == 8


def test_a_baseline_may_differ_in_any_path(tmp_path: Path) -> None:
    spec = loaded(tmp_path, SMALLEST + "baseline: {train.lr: 1e-2}")
    baseline, variant = spec.settings({})
    assert (baseline.train.lr, variant.train.lr) == (1e-2, 3e-5)
    assert baseline.future_seed is variant.future_seed is None


def test_a_baseline_with_the_mechanism_has_what_is_fixed(tmp_path: Path) -> None:
    text = "fixed: {future_seed: {norm: true}}\nbaseline: {future_seed.alpha: 0.5}"
    baseline, variant = loaded(tmp_path, SMALLEST + text).settings({})
    assert baseline.future_seed is not None
    assert variant.future_seed is not None
    assert baseline.future_seed.norm
    assert (baseline.future_seed.alpha, variant.future_seed.alpha) == (0.5, -2.0)


HOTPOT = """\
name: least
model: {checkpoint: weights/m.pth}
task:
  {name: hotpot, train_size: 6, validation_size: 6, files: {train: t.jsonl, validation: v.jsonl}}
rungs: [{steps: 10}]
search: {trials: 1}
fixed: {future_seed: {layer_start: 4}}
"""


def test_files_are_found_below_the_first_data_folder_that_has_them(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for file in (
        first / "t.jsonl",
        second / "t.jsonl",
        second / "v.jsonl",
        second / "weights/m.pth",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    spec = loaded(tmp_path, HOTPOT)
    found = resolve_files(spec, [first, second], lambda _: 5)
    assert found.model.checkpoint == str(second / "weights/m.pth")
    files = vars(found.task)["files"]
    assert (files.train, files.validation) == (str(first / "t.jsonl"), str(second / "v.jsonl"))
    assert found.digest == spec.digest
    assert resolve_files(found, [], lambda _: 5) == found
    write_resolved(found, tmp_path / "spec.json")
    assert read_resolved(tmp_path / "spec.json") == found


def test_a_checkpoint_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    for file in ("t.jsonl", "v.jsonl", "weights/m.pth"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    spec = loaded(tmp_path, HOTPOT)
    with pytest.raises(SpecError) as caught:
        resolve_files(spec, [tmp_path], lambda _: 4)
    assert caught.value.problems == (
        "least: fixed.future_seed.layer_start: must be under 4, the number of layers, got 4",
    )


def test_missing_files_are_all_told_with_every_place(tmp_path: Path) -> None:
    spec = loaded(tmp_path, HOTPOT)
    with pytest.raises(InputError) as caught:
        resolve_files(spec, [tmp_path, tmp_path / "b"], lambda _: 4)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["weights/m.pth", "t.jsonl", "v.jsonl"]
    for line, name in zip(lines, ("weights/m.pth", "t.jsonl", "v.jsonl"), strict=True):
        assert str(tmp_path / name) in line
        assert str(tmp_path / "b" / name) in line


def test_an_absolute_path_is_looked_for_there_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for it at /nowhere/m\.pth$"):
        locate("/nowhere/m.pth", [tmp_path])


def test_the_schema_describes_every_setting() -> None:
    described = json.dumps(schema())
    for words in ("Optimiser steps from the start", "layer_start", "rightcopy"):
        assert words in described
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    for name in re.findall(r"#/\$defs/(\w+)", described):
        assert name in definitions


def test_a_spec_loads_without_torch_ray_mlflow_or_optuna() -> None:
    code = (
        "import sys; from fstune.spec import find, load; load(find('quickstart'));"
        "print([name for name in ('torch', 'ray', 'mlflow', 'optuna') if name in sys.modules])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.stdout.strip() == "[]"
