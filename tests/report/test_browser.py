"""A search's pages in a real browser: the report, and what MLflow's UI shows of it.

Screenshots go to the folder that FSTUNE_ARTIFACTS names, where continuous integration keeps them.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from search_process import NAME, Place

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not BROWSER, reason="no Chromium to look with"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("looked-at"))
    assert place.search().wait() == 0, place.output()
    return place


@pytest.fixture(scope="module")
def url(place):
    """Of MLflow's UI on the search's runs."""
    command = [sys.executable, "-m", "fstune.cli", "ui", "--runs", str(place.runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ui:
        assert ui.stdout is not None
        yield ui.stdout.readline().split()[1]
        ui.send_signal(signal.SIGTERM)


def seen(address, picture, tmp_path, width=1200):
    """The page's text as the browser has it after its scripts have run; a screenshot is kept."""
    kept = Path(os.environ.get("FSTUNE_ARTIFACTS", str(tmp_path)))
    kept.mkdir(parents=True, exist_ok=True)
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1600",
        "--virtual-time-budget=20000",
    ]  # fmt: skip
    shot = kept / f"{picture}.png"
    subprocess.run([*command, f"--screenshot={shot}", address], capture_output=True, check=True)
    assert shot.stat().st_size > 10_000
    page = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, check=True
    )
    return page.stdout


@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_shows_answer_figures_and_table(place, tmp_path, width):
    page = seen(f"file://{place.records / 'report.html'}", f"report-{width}", tmp_path, width)
    for wanted in ("<svg", "rightcopy", "alpha", "fstune search"):
        assert wanted in page


def test_the_ui_lists_the_search_and_its_trials(place, url, tmp_path):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{place.runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(NAME)
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "fstune.trial" not in run.data.tags]
    listed = seen(f"{url}/#/experiments/{experiment.experiment_id}/runs", "mlflow-runs", tmp_path)
    assert NAME in listed
    run = f"{url}/#/experiments/{experiment.experiment_id}/runs/{parent.info.run_id}"
    assert "What was asked" in seen(run, "mlflow-search", tmp_path)
    artifacts = seen(f"{run}/artifacts", "mlflow-artifacts", tmp_path)
    assert "report.html" in artifacts


def test_both_arms_of_a_trial_are_drawn_on_one_axis(place, url, tmp_path):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{place.runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(NAME).experiment_id
    arms = client.search_runs(
        [experiment], "tags.`fstune.trial` = '0' and tags.`fstune.role` != ''"
    )
    assert len(arms) == 2
    runs = quote(json.dumps([run.info.run_id for run in arms]))
    metric, chosen = quote(json.dumps("arm/nll")), quote(json.dumps(["arm/nll"]))
    page = seen(
        f"{url}/#/metric?runs={runs}&metric={metric}&experiments={quote(json.dumps([experiment]))}"
        f"&plot_metric_keys={chosen}&plot_layout={{}}&x_axis=step&deselected_curves=[]"
        "&y_axis_scale=linear&line_smoothness=1&show_point=true&last_linear_y_axis_range=[]",
        "mlflow-arms",
        tmp_path,
    )
    assert {"trial 0 baseline", "trial 0 variant"} <= set(re.findall(r"trial 0 [a-z]+", page))
    assert page.count("scatterlayer") == 1
