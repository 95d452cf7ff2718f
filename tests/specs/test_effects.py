from pathlib import Path

import pytest
from spec_cases import SMALLEST, assert_told, loaded, refused

# What is replaced in GOOD, what by, and every line that must come of it.
BROKEN = {
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
    "fixed of another type": ("norm: true", "norm: 1", [
        "15: fixed.future_seed.norm: must be true or false, got 1"]),
    "decay of a constant": ("lr: 1e-3", "lr: 1e-3, lr_total_steps: 50", [
        "5: train.lr_total_steps: has no effect while lr_schedule is constant, got 50"]),
    "decay before the end": ("lr: 1e-3", "lr: 1e-3, lr_schedule: linear, lr_total_steps: 20", [
        "5: train.lr_total_steps: must be at least 30, the last rung's steps, got 20"]),
    "warm-up to the end": ("lr: 1e-3", "lr: 1e-3, lr_schedule: linear, lr_warmup_steps: 30", [
        "5: train.lr_schedule: has no effect: the warm-up lasts 30 of 30 steps, got 'linear'"]),
    "baseline refused": ("objective:", "baseline: {train.lr: -1}\nobjective:", [
        "18: baseline.train.lr: must be over 0, got -1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_value_that_is_refused_or_idle_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    assert_told(tmp_path, *BROKEN[case])


# What is put under SMALLEST, overrides, and the one line that must come of it.
UNDER_SMALLEST = {
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
}


@pytest.mark.parametrize("case", UNDER_SMALLEST)
def test_what_has_no_effect_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    text, overrides, expected = UNDER_SMALLEST[case]
    (line,) = refused(tmp_path, SMALLEST + text, *overrides)
    assert line.startswith(expected)


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
