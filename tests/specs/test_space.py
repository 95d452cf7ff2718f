import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from spec_cases import assert_told

from fstune.specs.space import Domain, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

KIND = Domain(choice=("none", "linear", "cosine"))
LOW = Domain(uniform=(0.1, 1.0), when={"kind": ("linear", "cosine")})
SPACE = Space(
    {
        "above": Domain(int_uniform=(1, 3), when={"low_kind": (True,)}),
        "low_kind": Domain(choice=(True, False), when={"kind": ("linear",)}),
        "kind": KIND,
        "low": LOW,
        "rate": Domain(log_uniform=(1e-5, 1e-2)),
    }
)


@st.composite
def domains(draw: st.DrawFn, conditions: dict[str, tuple[Any, ...]]) -> Domain:
    kind = draw(st.sampled_from(("choice", "uniform", "log_uniform", "int_uniform")))
    when = None
    if conditions and draw(st.booleans()):
        parent = draw(st.sampled_from(sorted(conditions)))
        values = draw(st.sets(st.sampled_from(conditions[parent]), min_size=1))
        when = {parent: tuple(sorted(values, key=str))}
    if kind == "choice":
        scalars = st.one_of(st.integers(-9, 9), st.text("abc", max_size=3), st.floats(-3, 3))
        choice = draw(st.lists(scalars, min_size=1, max_size=4, unique_by=lambda value: value))
        return Domain(choice=tuple(choice), when=when)
    if kind == "int_uniform":
        low = draw(st.integers(-20, 20))
        return Domain(int_uniform=(low, low + draw(st.integers(1, 30))), when=when)
    low = draw(st.floats(1e-6, 10))
    return Domain.model_validate({kind: (low, low + draw(st.floats(0.1, 10))), "when": when})


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Domain]:
    found: dict[str, Domain] = {}
    for name in draw(st.permutations("abcdef"))[: draw(st.integers(1, 6))]:
        parents = {path: domain.choice for path, domain in found.items() if domain.choice}
        found[name] = draw(domains(parents))
    return dict(draw(st.permutations(sorted(found.items()))))


def drawn(space: Space, seed: int, count: int = 1) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(count)]
    return [(space.suggest(trial), trial.params) for trial in trials]


@settings(deadline=None, max_examples=150)
@given(spaces(), st.integers(0, 1000))
def test_what_is_drawn_is_in_the_space_and_nothing_else_is_asked(
    found: dict[str, Domain], seed: int
) -> None:
    space = Space(found)
    assert set(space.paths) == set(found)
    for point, asked in drawn(space, seed, 3):
        assert space.problems(point) == []
        assert point == asked
        for path in found:
            assert (path in point) == space.admits(path, point)


@settings(deadline=None, max_examples=60)
@given(spaces(), st.integers(0, 1000), st.randoms())
def test_the_order_of_the_file_does_not_matter(
    found: dict[str, Domain], seed: int, stream: Any
) -> None:
    turned = list(found.items())
    stream.shuffle(turned)
    assert drawn(Space(found), seed, 3) == drawn(Space(dict(turned)), seed, 3)


@settings(deadline=None, max_examples=60)
@given(spaces(), st.integers(0, 1000))
def test_a_point_draws_itself(found: dict[str, Domain], seed: int) -> None:
    space = Space(found)
    for point, _ in drawn(space, seed):
        assert space.suggest(optuna.trial.FixedTrial(dict(point))) == point


@settings(deadline=None, max_examples=100)
@given(spaces(), st.data())
def test_what_is_outside_is_told(found: dict[str, Domain], data: st.DataObject) -> None:
    space = Space(found)
    point, _ = drawn(space, 0)[0]
    path = data.draw(st.sampled_from(sorted(point)))
    children = {other for other, domain in found.items() if path in (domain.when or {})}
    outside = data.draw(st.sampled_from(["outside", 1e9, math.nan]))
    problems = space.problems({**point, path: outside})
    assert any(line.startswith(f"{path}: must be ") for line in problems)
    assert {line.split(":")[0] for line in problems} <= {path, *children}


@settings(deadline=None, max_examples=100)
@given(spaces())
def test_corners_are_in_the_space_and_have_every_extreme(found: dict[str, Domain]) -> None:
    space = Space(found)
    corners = list(space.corners(sorted(found), 10_000))
    seen = {(path, repr(value)) for corner in corners for path, value in corner.items()}
    for corner in corners:
        assert space.problems(corner) == []
    for path, domain in found.items():
        if domain.when is None:
            assert seen.issuperset((path, repr(value)) for value in domain.extremes)
    assert all(space.problems(corner) == [] for corner in space.corners(sorted(found), 2))


