import json
import re
from pathlib import Path

import pytest
from spec_cases import GOOD, SMALLEST, assert_told, loaded

from fstune.specs.sections import SearchSpec, schema
from fstune.specs.settings import ArmEvaluation

# What is replaced in GOOD, what by, and every line that must come of it.
BROKEN = {
    "name of odd letters": ("name: small", "name: small/er", [
        "1: name: must be letters, digits, _ and - only, got 'small/er'"]),
    "name that no file system takes": ("name: small", "name: " + "long" * 75, [
        "1: name: must be at most 120 letters long, got 300 of them, longlonglonglonglong…"]),
    "two sources of a model": ("  init:", "  checkpoint: a.pth\n  init:", [
        "3: model.checkpoint: exactly one of `checkpoint` and `init` must be given"]),
    "a mean of nothing": ("every: 5", "weights: mean, mean_decay: 1.0", [
        "6: evaluation.mean_decay: must be under 1, got 1.0"]),
    "a rung that only cools": ("every: 5", "cooldown: 1.0", [
        "6: evaluation.cooldown: must be under 1, got 1.0"]),
    "weights of another kind": ("every: 5", "weights: average", [
        "6: evaluation.weights: must be 'last' or 'mean', got 'average'"]),
    "fixed and hollow": ("norm: true", "norm: {}", [
        "15: fixed.future_seed: norm must have a value, got {}"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_section_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    assert_told(tmp_path, *BROKEN[case])


def test_defaults_are_those_of_the_fields(tmp_path: Path) -> None:
    spec = loaded(tmp_path, SMALLEST + "fixed: {future_seed: {}}")
    assert spec.metric().name == "token_accuracy"
    assert (spec.search.sampler, spec.search.scheduler) == ("tpe", "asha_promote")
    assert spec.rungs[0].seeds == 1


def test_the_digest_is_of_what_decides_results(tmp_path: Path) -> None:
    spec = loaded(tmp_path)
    for same in ("name=other", "resources={gpus: 4, concurrent_trials: 2}"):
        assert loaded(tmp_path, GOOD, same).digest == spec.digest
    for other in ("train.lr=1e-5", "search.seed=1", "objective.margin=0.1", "rungs.0.steps=9"):
        assert loaded(tmp_path, GOOD, other).digest != spec.digest
    turned = GOOD.splitlines()
    turned[10], turned[11] = turned[11], turned[10]
    assert loaded(tmp_path, "\n".join(turned)).digest == spec.digest


def test_specs_from_before_weights_were_chosen_keep_their_digests(tmp_path: Path) -> None:
    spec = loaded(tmp_path)
    assert spec.digest == "2f6f24b511fd0847"
    assert loaded(tmp_path, GOOD, "evaluation.weights=last", "evaluation.cooldown=0").digest == (
        spec.digest
    )
    digests = {
        loaded(tmp_path, GOOD, *overrides).digest
        for overrides in (
            ("evaluation.weights=mean",),
            ("evaluation.weights=mean", "evaluation.mean_decay=0.9"),
            ("evaluation.cooldown=0.2",),
        )
    }
    assert len(digests - {spec.digest}) == 3


def test_both_arms_are_evaluated_alike_and_cool_at_every_rung(tmp_path: Path) -> None:
    overrides = ("evaluation.weights=mean", "evaluation.mean_decay=0.9", "evaluation.cooldown=0.2")
    baseline, variant = loaded(tmp_path, GOOD, *overrides).settings({})
    assert baseline.evaluation == variant.evaluation
    assert variant.evaluation == ArmEvaluation(
        weights="mean", mean_decay=0.9, cooldown=0.2, cooled_at=(10, 30)
    )
    assert [variant.evaluation.branches_at(step) for step in (10, 20, 30)] == [8, 20, 24]
    baseline, variant = loaded(tmp_path).settings({})
    assert baseline.evaluation == variant.evaluation == ArmEvaluation()


def test_a_spec_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for overrides in ((), ("evaluation.weights=mean",), ("evaluation.cooldown=0.2",)):
        spec = loaded(tmp_path, GOOD, *overrides)
        assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec


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


def test_the_schema_describes_every_setting() -> None:
    described = json.dumps(schema())
    for words in ("Optimiser steps from the start", "layer_start", "rightcopy"):
        assert words in described
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    for name in re.findall(r"#/\$defs/(\w+)", described):
        assert name in definitions
