import dataclasses
import json
import math

import pytest
from arm_cases import made, rung_record, spec

from fstune.errors import InputError, StoreError
from fstune.results.folder import SearchFolder
from fstune.results.paths import search_names
from fstune.results.records import EndRecord, TrialProgress
from fstune.specs.settings import Scalar

CANDIDATE: dict[str, Scalar] = {
    "future_seed.alpha": -2.5,
    "future_seed.layer_start": 1,
    "future_seed.norm": True,
    "future_seed.gate": "head",
    "train.lr": 1.0,
    "task.mask": "1",
}


@pytest.fixture
def records(tmp_path):
    return SearchFolder(tmp_path / "searches" / "small")


def test_a_candidate_comes_back_with_its_types(records):
    records.write_candidate(0, CANDIDATE)
    found = records.trial(0).candidate
    assert found == CANDIDATE
    assert [type(value) for value in found.values()] == [float, int, bool, str, float, str]


def test_a_candidate_is_written_once(records):
    records.write_candidate(0, CANDIDATE)
    records.write_candidate(0, CANDIDATE)
    with pytest.raises(StoreError, match=r"trial 0 of small was .*-2.5.*, now .*-2.4"):
        records.write_candidate(0, CANDIDATE | {"future_seed.alpha": -2.4})
    assert records.trial(0).candidate == CANDIDATE


def test_a_rung_comes_back_as_it_was_written(records):
    records.write_candidate(0, CANDIDATE)
    written = [rung_record(0), rung_record(1)]
    for record in written:
        records.write_rung(0, record)
    assert records.trial(0).rungs == written
    assert records.rung(0, 1) == written[1]
    assert records.rung(0, 2) is None


def test_a_rung_is_written_once_and_times_may_differ(records):
    first = rung_record()
    records.write_rung(0, first)
    later = [dataclasses.replace(point, ended_at=5.0) for point in first.curve]
    records.write_rung(0, dataclasses.replace(first, wall_s=9.0, curve=later))
    assert records.rung(0, 0) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": 0.250000001},
        {"verdict": "inconclusive"},
        {"largest_gate": 0.6},
        {"arms": []},
        {"curve": []},
        {"seeds": 3},
    ],
    ids=str,
)
def test_a_rung_that_comes_out_differently_is_refused(records, changes):
    records.write_rung(2, rung_record())
    with pytest.raises(StoreError, match="trial 2, rung 0 came out differently this time"):
        records.write_rung(2, rung_record(**changes))


@pytest.mark.parametrize("objective", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_no_number_comes_back_and_can_be_repeated(records, objective):
    records.write_rung(0, rung_record(objective=objective))
    found = records.rung(0, 0).objective
    assert found == objective or (math.isnan(found) and math.isnan(objective))
    records.write_rung(0, rung_record(objective=objective))
    with pytest.raises(StoreError):
        records.write_rung(0, rung_record(objective=0.5))


def test_facts_hold_all_but_times():
    record = rung_record()
    later = [dataclasses.replace(point, ended_at=point.ended_at + 1) for point in record.curve]
    assert dataclasses.replace(record, wall_s=7.0, curve=later).facts() == record.facts()
    for changes in ({"objective": 0.0}, {"steps": 9}, {"rung": 3}, {"deltas": {}}):
        assert dataclasses.replace(record, **changes).facts() != record.facts()


def test_the_first_reason_of_an_end_stays(records):
    records.write_candidate(0, CANDIDATE)
    progress = TrialProgress("x", "train", 1, 2, 0.5, 0, "variant", rung=0, pid=7, at=1e9)
    records.write_progress(0, progress)
    assert records.trial(0).progress == progress
    records.write_end(0, EndRecord("stopped", "first"))
    records.write_end(0, EndRecord("failed", "second", "traceback"))
    assert records.end(0) == EndRecord("stopped", "first")
    assert records.trial(0).progress is None


def test_progress_of_an_older_version_is_read(records):
    records.write_candidate(0, CANDIDATE)
    older = {"arm": "x", "doing": "wait", "step": 0, "to_step": 2, "loss": None, "seed": 1}
    path = records.root / "trials" / "0000" / "progress.json"
    path.write_text(json.dumps(older | {"rung": 1, "pid": 7, "at": 1e9}))
    assert records.trial(0).progress == TrialProgress(
        "x", "wait", 0, 2, seed=1, rung=1, pid=7, at=1e9
    )


def test_an_identity_is_made_once_and_only_when_it_is_asked_for(records):
    records.write_candidate(0, CANDIDATE)
    assert not (records.root / "identity").exists()
    assert (
        records.make_identity()
        == records.make_identity()
        == SearchFolder(records.root).make_identity()
    )


def test_the_spec_is_read_once(tmp_path):
    made_of = spec(tmp_path)
    records = made(tmp_path, made_of)
    assert records.spec() == made_of
    assert records.spec() is records.spec()


def test_trials_come_in_the_order_of_their_suggestion(records):
    for number in range(12):
        records.write_candidate(number, {"future_seed.alpha": float(number)})
    assert [trial.number for trial in records.trials()] == list(range(12))
    assert [trial.candidate["future_seed.alpha"] for trial in records.trials()] == list(range(12))
    assert records.trial(12) is None


def test_a_trials_verdict_is_its_last_rungs_unless_it_broke_off(records):
    records.write_candidate(0, CANDIDATE)
    assert records.trial(0).verdict == "running"
    records.write_rung(0, rung_record(0, verdict="inconclusive"))
    records.write_rung(0, rung_record(1, verdict="loss"))
    assert records.trial(0).verdict == "loss"
    records.write_end(0, EndRecord("stopped", "ASHA"))
    assert records.trial(0).verdict == "loss"
    records.write_candidate(1, CANDIDATE)
    records.write_rung(1, rung_record(0))
    records.write_end(1, EndRecord("diverged", "loss nan at step 7"))
    assert records.trial(1).verdict == "diverged"


def test_a_search_is_found_by_name_and_others_are_named(tmp_path):
    made(tmp_path, spec(tmp_path))
    (tmp_path / "searches" / "half-made").mkdir()
    assert search_names(tmp_path) == ["small"]
    assert SearchFolder.find(tmp_path, "small").name == "small"
    with pytest.raises(InputError, match=r"no search is called 'smal' in .*; known: small"):
        SearchFolder.find(tmp_path, "smal")
    with pytest.raises(InputError, match="known: none"):
        SearchFolder.find(tmp_path / "elsewhere", "small")


def test_another_environment_is_noted_beside_the_first(tmp_path):
    records = made(tmp_path, spec(tmp_path))
    first, second = {"commit": "a", "python": "3.11"}, {"commit": "b", "python": "3.11"}
    for facts in (first, first, second, second, first):
        records.write_environment(facts)
    assert records.environments() == [first, second, first]


def test_a_search_that_is_only_being_made_has_no_environment_before(records):
    for facts in ({"commit": "a"}, {"commit": "b"}):
        records.write_environment(facts)
        assert records.environments() == [facts]


def test_a_damaged_record_is_named(records):
    records.write_candidate(0, CANDIDATE)
    records.write_rung(0, rung_record(0))
    path = records.root / "trials" / "0000" / "rung-0.json"
    for content in (b"", path.read_bytes()[:-9], b"{}"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"0000/rung-0\.json is damaged: "):
            records.trials()
