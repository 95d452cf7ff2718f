"""What a terminal, and a pipe, are shown of a search."""

import dataclasses
import io
import math
import re
import threading
import time
from typing import Any

import pytest
from arm_cases import made, outcome, rung_record, spec
from rich.console import Console

from fstune.arms.store import ArmStore
from fstune.report.live import View, live, snapshot
from fstune.report.progress import Snapshot, forest_lines, rung_share, seconds
from fstune.results.folder import SearchFolder
from fstune.results.records import Confirmation, EndRecord, TrialProgress
from fstune.specs.sections import SearchSpec


def shown(view: Any, width: int = 80) -> list[str]:
    """The lines that a terminal of that width shows."""
    file = io.StringIO()
    Console(file=file, width=width).print(view)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def progress(age_s: float = 0.0, **changes: Any) -> TrialProgress:
    arm = {"arm": "x", "doing": "train", "step": 1, "to_step": 2, "loss": 2.5, "seed": 0}
    trial = {"role": "variant", "rung": 0, "pid": 1, "at": time.time() - age_s}
    return TrialProgress(**arm | trial | changes)


@pytest.fixture
def small(tmp_path) -> SearchSpec:
    return spec(tmp_path)


@pytest.fixture
def records(tmp_path, small) -> SearchFolder:
    """Four trials: at the last rung, stopped at the first, diverged, and running."""
    records = made(tmp_path, small)
    for number in range(4):
        records.write_candidate(number, {"future_seed.alpha": -1.25 - number})
    records.write_rung(0, rung_record(0, 0.2))
    records.write_rung(0, rung_record(1, 0.15, reused=3))
    records.write_end(0, EndRecord("completed", "reached the last rung"))
    records.write_rung(1, rung_record(0, 0.4, verdict="inconclusive"))
    records.write_end(1, EndRecord("stopped", "ASHA: not in the top share"))
    records.write_end(2, EndRecord("diverged", "arm x: loss nan at step 7"))
    records.write_progress(3, progress())
    return records


def test_what_is_trained_now_has_bars_for_step_rung_and_search(records, small):
    lines = shown(View(records, small)())
    assert lines[0] == "small  3 of 4 trials ended (1 completed, 1 stopped, 1 diverged)"
    assert lines[1].startswith("search   ━")
    assert lines[1].endswith("s left")
    assert lines[2] == "trial 3  alpha=-4.25"
    # Baseline done, half of the variant: three quarters of 28 columns.
    assert lines[3] == f"rung     {'━' * 21}{'─' * 7}  rung 1 of 2: 2 steps × 1 seed"
    assert lines[4] == f"step     {'━' * 14}{'─' * 14}  1 of 2, variant of seed 0, loss 2.5"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"doing": "evaluate", "loss": None}, "evaluating variant of seed 0"),
        ({"doing": "wait", "loss": None}, "waits for variant of seed 0"),
        ({"age_s": 3600}, "variant of seed 0, loss 2.5, 1 h 0 min ago"),
    ],
)
def test_an_arm_that_is_not_trained_says_so(records, small, changes, told):
    records.write_progress(3, progress(**changes))
    assert told in shown(View(records, small)(), 100)[4]


def test_many_trials_at_a_time_have_a_line_each(tmp_path, small):
    records = made(tmp_path, small)
    for number in range(3):
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        records.write_progress(number, progress(step=number, loss=None))
    lines = shown(View(records, small)())
    assert [line[:9] for line in lines[2:]] == ["trial 0  ", "trial 1  ", "trial 2  "]
    assert lines[4].endswith("━  rung 1, 2 of 2, variant of seed 0")


def test_a_rungs_share_counts_the_steps_that_it_needs(small):
    # Rungs of 2 steps × 1 seed and 4 × 2: the second needs 2 of each arm of seed 0, 4 of seed 1's.
    done = {
        ("baseline", 0, 2): 0,
        ("baseline", 0, 3): 1,
        ("variant", 0, 4): 4,
        ("baseline", 1, 1): 5,
        ("variant", 1, 4): 12,
    }
    for (role, seed, step), steps in done.items():
        at = progress(rung=1, role=role, seed=seed, step=step, to_step=4)
        assert rung_share(small, at) == steps / 12
    # A baseline that has to be trained from its beginning takes nothing back.
    assert rung_share(small, progress(rung=1, role="baseline", step=1, to_step=4)) == 0


