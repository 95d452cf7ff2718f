"""Arm workers bring to the store what the trial itself would, and nothing else."""

import os

import pytest
from arm_cases import SPEC, bench, made, spec, trained

from fstune.arms.advance import workbench
from fstune.results.pairing import arms_of, run_rung
from fstune.search.arm_workers import ArmWorker, from_behind

OPEN = {"future_seed.alpha": 2.0}
ON_A_CPU = "resources: {gpus: 0, cpu_threads: 1}\n"


@pytest.fixture
def search(tmp_path):
    of = spec(tmp_path, more=ON_A_CPU)
    return made(tmp_path, of), of


def told(records, of):
    """What a trial would tell its arm workers at the last rung."""
    heard = []
    alone, _ = bench(records.root / "elsewhere")
    workplace = workbench(records.store, of)
    hearing = type(workplace)(alone.store, alone.device, on_begin=lambda *work: heard.append(work))
    record = run_rung(of, OPEN, 1, records.cache, hearing)
    [work] = heard
    return work, record


@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_arm_workers_do_all_arms_each_in_an_order_of_its_own(of):
    arms = ["a", "b", "c", "d", "e", "f"]
    orders = [from_behind(arms, place, of) for place in range(of)]
    assert all(sorted(order) == arms for order in orders)
    assert len({order[0] for order in orders}) == of
    assert orders[-1] == arms[::-1]


def test_a_trial_finds_what_an_arm_worker_has_trained(search):
    records, of = search
    (arms, split, step), alone = told(records, of)
    ArmWorker(str(records.root), None).train(arms, split, step)
    here, heard = bench(records.runs)
    helped = run_rung(of, OPEN, 1, records.cache, here)
    assert trained(heard) == []
    assert helped.reused == len(arms) == 4
    assert helped.facts() == alone.facts()


def test_baselines_are_brought_up_all_rungs_by_all_arm_workers_together(search):
    records, of = search
    for place in range(2):
        ArmWorker(str(records.root), None).train_baselines(OPEN, place, 2)
    here, heard = bench(records.runs)
    steps = {
        (role, both.baseline.seeds.index): here.store.evaluated_steps(getattr(both, role).digest)
        for both in arms_of(of, OPEN, records.cache, range(2))
        for role in ("baseline", "variant")
    }
    assert steps == {
        ("baseline", 0): [2, 4],
        ("baseline", 1): [4],
        ("variant", 0): [],
        ("variant", 1): [],
    }
    run_rung(of, OPEN, 1, records.cache, here)
    assert {progress.role for progress in heard if progress.doing == "train"} == {"variant"}


def test_an_arm_worker_goes_on_after_an_arm_that_diverges(tmp_path):
    of = spec(
        tmp_path,
        SPEC.partition("space:")[0],
        "fixed: {future_seed: {alpha: 0.5}}\n"
        "space: {train.lr: {log_uniform: [1e-4, 1e30]}}\n"
        "search: {trials: 4}\n" + ON_A_CPU,
    )
    records = made(tmp_path, of)
    wild, calm = (
        arms_of(of, {"train.lr": lr}, records.cache, [0])[0].variant for lr in (1e30, 1e-3)
    )
    ArmWorker(str(records.root), None).train([wild, calm], "validation", 2)
    store = workbench(records.store, of).store
    assert store.divergence(wild.digest) is not None
    assert store.evaluated_steps(calm.digest) == [2]


def test_baselines_are_everybodys_where_candidates_vary_the_mechanism_alone(tmp_path):
    assert spec(tmp_path).has_one_baseline()
    space = "  train.lr: {log_uniform: [1e-4, 1e-2]}\n"
    both = SPEC.replace("search:", space + "search:")
    assert not spec(tmp_path, both).has_one_baseline()
    assert spec(tmp_path, both, "baseline: {train.lr: 1e-3}\n").has_one_baseline()


def test_an_arm_worker_sees_the_gpus_of_its_worker(search, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ArmWorker(str(search[0].root), "3")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
