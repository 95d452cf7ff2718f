"""A search that is killed, robbed or stopped ends as one that ran through."""

import os
import random
import shutil
import signal
import time

import pytest
from search_process import NAME, SPEC, Place, kill, wait_until
from typer.testing import CliRunner

from fstune.cli.commands import app
from fstune.errors import InputError

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("unbroken"))
    assert place.start("search", "small.yaml", "--quiet").wait() == 0, place.output()
    shutil.copy(place.folder / "output.txt", place.folder / "told-quietly.txt")
    return place


def run_until_killed(place, process, evaluations):
    """Kill the driver once so many evaluations are stored; what was stored must never change."""
    wait_until(lambda: len(place.evaluations()) >= evaluations, process)
    time.sleep(random.uniform(0, 0.3))
    kill(process)
    return place.evaluations()


def run_until_stopped(place, process, evaluations):
    """Ask it to stop once so many evaluations are stored: it says how to go on with it."""
    assert wait_until(lambda: len(place.evaluations()) >= evaluations, process), place.output()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    assert "fstune resume small" in place.output()
    assert "RUNNING" not in {run[0] for run in place.tracked().values()}
    return place.evaluations()


def lose_workers(place, process):
    """Kill what trains, as soon as something does."""
    assert wait_until(lambda: bool(place.workers()), process), place.output()
    evaluated = place.evaluations()
    for pid in place.workers():
        os.kill(pid, signal.SIGKILL)
    return evaluated


def assert_same_search(place, unbroken, evaluated):
    assert place.report() == unbroken.report(), place.output()
    assert place.evaluations().keys() == unbroken.evaluations().keys()
    assert evaluated.items() <= place.evaluations().items(), "an evaluation was done again"
    assert place.tracked() == unbroken.tracked()
    assert {run[0] for run in place.tracked().values()} == {"FINISHED"}


def test_an_unbroken_search_decides_something(unbroken):
    trials = unbroken.report()["trials"]
    assert [trial["number"] for trial in trials] == list(range(6))
    assert {trial["state"] for trial in trials} == {"completed", "stopped"}
    assert not list(unbroken.runs.glob("arms/*/checkpoints/*")), "an ended search keeps no weights"


def test_a_quiet_search_prints_its_table_and_nothing_else(unbroken):
    told = (unbroken.folder / "told-quietly.txt").read_text()
    assert told.splitlines() == unbroken.table()
    assert "\x1b" not in told


