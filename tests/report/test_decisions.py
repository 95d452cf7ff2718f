"""What is said of looks, of what has not learnt, and of what is settled."""

import dataclasses
import io
import time

import pytest
from arm_cases import SPEC, delta, made, rung_record, spec
from rich.console import Console

from fstune.report import words
from fstune.report.phrases import confirmed_at, looked
from fstune.report.progress import Snapshot
from fstune.report.table import confirmation_table, result_table
from fstune.results.records import Comparison, Confirmation, LookRecord, TrialRecord
from fstune.results.sequential import Look

SEQUENTIAL = SPEC.replace("size: 6}", "size: 6, test_size: 4}") + "confirm: {seeds: 16}\n"
MORE = Look(4, 0.03, -0.1, 0.16, 0.03, excluded=False, decision="more", doubt="")
GAIN = Look(6, 0.31, 0.1, 0.52, 0.29, excluded=False, decision="gain", doubt="")
NULL = Look(8, 0.0, -0.05, 0.05, 0.002, excluded=True, decision="not worth it", doubt="")
LAST = Look(
    16, 0.05, 0.01, 0.09, 0.04, excluded=False, decision="inconclusive", doubt="Seeds lean."
)


def shown(view) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(view)
    return file.getvalue()


@pytest.fixture
def of(tmp_path):
    return spec(tmp_path, SEQUENTIAL)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (MORE, ["4 seeds of at most 16, 1 look, no answer yet"]),
        (GAIN, ["6 seeds of at most 16, 2 looks", "the delta is about +0.2900"]),
        (NULL, ["a gain of 0.02 is excluded with 90 %"]),
        (LAST, ["neither is there a gain, nor is one of 0.02 excluded", "Seeds lean."]),
    ],
)
def test_what_a_confirmation_has_seen_is_told(of, last, told):
    looks = [LookRecord(MORE, 1.0), LookRecord(last, 2.0)][-2 if last is not MORE else -1 :]
    found = looked(of, looks)
    for part in told:
        assert part in found
    assert looked(of, []) == ""


def test_looks_hold_at_one_level_and_fixed_ones_share_it(of):
    assert confirmed_at(of, 3) == pytest.approx(0.98)
    fixed = of.model_copy(update={"confirm": of.confirm.model_copy(update={"looks": "fixed"})})
    assert confirmed_at(fixed, 4) == pytest.approx(0.995)


def confirmed(verdict: str, last: Look) -> TrialRecord:
    rung = rung_record(1)
    values = {name: getattr(rung, name) for name in Comparison.__dataclass_fields__}
    found = Comparison(**values | {"verdict": verdict, "seeds": last.seeds})
    looks = [LookRecord(MORE, 1.0), LookRecord(last, 2.0)]
    return TrialRecord(0, {}, [rung], confirmation=Confirmation(found, 3.0), looks=looks)


def test_a_null_is_answered_with_what_is_excluded(of):
    trial = confirmed("not worth it", NULL)
    found = words.answer(of, [trial], trial, 1)
    assert (found.verdict, found.word) == ("not worth it", "Not worth it")
    assert "98 % interval" in found.sentence
    assert "8 seeds of at most 16, 2 looks" in found.sentence
    assert "a gain of 0.02 is excluded with 90 %" in found.sentence
    assert "at all looks together at 98 %" in found.confirmation


def test_tables_and_the_live_view_tell_of_looks(of, tmp_path):
    records = made(tmp_path, of)
    records.write_candidate(0, {"future_seed.alpha": 1.0})
    for rung in (0, 1):
        records.write_rung(0, rung_record(rung))
    records.write_look(0, 1, LookRecord(MORE, 1.0))
    now = shown(Snapshot(records.trials(), of, time.time()))
    assert "confirming trial 0: 4 seeds of at most 16, 1 look, no answer yet" in now
    records.write_look(0, 2, LookRecord(GAIN, 2.0))
    records.write_confirmation(0, confirmed("gain", GAIN).confirmation)
    assert "confirming" not in shown(Snapshot(records.trials(), of, time.time()))
    table = shown(confirmation_table(records, of))
    assert "[98 %]" in table
    assert "corrected for stopping there, the delta is about +0.2900" in table


def test_the_table_says_what_is_settled_and_what_has_not_learnt(of, tmp_path):
    records = made(tmp_path, of)
    same = dataclasses.replace(delta(0.0, 0.0, 0.0), detectable=None)
    kinds = (
        {"verdict": "not learnt", "guessed": "majority"},
        {"verdict": "no effect", "settled": True},
        {"verdict": "inconclusive", "settled": True},
    )
    for number, kind in enumerate(kinds):
        records.write_candidate(number, {"future_seed.alpha": float(number)})
        record = rung_record(0, deltas={"token_accuracy": same, "nll": same}, **kind)
        records.write_rung(number, record)
    table = shown(result_table(records, of))
    first, settled, below = (table.index(f"alpha={number}") for number in range(3))
    assert first < settled
    assert "Neither arm is surely better than majority" in table[first:settled]
    assert "detectable" not in table[first:settled]
    assert "(inside the margin)" in table[settled:below]
    assert "detectable –" in table[settled:below]
    assert "(below the margin)" in table[below:]
    best = shown(Snapshot(records.trials(), of, time.time()))
    assert "alpha=0" in best
    assert "alpha=1" not in best, "the best so far is never what is settled"
