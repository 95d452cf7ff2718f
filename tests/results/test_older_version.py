"""A search that version 0.1.0 (commit 4e820e1) has made is read, verified and resumed.

`older_version.tar.gz` holds two folders of runs, made there by

    fstune search ended.yaml --runs ended
    fstune confirm ended --runs ended
    fstune search killed.yaml --runs killed & kill -9 $!    # after six evaluations
    tar czf older_version.tar.gz --exclude={tune,checkpoints,artifacts,cache,log.txt,report.html} \\
        --exclude={'*lock','mlflow.db*'} ended killed

The specs are in the searches' folders (`spec.yaml`); they differ in name alone.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fstune.api import load
from fstune.report.data import as_json
from fstune.report.verification import differences
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of, confirmed_arms
from fstune.results.records import ArmPair

ARCHIVE = Path(__file__).with_name("older_version.tar.gz")


@pytest.fixture
def folder(tmp_path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def opened(folder: Path, name: str) -> SearchFolder:
    return SearchFolder.find(folder / name, name)


def written(folder: Path) -> dict[str, bytes]:
    """What a search never writes twice: candidates, rungs, arms and evaluations."""
    patterns = ("searches/*/trials/*/candidate.json", "searches/*/trials/*/rung-*.json")
    patterns += ("arms/*/arm.json", "arms/*/evaluations/*.npz")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_its_report_and_every_figure_come_out_again(folder):
    records = opened(folder, "ended")
    report = json.loads(records.report_file("json").read_text())
    assert [trial["state"] for trial in report["trials"]].count("completed") == 2
    assert json.loads(json.dumps(as_json(records, records.spec()))) == report
    assert differences(records, records.spec()) == []
    found = load("ended", folder / "ended")
    assert list(found.trials["confirmed"].dropna()) == ["inconclusive"]
    assert len(found.arms) == sum(
        2 * len(at.arms) for trial in records.trials() for at in trial.comparisons
    )


def test_its_arms_have_the_digests_that_they_had(folder):
    records = opened(folder, "ended")
    spec = records.spec()
    for trial in records.trials():
        for rung in trial.rungs:
            arms = arms_of(spec, trial.candidate, records.cache, range(rung.seeds))
            assert [as_recorded(both) for both in arms] == rung.arms
        if trial.confirmation is not None:
            arms = confirmed_arms(spec, trial.candidate, records.cache, spec.confirm.seeds)
            assert [as_recorded(both) for both in arms] == trial.confirmation.comparison.arms


def as_recorded(both) -> ArmPair:
    return ArmPair(both.baseline.seeds.index, both.baseline.digest, both.variant.digest)


def test_where_it_was_when_it_was_killed_is_read(folder):
    first, second = opened(folder, "killed").trials()
    assert (first.progress.doing, first.progress.rung, first.progress.role) == (
        "evaluate",
        1,
        "variant",
    )
    assert [len(trial.rungs) for trial in (first, second)] == [1, 1]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_one_is_resumed_to_its_end(folder):
    before = written(folder / "killed")
    done = subprocess.run(
        [sys.executable, "-m", "fstune.cli", "resume", "killed", "--runs", folder / "killed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert before.items() <= written(folder / "killed").items()
    records = opened(folder, "killed")
    assert [trial.end.state for trial in records.trials()].count("completed") == 2
    assert len(records.environments()) == 2
    assert differences(records, records.spec()) == []
