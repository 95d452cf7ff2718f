"""Two variants set against each other: paired, refused, or shown without a delta."""

import shutil

import numpy as np
import pytest
from arm_cases import SPEC, bench, made, spec
from typer.testing import CliRunner

from fstune.arms.store import ArmStore
from fstune.cli.commands import app
from fstune.errors import InputError
from fstune.report.side_by_side import ComparedVariant, delta_between, different_context
from fstune.results.folder import SearchFolder
from fstune.results.pairing import run_rung


def searched(folder, text, alphas):
    """A search whose trials have come to their last rung, but for the last one: to the first."""
    made_of = spec(folder, text)
    records = made(folder, made_of)
    for number, alpha in enumerate(alphas):
        candidate = {"future_seed.alpha": alpha}
        records.write_candidate(number, candidate)
        for rung in range(1 if number == len(alphas) - 1 else 2):
            found = run_rung(made_of, candidate, rung, records.cache, bench(folder)[0])
            records.write_rung(number, found)
    return records


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three searches, the last in another context."""
    folder = tmp_path_factory.mktemp("trained")
    searched(folder, SPEC, [1.0, -1.0, 2.0])
    searched(folder, SPEC.replace("name: small", "name: again"), [0.0, 1.5])
    other = SPEC.replace("name: small", "name: other").replace("lr: 1e-2", "lr: 2e-2")
    searched(folder, other.replace("train_size: 10", "train_size: 11"), [1.0, 2.0])
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    """A copy of the searches that a test may change."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def test_the_delta_is_over_the_same_examples_at_the_last_common_step(runs):
    one, other = ComparedVariant.find("small:0", runs), ComparedVariant.find("again:0", runs)
    assert different_context(one, other) == {}
    step, seeds, deltas = delta_between(one, other)
    assert (step, seeds) == (4, 2)
    store = ArmStore(runs / "arms")
    means = []
    for side in (one, other):
        found = [store.outcome(side.arms[seed], 4).measures for seed in (0, 1)]
        per_seed = [np.mean(each["nll_sum"] / each["total"]) for each in found]
        means.append(np.mean(per_seed))
    assert deltas["nll"].mean == pytest.approx(means[1] - means[0])
    assert deltas["nll"].mean != 0
    # One that stopped early is compared where it stopped.
    assert delta_between(one, ComparedVariant.find("small:2", runs))[:2] == (2, 1)


def test_other_contexts_are_refused_with_the_fields_that_differ(runs):
    done = CliRunner().invoke(app, ["compare", "small:0", "other:0", "--runs", str(runs)])
    assert done.exit_code == 1
    assert isinstance(done.exception, InputError)
    said = str(done.exception)
    assert "small:0 and other:0 have different contexts" in said
    assert "  train.lr: 0.01 and 0.02" in said
    assert "  task.train_size: 10 and 11" in said
    assert "  train_digest: " in said
    assert "future_seed" not in said
    assert said.endswith("see them side by side with --unmatched")


def test_what_only_later_seeds_differ_in_is_refused_too(tmp_path):
    searched(tmp_path, SPEC, [1.0, -1.0])
    text = SPEC.replace("name: small", "name: fixed_order") + "seeds: {order: false}\n"
    searched(tmp_path, text, [1.0, -1.0])
    sides = [ComparedVariant.find(f"{name}:0", tmp_path) for name in ("small", "fixed_order")]
    assert list(different_context(*sides)) == ["seeds.order"]
    done = CliRunner().invoke(app, ["compare", "small:0", "fixed_order:0", "--runs", str(tmp_path)])
    assert isinstance(done.exception, InputError)


def test_a_trial_that_equals_another_is_shown_by_its_own_setting(runs):
    records = SearchFolder.find(runs, "small")
    records.write_candidate(3, {"future_seed.alpha": 1.001}, equals=0)
    side = ComparedVariant.find("small:3", runs)
    assert side.trial.candidate == {"future_seed.alpha": 1.001}
    assert side.arms == ComparedVariant.find("small:0", runs).arms


def test_unmatched_shows_both_and_no_delta(runs):
    command = ["compare", "small:0", "other", "--unmatched", "--runs", str(runs)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "small:0  alpha=1" in done.output
    assert "other:0  alpha=1" in done.output
    assert "unmatched, no delta between them; they differ in" in done.output
    assert "minus" not in done.output


def test_a_search_stands_for_its_best_trial(runs):
    best = max(
        (0, 1), key=lambda n: ComparedVariant.find(f"small:{n}", runs).trial.rungs[-1].objective
    )
    assert ComparedVariant.find("small", runs).label == f"small:{best}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no search is called 'nobody'"),
        ("small:7", "small has no trial 7; it has 0 to 2"),
        ("small:x", "small has no trial x; it has 0 to 2"),
    ],
)
def test_what_is_not_there_is_said(runs, name, said):
    with pytest.raises(InputError, match=said):
        ComparedVariant.find(name, runs)


def test_a_trial_without_a_rung_is_refused(runs):
    records = ComparedVariant.find("small:0", runs).store.root.parent / "searches" / "small"
    for path in (records / "trials/0002").glob("rung-*.json"):
        path.unlink()
    with pytest.raises(InputError, match="small:2 has not come to a rung"):
        ComparedVariant.find("small:2", runs)
