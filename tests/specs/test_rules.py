from pathlib import Path

import pytest
from spec_cases import SMALLEST, assert_told, refused

# What is replaced in GOOD, what by, and every line that must come of it.
BROKEN = {
    "a sampler that cannot": ("trials: 6", "trials: 6, sampler: gp", [
        "19: search.sampler: gp takes no conditions, and space.future_seed.schedule.min has one; "
        "tpe and random do"]),
    "a grid of ranges": ("trials: 6", "trials: 6, sampler: grid", [
        "19: search.sampler: grid takes no ranges, and space.future_seed.alpha is one; give it a "
        "`choice`"]),
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
    "rungs fall": ("{steps: 30, seeds: 2}", "{steps: 6, seeds: 1}", [
        "9: rungs.1.steps: must not fall, got 6 after 10"]),
    "seeds fall": ("seeds: 1}", "seeds: 3}", [
        "9: rungs.1.seeds: must not fall, got 2 after 3"]),
    "a rung again": ("{steps: 30, seeds: 2}", "{steps: 10, seeds: 1}", [
        "9: rungs.1: must have more steps or more seeds"]),
    "evaluations at rungs only": ("every: 5", "every: 30", [
        "6: evaluation.every: has no effect: no step before the last rung's 30 is added, got 30"]),
    "evaluations while a branch cools": ("every: 5", "every: 25, cooldown: 0.4", [
        "6: evaluation.every: has no effect: no step before the last rung's 30 is added outside of "
        "branches that cool, got 25"]),
    "a decay without its mean": ("every: 5", "mean_decay: 0.9", [
        "6: evaluation.mean_decay: has no effect while evaluation.weights is last, got 0.9"]),
    "a branch of no step": ("every: 5", "cooldown: 0.04", [
        "6: evaluation.cooldown: must come to a step or more of each rung's: of 10 steps it is "
        "none, got 0.04"]),
    "unknown path": ("future_seed.alpha:", "future_seed.alhpa:", [
        "12: space.future_seed.alhpa: is no setting; did you mean 'future_seed.alpha'?"]),
    "path of a whole section": ("future_seed.alpha:", "future_seed:", [
        "12: space.future_seed: is no setting, it holds future_seed.layer_start, "]),
    "path of another task": ("future_seed.alpha: {", "task.order: {", [
        "12: space.task.order: is no setting"]),
    "seed as a candidate": ("future_seed.alpha: {uniform: [-4.0, 2]}",
        "train.seed: {choice: [1, 2]}", [
        "12: space.train.seed: must stay as it is: seeds are repetitions"]),
    "set twice": ("norm: true", "layer_start: 1", [
        "11: space.future_seed.layer_start: must be in `fixed` or in `space`, got both"]),
    "unknown fixed": ("norm: true", "nrom: true", [
        "15: fixed.future_seed.nrom: is no setting; did you mean 'future_seed.norm'?"]),
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
    "baseline as it is": ("objective:", "baseline: {train.lr: 1e-3}\nobjective:", [
        "18: baseline.train.lr: has no effect: it is 0.001 in both arms"]),
    "baseline elsewhere": ("objective:", "baseline: {train.rl: 1e-4}\nobjective:", [
        "18: baseline.train.rl: is no setting; did you mean 'train.lr'?"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    assert_told(tmp_path, *BROKEN[case])


# What is put under SMALLEST, overrides, and the one line that must come of it.
UNDER_SMALLEST = {
    "arms alike": ("", [], "spec.yaml:1: space: must vary a mechanism"),
    "arms alike, context varied": (
        "space: {train.lr: {choice: [1e-3, 1e-4]}}",
        [],
        "spec.yaml:6: space: must vary a mechanism",
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
    "the mean of one step": (
        "fixed: {future_seed: {}}",
        ["evaluation.weights=mean", "rungs.0.steps=1"],
        "--set evaluation.weights=mean: evaluation.weights: has no effect: after 1 step the mean",
    ),
    "an evaluation as a candidate": (
        "space: {evaluation.weights: {choice: [last, mean]}}\nfixed: {future_seed: {}}",
        [],
        "spec.yaml:6: space.evaluation.weights: is no setting",
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
}


@pytest.mark.parametrize("case", UNDER_SMALLEST)
def test_a_rule_across_sections_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    text, overrides, expected = UNDER_SMALLEST[case]
    (line,) = refused(tmp_path, SMALLEST + text, *overrides)
    assert line.startswith(expected)
