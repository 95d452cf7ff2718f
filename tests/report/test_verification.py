"""A search whose figures come out again, and one that somebody has touched."""

import json
import shutil

import numpy as np
import pytest
from arm_cases import SPEC, bench, made, spec
from typer.testing import CliRunner

from fstune.cli.commands import app
from fstune.errors import StoreError
from fstune.report.data import write_report
from fstune.report.verification import differences
from fstune.results.folder import SearchFolder
from fstune.results.pairing import confirm, run_rung
from fstune.results.records import Confirmation, EndRecord


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trial at its last rung and one that stopped before."""
    folder = tmp_path_factory.mktemp("trained")
    made_of = spec(folder)
    records = made(folder, made_of)
    for number, rungs in ((0, 2), (1, 1)):
        candidate = {"future_seed.alpha": 1.0 - number}
        records.write_candidate(number, candidate)
        for rung in range(rungs):
            record = run_rung(made_of, candidate, rung, records.cache, bench(folder)[0])
            records.write_rung(number, record)
        records.write_end(number, EndRecord("completed" if rungs == 2 else "stopped", "so"))
    write_report(records, made_of)
    records.write_spec(made_of)
    return folder


@pytest.fixture
def search(trained, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    records = SearchFolder.find(tmp_path, "small")
    return records, records.spec()


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_untouched_search_comes_out_again(search):
    assert differences(*search) == []
    records, _ = search
    done = CliRunner().invoke(app, ["verify", "small", "--runs", str(records.runs)])
    assert (done.exit_code, done.output) == (0, "every figure of small comes out again\n")


def test_a_trial_that_equals_another_needs_no_arms_of_its_own(search):
    records, made_of = search
    records.write_candidate(2, {"future_seed.alpha": 1.002}, equals=0)
    write_report(records, made_of)
    assert differences(*search) == []


def test_a_record_that_was_changed_is_found(search):
    records, _ = search

    def better(content):
        content["deltas"]["nll"]["mean"] -= 0.5
        content["verdict"] = "gain"

    changed(records.root / "trials/0000/rung-1.json", better)
    found = differences(*search)
    assert any("trial 0, rung 1: nll mean is" in line for line in found)
    assert any("trial 0, rung 1: the verdict is 'gain'" in line for line in found)
    assert any("report.json: trials.0.rungs.1.delta.nll.mean" in line for line in found)
    done = CliRunner().invoke(app, ["verify", "small", "--runs", str(records.runs)])
    assert done.exit_code == 1
    assert done.output.splitlines() == found


def test_an_outcome_that_was_changed_is_found(search):
    records, _ = search
    arm = records.rung(1, 0).arms[0].variant
    path = records.runs / "arms" / arm / "evaluations" / "000000002.npz"
    data = dict(np.load(path))
    data["measure/nll_sum"] = data["measure/nll_sum"] + 1.0
    np.savez(path, **data)
    found = differences(*search)
    assert found
    assert all(line.startswith("trial 1, rung 0") and " nll " in line for line in found)


def test_an_outcome_that_is_gone_is_said(search):
    records, _ = search
    arm = records.rung(1, 0).arms[0].variant
    (records.runs / "arms" / arm / "evaluations" / "000000002.npz").unlink()
    assert f"the evaluation of arm {arm} at step 2 is not stored" in differences(*search)[0]


def test_an_arm_of_other_settings_and_a_report_of_other_numbers_are_found(search):
    records, _ = search
    arm = records.rung(0, 0).arms[0].baseline
    changed(records.runs / "arms" / arm / "arm.json", lambda c: c["seeds"].update(order=1))
    changed(records.root / "report.json", lambda c: c.update(best=1))
    found = differences(*search)
    assert len(found) == 2
    assert "its settings are not those of the arm's digest" in found[0]
    assert found[1].endswith("best is 1, the records say 0")


def evaluation(records, arm, step=2):
    return records.runs / "arms" / arm / "evaluations" / f"{step:09d}.npz"


@pytest.mark.parametrize("content", [b"", b"PK no archive", b"\x93NUMPY"])
def test_an_outcome_that_cannot_be_read_is_said(search, content):
    records, _ = search
    arm = records.rung(1, 0).arms[0].variant
    evaluation(records, arm).write_bytes(content)
    found = differences(*search)
    assert f"{evaluation(records, arm)} is damaged: " in found[0]
    assert all(
        line.startswith(("trial 1, rung 0", f"{records.root}/report.json")) for line in found
    )


@pytest.mark.parametrize(
    ("measure", "said"),
    [(None, "do not fit together"), (lambda values: values[:-1], "do not fit together")],
)
def test_an_outcome_that_lacks_something_is_said(search, measure, said):
    records, _ = search
    path = evaluation(records, records.rung(1, 0).arms[0].variant)
    data = dict(np.load(path))
    if measure is None:
        del data["measure/nll_sum"]
    else:
        data["measure/nll_sum"] = measure(data["measure/nll_sum"])
    np.savez(path, **data)
    assert said in differences(*search)[0]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_an_arm_that_cannot_be_read_is_said(search, content):
    records, _ = search
    path = records.runs / "arms" / records.rung(0, 0).arms[0].baseline / "arm.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert any(str(path) in line for line in differences(*search))


def test_another_candidates_arm_in_its_place_is_found_though_all_figures_fit(search):
    records, made_of = search
    better = records.rung(0, 0)
    path = records.root / "trials/0001/rung-0.json"
    path.write_text((records.root / "trials/0000/rung-0.json").read_text())
    write_report(records, made_of)
    arm = better.arms[0].variant
    found = differences(*search)
    assert f"trial 1, rung 0: arm {arm} is not of its candidate and seed 0" in found
    assert all(" the outcomes say " not in line for line in found)


def test_a_shut_gate_that_is_only_told_is_found(search):
    records, made_of = search
    changed(
        records.root / "trials/0001/rung-0.json",
        lambda content: content.update(largest_gate=0.0, verdict="no effect"),
    )
    write_report(records, made_of)
    [line] = differences(*search)
    assert "trial 1, rung 0: the largest gate is 0.0, its settings say " in line


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(seeds=3),
        lambda c: c["deltas"].pop("nll"),
        lambda c: c["curve"].clear(),
    ],
    ids=["seeds", "a metric", "the curve"],
)
def test_a_record_that_tells_too_much_or_too_little_is_found(search, change):
    records, made_of = search
    changed(records.root / "trials/0001/rung-0.json", change)
    write_report(records, made_of)
    [line] = differences(*search)
    assert line.startswith("trial 1, rung 0: ")


def test_a_record_that_cannot_be_read_is_an_error_without_a_traceback(search):
    records, _ = search
    path = records.root / "trials/0001/rung-0.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(StoreError, match=r"rung-0\.json is damaged"):
        differences(*search)


@pytest.mark.parametrize("equals", [1, 7])
def test_a_trial_that_equals_none_before_it_is_an_error_without_a_traceback(search, equals):
    records, _ = search
    changed(records.root / "trials/0001/candidate.json", lambda c: c.update(equals=equals))
    with pytest.raises(StoreError, match=r"0001/candidate\.json is damaged: trial ., which"):
        differences(*search)


def test_what_differs_is_told_in_a_line_that_can_be_read(search):
    records, _ = search
    changed(records.root / "report.json", lambda c: c["trials"].pop())
    [line] = differences(*search)
    assert line.endswith("report.json: trials is a list of 1, the records say a list of 2")


@pytest.fixture
def confirmed(tmp_path):
    """A search with two finalists, of which the first alone is confirmed."""
    text = SPEC.replace("validation_size: 6", "validation_size: 6, test_size: 5")
    made_of = spec(tmp_path, text + "confirm: {finalists: 2, looks: fixed, seeds: 2}\n")
    records = made(tmp_path, made_of)
    for number in (0, 1):
        candidate = {"future_seed.alpha": 1.0 - number}
        records.write_candidate(number, candidate)
        for rung in (0, 1):
            record = run_rung(made_of, candidate, rung, records.cache, bench(tmp_path)[0])
            records.write_rung(number, record)
        records.write_end(number, EndRecord("completed", "so"))
    records.write_finalists([0, 1])
    found = confirm(made_of, {"future_seed.alpha": 1.0}, 2, records.cache, bench(tmp_path)[0])
    records.write_confirmation(0, Confirmation(found, 1.0))
    write_report(records, made_of)
    return records, made_of


def test_a_confirmation_that_is_not_through_comes_out_again(confirmed):
    assert differences(*confirmed) == []


def test_finalists_that_were_changed_are_found(confirmed):
    records, _ = confirmed
    records.write_finalists([0])
    assert any("trial 0, confirmation: nll low is" in line for line in differences(*confirmed))
    records.write_finalists([1])
    assert "it is none of the finalists" in differences(*confirmed)[0]


def test_a_confirmations_arm_of_other_settings_is_found(confirmed):
    records, _ = confirmed
    arm = records.confirmation(0).comparison.arms[1].variant
    changed(records.runs / "arms" / arm / "arm.json", lambda c: c["seeds"].update(order=1))
    [line] = differences(*confirmed)
    assert f"{arm}/arm.json: its settings are not those of the arm's digest" in line