@pytest.mark.slow
def test_losing_worker_and_driver_and_being_stopped_change_nothing(unbroken, tmp_path):
    place = Place(tmp_path)
    total = len(unbroken.evaluations())
    process = place.search()
    evaluated = lose_workers(place, process)
    evaluated |= run_until_killed(place, process, total // 3)
    evaluated |= run_until_stopped(place, place.resume(), 2 * total // 3)
    assert place.resume().wait() == 0, place.output()
    assert_same_search(place, unbroken, evaluated)


@pytest.mark.slow
def test_killing_the_driver_at_random_and_losing_tunes_files_change_nothing(unbroken, tmp_path):
    place = Place(tmp_path)
    total = len(unbroken.evaluations())
    moments = sorted(random.sample(range(1, total), 2))
    print("killed after evaluations", moments)
    evaluated = run_until_killed(place, place.search(), moments[0])
    evaluated |= run_until_killed(place, place.resume(), moments[1])
    shutil.rmtree(place.records / "tune")
    assert place.resume().wait() == 0, place.output()
    assert_same_search(place, unbroken, evaluated)


PROMOTE = SPEC.replace("scheduler: asha", "scheduler: asha_promote")


@pytest.mark.slow
def test_a_search_that_promotes_is_taken_up_again_where_it_was_killed(tmp_path):
    places = [Place(tmp_path / name, PROMOTE) for name in ("unbroken", "killed")]
    for place in places:
        place.folder.mkdir()
    unbroken, killed = places
    assert unbroken.search().wait() == 0, unbroken.output()
    assert {trial["state"] for trial in unbroken.report()["trials"]} == {"completed", "stopped"}
    assert not list(unbroken.runs.glob("arms/*/checkpoints/*")), "an ended search keeps no weights"
    total = len(unbroken.evaluations())
    evaluated = run_until_killed(killed, killed.search(), random.randrange(1, total // 2))
    evaluated |= run_until_killed(killed, killed.resume(), random.randrange(total // 2, total))
    assert killed.resume().wait() == 0, killed.output()
    assert_same_search(killed, unbroken, evaluated)


@pytest.mark.slow
def test_a_search_that_has_ended_is_not_carried_out_again(unbroken):
    again = ["search", str(unbroken.folder / "small.yaml"), "--runs", str(unbroken.runs)]
    with pytest.raises(InputError, match="fstune resume small"):
        CliRunner().invoke(app, again, catch_exceptions=False)
    before = unbroken.evaluations()
    assert unbroken.resume().wait() == 0, unbroken.output()
    assert unbroken.evaluations() == before


def test_table_json_and_mlflow_hold_the_same_numbers(unbroken):
    tracked = unbroken.tracked()
    table = unbroken.table()
    for trial in unbroken.report()["trials"]:
        last = trial["rungs"][-1]
        _, params, tags, history = tracked[str(trial["number"])]
        assert params == {path: str(value) for path, value in trial["candidate"].items()}
        assert tags["fstune.verdict"] == trial["verdict"]
        for metric, delta in last["delta"].items():
            logged = {
                name: history[f"delta/{metric}{suffix}"][-1]
                for name, suffix in (("mean", ""), ("low", "_low"), ("high", "_high"))
            }
            assert logged == {name: (last["steps"], delta[name]) for name in logged}
            for arm in ("baseline", "variant"):
                assert history[f"{arm}/{metric}"][-1] == (last["steps"], last[arm][metric])
                steps = [step for step, _ in history[f"{arm}/{metric}"]]
                assert steps == [step for step, _ in history[f"delta/{metric}"]]
                assert steps == sorted(set(steps)), "a step was logged twice"
        delta = last["delta"]["nll"]
        shown = f"{delta['mean']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
        assert any(shown in line and trial["verdict"] in line for line in table)


def test_a_confirmation_is_one_look_at_what_the_search_has_not_seen(unbroken):
    searched = unbroken.evaluations()
    assert not list(unbroken.runs.glob("cache/*-test-*")), "the search has read test examples"
    assert unbroken.start("confirm", NAME).wait() == 0, unbroken.output()
    confirmed = unbroken.evaluations()
    assert searched.items() <= confirmed.items()
    # 2 seeds, 2 arms, 4 evaluations each; and the model before training, which has no guess in nll.
    assert len(confirmed) == len(searched) + 2 * 2 * 4 + 1
    report = unbroken.report()
    (winner,) = [trial for trial in report["trials"] if trial["confirmation"]]
    assert winner["number"] == report["best"]
    assert winner["confirmation"]["seeds"] == 2
    assert winner["verdict"] == winner["confirmation"]["verdict"]
    _, _, tags, history = unbroken.tracked()[str(winner["number"])]
    assert tags["fstune.confirmed"] == winner["verdict"]
    delta = winner["confirmation"]["delta"]["nll"]
    assert history["confirm/delta/nll"] == [(12, delta["mean"])]
    again = CliRunner().invoke(app, ["confirm", NAME, "--runs", str(unbroken.runs)])
    assert again.exit_code == 0, "asked again, it only shows"
    assert unbroken.evaluations() == confirmed


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", [pytest.param(SPEC, id="asha"), pytest.param(PROMOTE, id="promote")]
)
def test_a_search_whose_candidates_all_fail_stops_and_tries_them_again(unbroken, tmp_path, spec):
    place = Place(tmp_path, spec.replace("trials: 6", "trials: 6, stop_after_failures: 3"))
    place.runs.mkdir()
    in_the_way = place.runs / "arms"
    in_the_way.write_text("where arms should be stored")
    assert place.search().wait() == 1
    said = " ".join(place.output().split())
    assert "small stopped, since 3 candidates in a row failed, the last by: " in said
    assert "`fstune resume small` tries them again" in said
    assert len(list(place.records.glob("trials/*"))) == 3
    in_the_way.unlink()
    assert place.resume().wait() == 0, place.output()
    found = place.report()["trials"]
    assert {trial["state"] for trial in found} <= {"completed", "stopped"}
    if spec is SPEC:
        facts = ("number", "candidate", "state", "reason", "rungs")
        wanted = unbroken.report()["trials"]
        assert [[one[fact] for fact in facts] for one in found] == [
            [one[fact] for fact in facts] for one in wanted
        ]
