import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_cases import CPU, SPEC, bench, spec, trained

from fstune.arms.advance import DivergedError
from fstune.arms.arm import Pair
from fstune.arms.store import ArmStore
from fstune.arms.trainer import ArmTrainer
from fstune.errors import FstuneError
from fstune.results.deltas import paired_deltas
from fstune.results.learning import Grounds
from fstune.results.pairing import arms_of, run_rung
from fstune.results.records import RungRecord
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import VariedSeeds
from tasks import registry

OPEN = {"future_seed.alpha": 2.0}
SHUT = {"future_seed.alpha": -30.0}


def rung_of(
    folder: Path, made: SearchSpec, candidate: dict[str, Any], rung: int = 0, every: int = 0
) -> RungRecord:
    return run_rung(made, candidate, rung, folder / "cache", bench(folder, every)[0])


def stored(folder: Path, digest: str, step: int) -> Any:
    """An evaluation, read without the service."""
    return np.load(folder / "arms" / digest / "evaluations" / f"{step:09d}.npz")


def arm_settings(folder: Path, digest: str) -> dict[str, Any]:
    text = (folder / "arms" / digest / "arm.json").read_text()
    settings: dict[str, Any] = json.loads(text)["settings"]
    return settings


def accuracy(data: Any) -> Any:
    return data["measure/correct"] / data["measure/total"]


@pytest.mark.parametrize("rung", [0, 1])
def test_a_delta_is_what_the_stored_evaluations_say(tmp_path, rung):
    record = rung_of(tmp_path, spec(tmp_path), OPEN, rung)
    step, seeds = [(2, 1), (4, 2)][rung]
    assert (record.rung, record.steps, record.seeds) == (rung, step, seeds)
    assert [pair.seed for pair in record.arms] == list(range(seeds))
    values = {
        name: [
            (
                value(stored(tmp_path, pair.baseline, step)),
                value(stored(tmp_path, pair.variant, step)),
            )
            for pair in record.arms
        ]
        for name, value in (
            ("token_accuracy", accuracy),
            ("nll", lambda data: data["measure/nll_sum"] / data["measure/total"]),
            ("exact_match", lambda data: 1.0 * (data["measure/correct"] == data["measure/total"])),
        )
    }
    assert set(record.deltas) == set(values)
    for name, pairs in values.items():
        delta = record.deltas[name]
        assert delta.baseline == pytest.approx(np.mean([b for b, _ in pairs]), abs=1e-12)
        assert delta.variant == pytest.approx(np.mean([v for _, v in pairs]), abs=1e-12)
        assert delta.mean == pytest.approx(np.mean([v - b for b, v in pairs]), abs=1e-12)
    assert record.deltas["nll"].mean != 0
    assert record.objective == record.deltas["token_accuracy"].low


def test_the_objective_may_be_a_mean_and_a_metric_where_less_is_better(tmp_path):
    made = spec(tmp_path, more="objective: {metric: nll, bound: mean}\n")
    first, last = (rung_of(tmp_path, made, OPEN, rung) for rung in (0, 1))
    assert last.objective == -last.deltas["nll"].mean
    assert first.objective != -first.deltas["nll"].mean, "before the last, what it may still be"


def test_a_likelihood_is_held_against_the_model_before_training(tmp_path):
    made = spec(tmp_path, more="objective: {metric: nll}\n")
    record = rung_of(tmp_path, made, OPEN)
    untrained = ArmStore(tmp_path / "arms").outcome(record.untrained, 0)
    assert record.untrained == record.arms[0].baseline
    assert untrained.train_tokens == 0
    (first,) = arms_of(made, OPEN, tmp_path / "cache", [0])
    fresh = ArmTrainer(first.baseline, first.baseline_data, CPU).outcome()
    assert np.array_equal(untrained.measures["nll_sum"], fresh.measures["nll_sum"])


def test_arms_that_guess_have_learnt_nothing(tmp_path):
    made = spec(tmp_path)
    arguments = (made, OPEN, 0, tmp_path / "cache", bench(tmp_path)[0])
    guesses = {"chance": {"token_accuracy": 0.1}}
    record = run_rung(*arguments, Grounds(guesses=guesses))
    assert (record.verdict, record.guessed) == ("not learnt", "chance")
    assert not record.settled, "it may still learn"
    older = run_rung(*arguments, Grounds(rules=2, guesses=guesses))
    assert (older.verdict, older.guessed, older.promise) == ("no effect", "", None)
    assert older.objective == older.deltas["token_accuracy"].low


