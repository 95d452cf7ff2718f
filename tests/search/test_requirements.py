"""What a search needs of the disk, and what is refused before its first trial for want of it."""

from collections import namedtuple

import pytest
from arm_cases import SPEC, spec

from fstune.api import prepare
from fstune.errors import InputError
from fstune.search.requirements import disk_need

WAITING = SPEC.replace("trials: 4", "trials: 9, reduction_factor: 3")
"""Nine variants of a seed at the first rung, three of them with two at the last; two baselines."""
Usage = namedtuple("Usage", "total used free")


def disk_with(monkeypatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**12, 10**12 - free, free))


@pytest.mark.parametrize(
    ("change", "arms"),
    [
        (("", ""), 6 + 3 * 2 + 2),
        (("rungs:", "baseline: {train.lr: 0.02}\nrungs:"), 6 + 3 * 2 + 2),
        (("space:", "space:\n  train.lr: {uniform: [0.01, 0.02]}"), 2 * (6 + 3 * 2)),
        (("reduction_factor", "scheduler: asha, reduction_factor"), 2 + 2),
        ((", reduction_factor: 3", ", scheduler: none"), 2 + 2),
    ],
    ids=["promotes", "baseline of its own", "a baseline each", "asha", "all climb"],
)
def test_arms_that_may_still_go_on_keep_a_checkpoint(tmp_path, change, arms):
    found = disk_need(spec(tmp_path, WAITING.replace(*change)), tmp_path / "mlruns" / "new")
    one_being_written = 1
    assert found.arms == arms + one_being_written
    assert found.free > 0


def test_all_that_are_asked_for_are_kept(tmp_path):
    asked = spec(tmp_path, WAITING.replace(", reduction_factor: 3", ", scheduler: none"))
    resources = asked.resources.model_copy(update={"keep_checkpoints": "all"})
    found = disk_need(asked.model_copy(update={"resources": resources}), tmp_path)
    assert found.arms == 9 * 2 + 2 + 1


def test_a_search_is_refused_where_not_one_arm_could_be_kept(tmp_path, monkeypatch):
    each = disk_need(spec(tmp_path, SPEC), tmp_path).each
    disk_with(monkeypatch, each - 1)
    with pytest.raises(InputError, match=r"too small: up to .* MB free; free some, or .*--runs"):
        prepare(tmp_path / "spec.yaml", runs=tmp_path / "mlruns")
    assert not (tmp_path / "mlruns" / "searches").exists()
    disk_with(monkeypatch, each)
    made = prepare(tmp_path / "spec.yaml", runs=tmp_path / "mlruns")
    assert not disk_need(made.spec, made.runs).suffices
    disk_with(monkeypatch, 100 * each)
    assert disk_need(made.spec, made.runs).suffices