def test_conditions_are_drawn_first_and_then_by_name() -> None:
    assert SPACE.paths == ("kind", "low", "low_kind", "above", "rate")


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({"kind": "none"}, {"kind", "rate"}),
        ({"kind": "cosine"}, {"kind", "rate", "low"}),
        ({"kind": "linear", "low_kind": False}, {"kind", "rate", "low", "low_kind"}),
        ({"kind": "linear", "low_kind": True}, {"kind", "rate", "low", "low_kind", "above"}),
    ],
)
def test_only_what_conditions_admit_is_drawn(fixed: dict[str, Any], expected: set[str]) -> None:
    values = {"low": 0.5, "low_kind": True, "above": 2, "rate": 1e-3, **fixed}
    assert SPACE.suggest(optuna.trial.FixedTrial(values)).keys() == expected


@pytest.mark.parametrize(
    ("point", "problems"),
    [
        ({}, []),
        ({"kind": "cosine", "low": 1}, []),
        ({"rat": 1e-3}, ["rat: is not in the space; did you mean 'rate'?"]),
        ({"rate": 1}, ["rate: must be a number from 1e-05 to 0.01, got 1"]),
        ({"rate": True}, ["rate: must be a number from 1e-05 to 0.01, got true"]),
        ({"kind": "sine"}, ["kind: must be one of 'none', 'linear', 'cosine', got 'sine'"]),
        ({"low": 0.5}, ["low: counts only with kind, which must be given beside it"]),
        (
            {"kind": "none", "low": 0.5},
            ["low: counts only where kind is 'linear' or 'cosine', got 'none'"],
        ),
        (
            {"kind": "linear", "low_kind": True, "above": 2.0},
            ["above: must be a whole number from 1 to 3, got 2.0"],
        ),
        (
            {"kind": "linear", "low_kind": 1},
            ["low_kind: must be one of true, false, got 1"],
        ),
    ],
)
def test_a_point_that_is_not_in_the_space_is_told(
    point: dict[str, Any], problems: list[str]
) -> None:
    assert SPACE.problems(point) == problems


def test_candidates_are_counted_under_their_conditions() -> None:
    found = {
        "kind": KIND,
        "count": Domain(int_uniform=(1, 3), when={"kind": ("linear",)}),
        "flag": Domain(choice=(True, False)),
    }
    assert Space(found).count(100) == (3 + 1 + 1) * 2
    assert Space(found).count(7) == 7
    points = list(Space(found).points())
    assert len({repr(point) for point in points}) == len(points) == 10
    assert not any(Space(found).problems(point) for point in points)
    assert SPACE.count(50) == 50
    assert Space({}).count(5) == 1


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ({"low": LOW}, "low: when kind: must name a path of the space"),
        ({"low": LOW, "kind": Domain(choice=("none", "linear"))}, "to be ever met, got 'cosine'"),
        ({"low": LOW, "kind": Domain(uniform=(0, 1))}, "got a range"),
        (
            {
                "a": Domain(choice=(1, 2), when={"b": (1,)}),
                "b": Domain(choice=(1, 2), when={"a": (1,)}),
            },
            "a: when b: conditions must not go in a circle, got a, b",
        ),
        ({"a": Domain(choice=(1, 2), when={"a": (1,)})}, "must not go in a circle, got a"),
    ],
)
def test_wrong_conditions_make_no_space(found: dict[str, Domain], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Space(found)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"choice": []},
        {"choice": [1, 1.0]},
        {"choice": [1, True]},
        {"choice": [None]},
        {"choice": [math.nan]},
        {"choice": [1], "uniform": [0, 1]},
        {"uniform": [1, 1]},
        {"uniform": [0, math.inf]},
        {"uniform": [2]},
        {"uniform": ["1", "2"]},
        {"log_uniform": [-1, 1]},
        {"int_uniform": [0.5, 2]},
        {"int_uniform": [3, 2]},
        {"choice": [1], "when": {}},
        {"choice": [1], "when": {"a": []}},
        {"choice": [1], "when": {"a": None}},
        {"choice": [1], "if": {"a": 1}},
    ],
)
def test_domains_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Domain.model_validate_json(json.dumps(values), strict=True)


# What is replaced in GOOD, what by, and every line that must come of it.
BROKEN = {
    "two kinds": ("choice: [1, 2]", "choice: [1, 2], uniform: [1, 2]", [
        "11: space.future_seed.layer_start.choice: exactly one of choice, uniform, log_uniform, "
        "int_uniform must be given, got choice, uniform"]),
    "bounds turned": ("[-4.0, 2]", "[2, -4]", [
        "12: space.future_seed.alpha.uniform: low < high must hold, got low=2.0, high=-4.0"]),
    "logarithm of 0": ("uniform: [-4.0, 2]", "log_uniform: [0, 2]", [
        "12: space.future_seed.alpha.log_uniform: 0 < low must hold, got low=0.0"]),
    "value twice": ("[1, 2]", "[1, 2, 1]", [
        "11: space.future_seed.layer_start.choice: values must differ, got 1 twice"]),
    "a list as a value": ("[1, 2]", "[1, [2]]", [
        "11: space.future_seed.layer_start.choice.1: must be a single value: a number, text, "
        "true or false, got [2]"]),
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
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_space_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    assert_told(tmp_path, *BROKEN[case])
