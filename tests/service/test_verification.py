"""A search whose figures come out again, and one that somebody has touched."""

import json

import numpy as np
import pytest
from arm_cases import bench, made, spec
from typer.testing import CliRunner

from fstune.cli import app
from fstune.pairing import run_rung
from fstune.records import EndRecord
from fstune.report import write_report
from fstune.spec import write_resolved
from fstune.verification import differences


@pytest.fixture
def search(tmp_path):
    """A trial at its last rung and one that stopped before."""
    made_of = spec(tmp_path)
    records = made(tmp_path, made_of)
    for number, rungs in ((0, 2), (1, 1)):
        candidate = {"future_seed.alpha": 1.0 - number}
        records.write_candidate(number, candidate)
        for rung in range(rungs):
            record = run_rung(made_of, candidate, rung, records.cache, bench(tmp_path)[0])
            records.write_rung(number, record)
        records.write_end(number, EndRecord("completed" if rungs == 2 else "stopped", "so"))
    write_report(records, made_of)
    write_resolved(made_of, records.spec)
    return records, made_of


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_untouched_search_comes_out_again(search):
    assert differences(*search) == []
    records, _ = search
    done = CliRunner().invoke(app, ["verify", "small", "--runs", str(records.runs)])
    assert (done.exit_code, done.output) == (0, "every figure of small comes out again\n")


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