def test_the_rest_is_estimated_from_rungs_that_were_reached(records, small):
    # Three rungs of 1.5 s and half of one more. Of four trials, one without a rung, three enter;
    # one in three of them (ASHA's reduction factor) gets to the second rung.
    behind_s, ahead_s = seconds(records.trials(), small)
    assert small.search.reduction_factor == 3
    assert behind_s == pytest.approx(3 * 1.5 + 0.75 * 1.5)
    assert ahead_s == pytest.approx(0.25 * 1.5)
    # A rung that nobody reached takes time in proportion to its steps and seeds.
    first = [dataclasses.replace(trial, rungs=trial.rungs[:1]) for trial in records.trials()]
    assert seconds(first, small)[1] == pytest.approx(0.25 * 1.5 + 1.5 * 4)
    assert seconds([], small) == (0.0, 0.0)


def test_waiting_and_starting_are_told(tmp_path, small):
    records = made(tmp_path, small)
    assert shown(View(records, small)())[1].endswith("  starting")
    records.write_candidate(0, {"future_seed.alpha": 0.0})
    assert shown(View(records, small)())[1].endswith("  no estimate yet, 1 waiting")


def test_the_forest_has_the_best_trials_on_one_axis(records, small):
    best = [trial for trial in records.trials() if trial.rungs]
    lines = [line.plain for line in forest_lines(best, small, 80)]
    assert lines[0] == "best so far: Δ token_accuracy (more is better), 95 % intervals"
    assert lines[1].startswith("    0  4 × 2  +0.1500 [+0.1475, +0.1600]  ┊")
    assert lines[2] == "       unconfirmed gain  alpha=-1.25"
    assert lines[4] == "       inconclusive  alpha=-2.25"
    assert max(map(len, lines)) <= 80
    start = lines[1].index("┊")
    columns = 80 - 1 - start
    # The axis reaches from zero to the largest bound, 0.41; each mark is where its value is.
    for line, values in ((lines[1], (0.1475, 0.15, 0.16)), (lines[3], (0.395, 0.4, 0.41))):
        marks = [place - start for place, mark in enumerate(line) if mark in "├●┤"]
        wanted = {round(value / 0.41 * (columns - 1)) for value in values}
        assert set(marks) == wanted
    assert re.fullmatch(r" +0 +\+0\.41", lines[5])
    assert len(lines[5]) == start + columns


def test_a_forest_of_losses_has_zero_on_its_right(tmp_path):
    made_of = spec(tmp_path, more="objective: {metric: nll}\n")
    records = made(tmp_path, made_of)
    records.write_candidate(0, {"future_seed.alpha": 0.0})
    records.write_rung(0, rung_record(0, 0.2))
    heading, row, _, axis = (line.plain for line in forest_lines(records.trials(), made_of, 80))
    assert "(less is better)" in heading
    assert row.endswith("┊")
    assert axis.endswith("0")


def test_a_delta_that_is_no_number_is_no_obstacle(tmp_path, small):
    records = made(tmp_path, small)
    rung = rung_record(0)
    delta = dataclasses.replace(rung.deltas["token_accuracy"], mean=math.nan, low=math.nan)
    records.write_candidate(0, {"future_seed.alpha": 0.0})
    trial = records.trial(0)
    odd = dataclasses.replace(rung, deltas={**rung.deltas, "token_accuracy": delta})
    row = forest_lines([dataclasses.replace(trial, rungs=[odd])], small, 80)[1].plain
    assert "+nan" in row
    assert "●" not in row


def test_a_confirmed_trial_is_shown_as_confirmed(records, small):
    confirmed = rung_record(1, 0.3, verdict="gain", seeds=5)
    records.write_confirmation(0, Confirmation(confirmed, 1e9))
    lines = [line.plain for line in forest_lines([records.trial(0)], small, 80)]
    assert lines[1].startswith("    0  4 × 5  +0.3000 [")
    assert lines[2] == "       gain on the test split  alpha=-1.25"
    assert lines[0].endswith("95 % intervals, test 98 %")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path, width):
    made_of = spec(tmp_path, more="objective: {metric: nll}\n")
    records = made(tmp_path, made_of)
    for number in range(7):
        candidate = {f"future_seed.setting_{n}": 1.23456789 for n in range(9)}
        records.write_candidate(number, candidate)
        wide = rung_record(0, -10.123456 * number, steps=100_000, seeds=10)
        records.write_rung(number, wide)
    records.write_progress(6, progress(rung=1, step=100_000, to_step=100_000))
    lines = shown(View(records, made_of)(), width)
    assert max(map(len, lines)) <= width
    # Five trials, two lines each, and no line broken in two; a standard terminal has 24.
    assert len(lines) == 5 + 1 + 1 + 10 + (1 if width > 40 else 0)