def test_the_baseline_is_trained_once_for_all_candidates(tmp_path):
    made = spec(tmp_path)
    first = rung_of(tmp_path, made, OPEN, 1)
    files = [path for pair in first.arms for path in (tmp_path / "arms" / pair.baseline).rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in files if path.is_file()}
    assert len(before) > 6
    second = rung_of(tmp_path, made, SHUT, 1)
    assert [pair.baseline for pair in second.arms] == [pair.baseline for pair in first.arms]
    assert {pair.variant for pair in second.arms}.isdisjoint(pair.variant for pair in first.arms)
    # The lock is touched by whoever asks.
    changed = {path.name for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed <= {"lock"}


def test_arms_that_were_trained_this_far_before_are_counted(tmp_path):
    made = spec(tmp_path)
    assert rung_of(tmp_path, made, OPEN).reused == 0
    assert rung_of(tmp_path, made, SHUT).reused == 1
    # Another step is another comparison; done again, all four arms are there.
    assert [rung_of(tmp_path, made, OPEN, 1).reused for _ in range(2)] == [0, 4]


def test_each_arms_progress_says_which_of_the_pair_it_is(tmp_path):
    place, told = bench(tmp_path)
    run_rung(spec(tmp_path), OPEN, 1, tmp_path / "cache", place)
    order = list(dict.fromkeys((progress.role, progress.seed) for progress in told))
    assert order == [("variant", 0), ("variant", 1), ("baseline", 0), ("baseline", 1)]


def test_a_rung_goes_on_from_the_one_before(tmp_path):
    made = spec(tmp_path)
    workbench, told = bench(tmp_path)
    run_rung(made, OPEN, 0, tmp_path / "cache", workbench)
    assert trained(told) == [1, 2] * 2
    told.clear()
    run_rung(made, OPEN, 1, tmp_path / "cache", workbench)
    assert trained(told) == [3, 4, 1, 2, 3, 4] * 2
    told.clear()
    record = run_rung(made, OPEN, 1, tmp_path / "cache", workbench)
    assert told == []
    assert record.facts() == rung_of(tmp_path / "elsewhere", made, OPEN, 1).facts()


def test_a_gate_that_is_shut_gets_no_effect(tmp_path):
    # With a margin of nothing only the rule on gates can say so.
    made = spec(tmp_path, more="objective: {margin: 0.0, metric: nll}\n")
    record = rung_of(tmp_path, made, SHUT, 1)
    assert record.verdict == "no effect"
    assert 0 < record.largest_gate < 1e-12


def test_a_seed_scale_that_is_tiny_gets_no_effect(tmp_path):
    more = "fixed: {future_seed: {seed_scale: 1e-9}}\nobjective: {margin: 0.0, metric: nll}\n"
    record = rung_of(tmp_path, spec(tmp_path, more=more), OPEN)
    assert record.verdict == "no effect"


def test_a_shut_gate_says_nothing_where_the_baseline_differs_in_more(tmp_path):
    more = "baseline: {future_seed.alpha: 2.0}\nobjective: {margin: 0.0, metric: nll}\n"
    record = rung_of(tmp_path, spec(tmp_path, more=more), SHUT)
    assert record.deltas["nll"].mean != 0
    assert record.verdict != "no effect"
    more = "baseline: {train.lr: 0.2}\nobjective: {margin: 0.0, metric: nll}\n"
    record = rung_of(tmp_path, spec(tmp_path, more=more), SHUT)
    assert abs(record.deltas["nll"].mean) > 0.01
    assert record.verdict != "no effect"


def test_a_learning_rate_that_varies_belongs_to_both_arms(tmp_path):
    text = SPEC.replace("space:\n", "space:\n  train.lr: {choice: [0.01, 0.02]}\n")
    made = spec(tmp_path, text)
    records = [rung_of(tmp_path, made, OPEN | {"train.lr": lr}) for lr in (0.01, 0.02)]
    arms = [record.arms[0] for record in records]
    assert arms[0].baseline != arms[1].baseline
    for arm, lr in zip(arms, (0.01, 0.02), strict=True):
        for digest in (arm.baseline, arm.variant):
            assert arm_settings(tmp_path, digest)["train"]["lr"] == lr
        assert arm_settings(tmp_path, arm.baseline)["future_seed"] is None


def test_a_baseline_of_its_own_differs_in_just_what_it_says(tmp_path):
    made = spec(tmp_path, more="baseline: {train.lr: 0.001}\n")
    record = rung_of(tmp_path, made, OPEN)
    baseline, variant = (
        arm_settings(tmp_path, digest)
        for digest in (record.arms[0].baseline, record.arms[0].variant)
    )
    assert (baseline["train"].pop("lr"), variant["train"].pop("lr")) == (0.001, 0.01)
    assert baseline.pop("future_seed") is None
    assert variant.pop("future_seed")["alpha"] == 2.0
    assert baseline == variant


def hotpot_rows(first: int, count: int) -> str:
    rows = []
    for n in range(first, first + count):
        title = f"Title {n}"
        row = {
            "question": f"How old is {n}?",
            "answer": f"{n} years",
            "context": {"title": [title], "sentences": [[f"It is {n} years old."]]},
            "supporting_facts": {"title": [title]},
        }
        rows.append(json.dumps(row))
    return "\n".join(rows)


def test_one_order_of_the_prompt_can_be_the_baseline_of_another(tmp_path):
    for number, name in enumerate(("train", "validation")):
        (tmp_path / f"{name}.jsonl").write_text(hotpot_rows(100 * number, 8))
    task = (
        "task: {name: hotpot, order: question_first, train_size: 6, validation_size: 4, "
        f"files: {{train: {tmp_path}/train.jsonl, validation: {tmp_path}/validation.jsonl}}}}\n"
    )
    start, end = SPEC.index("task:"), SPEC.index("train:")
    text = SPEC[:start] + task + SPEC[end:] + "baseline: {task.order: question_last}\n"
    record = rung_of(tmp_path, spec(tmp_path, text), OPEN)
    orders = [
        arm_settings(tmp_path, digest)["task"]["order"]
        for digest in (record.arms[0].baseline, record.arms[0].variant)
    ]
    assert orders == ["question_last", "question_first"]
    assert record.deltas["nll"].mean != 0


def test_a_schedule_without_an_end_lasts_until_the_last_rung(tmp_path):
    text = SPEC.replace("batch_size: 3}", "batch_size: 3, lr_schedule: linear}")
    made = spec(tmp_path, text)
    record = rung_of(tmp_path, made, OPEN, 1)
    for digest in (record.arms[0].baseline, record.arms[0].variant):
        assert arm_settings(tmp_path, digest)["train"]["lr_total_steps"] == 4


@pytest.mark.parametrize(("rung", "wanted"), [(0, [1, 2]), (1, [3, 4])])
def test_a_rungs_curve_holds_every_evaluation_since_the_rung_before(tmp_path, rung, wanted):
    made = spec(tmp_path)
    for k in range(rung + 1):
        record = rung_of(tmp_path, made, OPEN, k, every=1)
    assert [point.step for point in record.curve] == wanted
    assert record.curve[-1].deltas == record.deltas
    store = bench(tmp_path)[0].store
    for point in record.curve:
        outcomes = [
            (store.outcome(pair.baseline, point.step), store.outcome(pair.variant, point.step))
            for pair in record.arms
        ]
        assert point.ended_at == max(variant.ended_at for _, variant in outcomes)
        pairs = [Pair(baseline, variant) for baseline, variant in outcomes]
        assert point.deltas == paired_deltas(pairs, registry.get("rightcopy").metrics)


def test_a_rung_without_evaluations_on_the_way_has_one_point(tmp_path):
    record = rung_of(tmp_path, spec(tmp_path), OPEN, 1)
    assert [point.step for point in record.curve] == [4]


def test_an_arm_that_diverges_ends_the_rung(tmp_path):
    made = spec(tmp_path, SPEC.replace("lr: 1e-2", "lr: 1e30"))
    with pytest.raises(DivergedError):
        rung_of(tmp_path, made, OPEN)


def test_a_measure_that_is_no_number_has_no_verdict(tmp_path):
    made = spec(tmp_path)
    arm = rung_of(tmp_path, made, OPEN).arms[0].variant
    path = tmp_path / "arms" / arm / "evaluations" / "000000002.npz"
    data = dict(np.load(path))
    data["measure/correct"][3] = np.nan
    np.savez(path, **data)
    with pytest.raises(FstuneError, match=r"token_accuracy is .* for the variant at step 2: every"):
        rung_of(tmp_path, made, OPEN)


def test_arms_of_a_candidate_share_seeds_and_data(tmp_path):
    arms = arms_of(spec(tmp_path), OPEN, tmp_path / "cache", range(3))
    assert [both.variant.seeds.index for both in arms] == [0, 1, 2]
    for both in arms:
        assert both.baseline_data is both.variant_data
        assert both.baseline.seeds == both.variant.seeds
        assert both.baseline.train_digest == both.variant.train_digest
        assert both.baseline.evaluated_digest == both.variant.evaluated_digest
    assert arms_of(spec(tmp_path), OPEN, tmp_path / "cache", range(2)) == arms[:2]


@pytest.mark.parametrize("moved", ["order", "data", "init", "generation"])
def test_repetitions_differ_in_what_the_spec_says(tmp_path, moved):
    seeds = {stream: stream == moved for stream in ("order", "data", "init", "generation")}
    made = spec(tmp_path).model_copy(update={"seeds": VariedSeeds(**seeds)})
    arms = [both.variant for both in arms_of(made, OPEN, tmp_path / "cache", range(3))]
    different = {
        "order": len({arm.seeds.order for arm in arms}),
        "data": len({arm.train_digest for arm in arms}),
        "init": len({arm.seeds.init for arm in arms}),
        "generation": len({arm.seeds.generation for arm in arms}),
    }
    assert different == {stream: 3 if stream == moved else 1 for stream in seeds}
    assert len({arm.evaluated_digest for arm in arms}) == 1


def test_a_constant_answer_is_flagged(tmp_path):
    # Nothing is learnt in two steps: a new model says the same everywhere.
    record = rung_of(tmp_path, spec(tmp_path), OPEN, 0)
    stored_flags = set()
    for pair in record.arms:
        for arm in ("baseline", "variant"):
            data = stored(tmp_path, getattr(pair, arm), record.steps)
            said = json.loads(str(data["rest"]))["diagnostics"]["answers/most_common"]
            if said > 0.9:
                stored_flags.add(f"{arm}: one answer for nearly all examples")
    assert set(record.flags) == stored_flags
