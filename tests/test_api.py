"""Searches from Python: the tables say what the records say."""

import inspect
import os
import subprocess
import sys

import pandas as pd
import pytest
from arm_cases import SPEC
from report_cases import CORRECT, searched

from fstune import api
from fstune.errors import InputError
from fstune.report.data import as_json
from fstune.results.ranking import ranked
from tasks import registry


@pytest.fixture
def found(tmp_path):
    searched(tmp_path / "mlruns")
    return api.load("small", tmp_path / "mlruns")


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    (tmp_path / "mlruns").mkdir()


def test_the_trials_are_those_of_the_report_in_its_order(found):
    told = as_json(found.records, found.spec)
    table = found.trials
    assert list(table.index) == [trial.number for trial in ranked(found.records.trials())]
    assert found.best is not None
    assert found.best.number == told["best"] == table.index[0]
    for trial in told["trials"]:
        row = table.loc[trial["number"]]
        assert row["future_seed.alpha"] == trial["candidate"]["future_seed.alpha"]
        assert (row["verdict"], row["state"]) == (trial["verdict"], trial["state"])
        assert row["rungs"] == len(trial["rungs"])
        if not trial["rungs"]:
            assert pd.isna(row["delta"])
            continue
        last = trial["rungs"][-1]
        delta = last["delta"]["token_accuracy"]
        assert (row["steps"], row["seeds"]) == (last["steps"], last["seeds"])
        assert (row["delta"], row["low"], row["high"]) == tuple(
            delta[name] for name in ("mean", "low", "high")
        )
        assert row["baseline"] == last["baseline"]["token_accuracy"]
        assert row["q_value"] == trial["q_value"]
    assert list(table["confirmed"].dropna()) == ["gain", "diverged"]
    assert list(table["confirmed_delta"].dropna()) == [0.25]


def test_the_deltas_are_all_points_of_all_curves_in_every_metric(found):
    trials = found.records.trials()
    points = [point for trial in trials for rung in trial.rungs for point in rung.curve]
    confirmed = [
        trial.confirmation.comparison
        for trial in trials
        if trial.confirmation and trial.confirmation.comparison
    ]
    table = found.deltas
    assert len(table) == sum(len(each.deltas) for each in [*points, *confirmed])
    assert set(table["metric"]) == {name for point in points for name in point.deltas}
    one = table[(table["trial"] == 1) & table["at_rung"] & (table["metric"] == "token_accuracy")]
    assert list(one["compared"]) == ["search", "search", "confirmation"]
    assert [None if pd.isna(rung) else rung for rung in one["rung"]] == [0, 1, None]
    assert list(one["delta"]) == [0.15, 0.3, 0.25]
    assert (table["variant"] - table["baseline"] - table["delta"]).abs().max() < 1e-9


def test_the_arms_have_the_scores_of_their_stored_outcomes(found):
    table = found.arms
    stored = table.dropna(subset=["token_accuracy"])
    assert set(stored["digest"]) <= {f"{name}{seed}" for name in CORRECT for seed in range(2)}
    assert len(stored)
    for _, row in stored.iterrows():
        outcome = found.store.outcome(row["digest"], int(row["step"]))
        assert outcome is not None
        right = outcome.measures["correct"].sum() / outcome.measures["total"].sum()
        assert row["token_accuracy"] == pytest.approx(right)
        assert row["arm"] == ("baseline" if row["digest"].startswith("base") else "variant")
        assert row["train_tokens"] == outcome.train_tokens
    assert set(registry.get("rightcopy").metrics[0].needs) <= set(outcome.measures)
    elsewhere = table[table["step"] == 2]
    assert len(elsewhere)
    assert elsewhere["token_accuracy"].isna().all()


def test_tables_of_a_search_that_has_only_begun_are_empty_and_have_their_columns(tmp_path):
    records, _ = searched(tmp_path / "mlruns")
    for path in (records.root / "trials").iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    found = api.load("small", str(tmp_path / "mlruns"))
    assert found.best is None
    for table, column in ((found.trials, "delta"), (found.deltas, "metric"), (found.arms, "nll")):
        assert len(table) == 0
        assert column in table.columns


def test_every_column_is_in_the_docstring(found):
    """Metrics and paths, which are the search's own, aside."""
    own = {*found.spec.space, *(metric.name for metric in registry.get("rightcopy").metrics)}
    for name in ("trials", "deltas", "arms"):
        told = inspect.getdoc(getattr(api.Found, name))
        assert told is not None
        for column in set(getattr(found, name).columns) - own:
            assert f"`{column}`" in told, (name, column)


def test_what_is_not_there_is_refused_as_on_the_command_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no search is called 'smal'"):
        api.load("smal", tmp_path / "mlruns")
    (tmp_path / "bad.yaml").write_text(SPEC.replace("lr: 1e-2", "lr: -1"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        api.search(tmp_path / "bad.yaml", overrides={"search.trials": 0})
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "search.trials",
        "train.lr",
    ]
    assert not (tmp_path / "mlruns" / "searches").exists()


def test_the_import_is_light(tmp_path):
    code = """if True:
        import sys
        import fstune.api
        print(sorted({"torch", "ray", "mlflow", "optuna", "pandas"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "[]"


RUN = """\
import json
from fstune.api import load, search
from fstune.report.data import as_json

CHANGES = {"search.trials": 2, "resources.cpu_threads": 1}
found = search("small.yaml", overrides=CHANGES)
told = json.dumps(as_json(found.records, found.spec))
assert found.spec.search.trials == len(found.trials) == 2
assert found.trials["delta"].notna().all()
assert found.arms["token_accuracy"].notna().all()
again = search("small.yaml", overrides=CHANGES, resume=True)
assert json.dumps(as_json(again.records, again.spec)) == told
assert load("small").trials.equals(found.trials)
search("small.yaml")
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_search_runs_to_its_end_is_taken_up_again_and_not_begun_twice(tmp_path):
    (tmp_path / "small.yaml").write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "InputError: a search called 'small' exists" in done.stderr, done.stderr[-2000:]