def test_the_view_takes_no_colours_where_none_are_wanted(records, small, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=80).print(View(records, small)())
    codes = {
        code
        for codes in re.findall(r"\x1b\[([\d;]*)m", file.getvalue())
        for code in codes.split(";")
    }
    assert codes <= {"", "0", "1", "2"}  # bold and dim are no colours


def happen(records: SearchFolder) -> None:
    """A rung and an end, out of memory on the way, and a trial that needs no training."""
    records.write_rung(3, rung_record(0, 0.3, reused=1))
    records.write_end(3, EndRecord("stopped", "ASHA: +0.1\nand more"))
    records.write_candidate(4, {"future_seed.alpha": 7.0}, 0)


def store_event(records: SearchFolder) -> None:
    told = outcome([0.0], arm="variant0", step=2, events=("step 1: out of memory, in training",))
    ArmStore(records.runs / "arms").save_outcome(told)


EVENTS = [
    "trial 3, variant of seed 0: step 1: out of memory, in training",
    "trial 3 at 2 steps × 1 seed: 1 of 2 arms reused",
    "trial 3 at 2 steps × 1 seed: Δ token_accuracy +0.3000 [+0.2950, +0.3100], unconfirmed gain",
    "trial 3 stopped: ASHA: +0.1",
    "trial 4 reuses trial 0, equal to it in effect",
]


def test_a_pipe_gets_a_line_with_its_time_for_every_event(records, small):
    file = io.StringIO()
    with live(Console(file=file, width=80), View(records, small)):
        store_event(records)
        happen(records)
    lines = file.getvalue().splitlines()
    assert [line[9:] for line in lines] == EVENTS
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)


def test_a_terminal_gets_events_of_note_above_the_bars(records, small):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24, color_system=None)
    with live(console, View(records, small)):
        store_event(records)
        happen(records)
    text = file.getvalue()
    for event in EVENTS:
        begins = event[:35]  # a long line is cut, not broken
        assert text.count(begins) == ("Δ" not in event), event
    assert "small  3 of 4 trials ended" in text


def test_bars_renew_themselves_and_one_thread_alone_draws(records, small):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24, color_system=None)
    before = threading.active_count()
    with live(console, View(records, small)):
        assert threading.active_count() == before + 1
        records.write_progress(3, progress(step=2))
        deadline = time.monotonic() + 30
        while "2 of 2, variant of seed 0" not in file.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_dumb_terminal_is_a_pipe(records, small, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    with live(Console(file=file, force_terminal=True, width=80), View(records, small)):
        happen(records)
    assert "━" not in file.getvalue()
    assert "trial 3 stopped: ASHA: +0.1\n" in file.getvalue()


def test_a_snapshot_has_the_latest_events(records, small):
    happen(records)
    lines = shown(snapshot(records, small, in_full=True))
    assert lines[0].startswith("small  5 of 4 trials ended")
    latest = lines[lines.index("latest events") + 1 :]
    assert (
        latest
        == [
            "trial 0 at 4 steps × 2 seeds: 3 of 4 arms reused",
            "trial 0 completed: reached the last rung",
            "trial 1 stopped: ASHA: not in the top share",
            "trial 2 diverged: arm x: loss nan at step 7",
            *(event for event in EVENTS[1:] if "Δ" not in event),
        ][-6:]
    )


def test_a_snapshot_of_a_search_at_rest_says_how_to_go_on(records, small):
    assert "fstune resume" not in "\n".join(shown(snapshot(records, small, in_full=False)))
    records.clear_progress(3)
    assert "if it was stopped: fstune resume small" in shown(snapshot(records, small, False))[2]
    records.write_end(3, EndRecord("stopped", "ASHA"))
    assert "fstune resume" not in "\n".join(shown(snapshot(records, small, in_full=False)))


def test_it_is_said_that_mlflow_is_behind(records, small):
    assert not any("MLflow" in line for line in shown(View(records, small)()))
    records.write_unsent("http://nowhere: connection refused")
    assert (
        shown(View(records, small)())[2] == "MLflow is behind: http://nowhere: connection refused"
    )


def test_a_view_reads_an_ended_trial_once(records, small):
    view = View(records, small)
    before = shown(view())
    (records.root / "trials" / "0000" / "rung-0.json").unlink()
    assert shown(view()) == before
    assert isinstance(view(), Snapshot)
