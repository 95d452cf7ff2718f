"""Deltas by group of examples, held against those of splits that have only such examples."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arm_cases import outcome, rung_record, spec

from fstune.arms.arm import Pair
from fstune.arms.store import ArmStore
from fstune.report.figures import page_svg
from fstune.report.groups import MOST_VALUES, RANGES, GroupDeltas, group_deltas
from fstune.report.summary import Figure
from fstune.results.deltas import paired_deltas
from fstune.specs.sections import SearchSpec
from tasks import registry

NUM_EXAMPLES = 60
DEPTH = np.arange(NUM_EXAMPLES) % 3 * 0.5


@pytest.fixture
def made_of(tmp_path, monkeypatch) -> SearchSpec:
    monkeypatch.setattr(type(registry.get("rightcopy")), "groups", ("depth", "length"))
    return spec(tmp_path)


def stored(folder: Path, measures: dict[str, Sequence[float]]) -> ArmStore:
    """Two seeds' arms at the last rung; the variant is right where the depth is 1."""
    store = ArmStore(folder / "arms")
    rng = np.random.default_rng(0)
    for seed in range(2):
        for name, right in (("base", 0.2), ("variant", np.where(DEPTH == 1, 0.9, 0.2))):
            correct = rng.random(NUM_EXAMPLES) < right
            known = {"arm": f"{name}{seed}", "seed_index": seed, "step": 4}
            made = outcome(correct, **known)
            more = {key: np.array(values, dtype=float) for key, values in measures.items()}
            store.save_outcome(replace(made, measures={**made.measures, **more}))
    return store


def test_a_groups_delta_is_that_of_a_split_of_its_examples_alone(tmp_path, made_of):
    store = stored(tmp_path, {"depth": DEPTH, "length": [7.0] * NUM_EXAMPLES})
    at = rung_record(1)
    found = group_deltas(made_of, 5, at, store)
    assert found is not None
    # All examples are of one length, which therefore tells nothing apart.
    assert [(row.measure, row.label, row.examples) for row in found.rows] == [
        ("depth", label, 20) for label in ("0", "0.5", "1")
    ]
    (metric,) = [m for m in registry.get("rightcopy").metrics if m.name == "token_accuracy"]
    for row, depth in zip(found.rows, (0.0, 0.5, 1.0), strict=True):
        pairs = []
        for seed in range(2):
            sides = []
            for name in ("base", "variant"):
                whole = store.outcome(f"{name}{seed}", 4).measures["correct"]
                sides.append(outcome(whole[depth == DEPTH], seed_index=seed, step=4))
            pairs.append(Pair(*sides))
        assert row.delta == paired_deltas(pairs, [metric])["token_accuracy"]
        assert np.mean(row.by_seed) == pytest.approx(row.delta.mean)
    assert found.rows[2].delta.mean > 0.3
    assert found.sheet().rows[2][:3] == ("depth", "1", 20)


def test_many_values_are_divided_into_ranges(tmp_path, made_of):
    length = np.random.default_rng(1).permutation(NUM_EXAMPLES) + 100.0
    found = group_deltas(made_of, 5, rung_record(1), stored(tmp_path, {"length": length}))
    assert found is not None
    assert NUM_EXAMPLES > MOST_VALUES
    assert len(found.rows) == RANGES
    assert [row.label for row in found.rows] == [
        "100 to 114",
        "115 to 129",
        "130 to 143",
        "144 to 159",
    ]
    assert sum(row.examples for row in found.rows) == NUM_EXAMPLES


def test_nothing_is_shown_where_nothing_is_known(tmp_path, made_of, monkeypatch):
    assert group_deltas(made_of, 5, rung_record(1), ArmStore(tmp_path / "none")) is None
    store = stored(tmp_path, {"other": DEPTH})
    assert group_deltas(made_of, 5, rung_record(1), store) is None
    monkeypatch.setattr(type(registry.get("rightcopy")), "groups", ())
    assert group_deltas(made_of, 5, rung_record(1), stored(tmp_path, {"depth": DEPTH})) is None


@pytest.mark.parametrize("narrow", [False, True])
def test_the_figure_names_measures_and_groups(tmp_path, made_of, narrow):
    found = group_deltas(made_of, 5, rung_record(1), stored(tmp_path, {"depth": DEPTH}))
    assert isinstance(found, GroupDeltas)
    drawn = page_svg(Figure("groups", "by group", "", found), narrow)
    for text in ("depth", "0.5 (n = 20)", "token_accuracy"):
        assert text in drawn
