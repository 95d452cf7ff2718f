"""protein_contact's template, its pairs and classes, and what constants are worth."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from task_cases import Bytes, contact_row

from tasks import registry
from tasks.example import Example, TaskError
from tasks.guesses import guess_scores
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import Dropped

TASK = registry.get("protein_contact")
TOKENIZER = Bytes()
SIZES = {"train_size": 40, "validation_size": 20, "test_size": 0}


def settings(**changes):
    return TASK.Settings(
        **{"train_size": 1, "validation_size": 1, "min_residues": 40, "pairs": 12} | changes
    )


def build(row, **changes):
    return TASK.builder(settings(**changes), TOKENIZER, ())(row)


def text(example):
    return TOKENIZER.decode(example.prompt)


def asked(example):
    line = text(example).partition("counted from 1:\n")[2].partition("\n")[0]
    return [tuple(map(int, pair.split("-"))) for pair in line.split(",")]


def close(row, pair, bounds, start=0):
    """The digit that a pair has, from the row's own coordinates."""
    first, second = (row["tertiary"][start + place - 1] for place in pair)
    return str(sum(math.dist(first, second) <= bound for bound in bounds))


def test_the_template_in_both_orders():
    row = contact_row(3, length=40)
    found = {order: build(row, order=order, pairs=3) for order in TASK.orders}
    pairs = ",".join(f"{i}-{j}" for i, j in asked(found["queries_last"]))
    sequence = f"\n\nSequence:\n{row['seq']}"
    queries = f"\n\nQueries, counted from 1:\n{pairs}"
    task = (
        "Task: for each pair of residues, how many of these bounds, in angstrom, their distance "
        "does not exceed: 8."
    )
    assert text(found["queries_last"]) == f"{task}{sequence}{queries}\n\nAnswer:\n"
    assert text(found["queries_first"]) == f"{task}{queries}{sequence}\n\nAnswer:\n"
    assert found["queries_last"].answer == found["queries_first"].answer


@pytest.mark.parametrize("sampling", ["random", "balanced"])
@pytest.mark.parametrize(("bounds", "apart"), [((8.0,), 8), ((10.0, 14.0, 18.0), 12)])
def test_the_answer_holds_the_class_of_every_pair(sampling, bounds, apart):
    for number in range(5):
        row = contact_row(number)
        example = build(row, sampling=sampling, bounds=bounds, min_separation=apart)
        pairs = asked(example)
        assert len(set(pairs)) == len(pairs) == 12
        assert all(second - first >= apart for first, second in pairs)
        assert TOKENIZER.decode(example.answer) == "".join(close(row, p, bounds) for p in pairs)
        assert example.reference == ",".join(str(second - first) for first, second in pairs)


def test_a_bound_and_the_least_separation_are_met_at_their_ends():
    # Residues 4 angstrom apart on a line: those 2 places apart are at 8 exactly.
    row = contact_row(1) | {"tertiary": [[4.0 * n + 1.0, 0.0, 0.0] for n in range(60)]}
    example = build(row, min_separation=2, pairs=40, bounds=(8.0, 12.0))
    apart = [second - first for first, second in asked(example)]
    assert set("012") == set(TOKENIZER.decode(example.answer))
    wanted = "".join("2" if n == 2 else "1" if n == 3 else "0" for n in apart)
    assert TOKENIZER.decode(example.answer) == wanted


def test_a_window_keeps_residues_and_places_together():
    row = contact_row(5, length=150)
    example = build(row, max_residues=60)
    shown = text(example).partition("Sequence:\n")[2].partition("\n")[0]
    start = row["seq"].index(shown)
    assert (len(shown), start > 0) == (60, True)
    digits = "".join(close(row, pair, (8.0,), start) for pair in asked(example))
    assert TOKENIZER.decode(example.answer) == digits


def test_random_pairs_are_as_the_chain_has_them_and_balanced_ones_all_classes_alike():
    bounds = (5.0, 9.0)
    digits = {
        sampling: Counter(
            digit
            for number in range(150)
            for digit in TOKENIZER.decode(
                build(contact_row(number), sampling=sampling, bounds=bounds).answer
            )
        )
        for sampling in ("random", "balanced")
    }
    row = contact_row(0)
    pairs = [(i, j) for i in range(1, 61) for j in range(i + 8, 61)]
    natural = Counter(close(row, pair, bounds) for pair in pairs)
    for digit in "012":
        for sampling, share in (("random", natural[digit] / len(pairs)), ("balanced", 1 / 3)):
            spread = math.sqrt(share * (1 - share) / 1800)
            assert abs(digits[sampling][digit] / 1800 - share) < 5 * spread, (sampling, digit)


def test_counting_the_answers_so_far_does_not_help_with_balanced_pairs():
    # Whoever says the class that was rarer so far would be right in 6 of 10 with equal shares.
    hits = total = 0
    for number in range(300):
        answer = TOKENIZER.decode(build(contact_row(number)).answer)
        for place, digit in enumerate(answer):
            ones = answer[:place].count("1")
            if 2 * ones != place:
                hits += digit == ("1" if 2 * ones < place else "0")
                total += 1
    assert abs(hits / total - 0.5) < 5 * 0.5 / math.sqrt(total)


def test_missing_residues_are_never_asked_for():
    row = contact_row(2)
    gone = [3, 17, 18, 40]
    places = [list(place) for place in row["tertiary"]]
    for place in gone[:2]:
        places[place] = [0.0, 0.0, 0.0]
    for place in gone[2:]:
        places[place] = [float("nan"), 1.0, 2.0]
    seen = set()
    for number in range(80):
        example = build(row | {"seq": contact_row(number)["seq"], "tertiary": places})
        seen |= {place - 1 for pair in asked(example) for place in pair}
    assert seen == set(range(60)) - set(gone)


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"seq": "ACD"}, {}, "rows whose residues and places differ in number"),
        ({"tertiary": [[1.0, 2.0]] * 60}, {}, "rows with places of other than three coordinates"),
        ({}, {"min_residues": 70}, "chains under 70 residues"),
        ({"seq": "ac" * 30}, {}, "chains with other characters than residues have"),
        ({}, {"bounds": (0.01,)}, "chains with under 12 pairs of a class"),
        (
            {},
            {"sampling": "random", "min_separation": 39, "pairs": 300},
            "chains with under 300 pairs far enough apart",
        ),
    ],
)
def test_rows_that_give_no_pairs_are_left_out(changes, options, reason):
    assert build(contact_row(1) | changes, **options) == Dropped(reason)


def test_a_prompt_is_never_cut():
    length = len(build(contact_row(1)).prompt)
    assert isinstance(build(contact_row(1), max_prompt_tokens=length), Example)
    assert build(contact_row(1), max_prompt_tokens=length - 1) == Dropped(
        f"prompts over {length - 1} tokens"
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"pairs": 0}, "pairs >= 1 must hold, got 0"),
        ({"sampling": "all"}, "sampling is one of random, balanced must hold, got 'all'"),
        ({"min_separation": 40}, "1 <= min_separation < min_residues = 40 must hold, got 40"),
        ({"bounds": ()}, r"bounds are 1 to 9 distances above 0, ascending must hold, got \[\]"),
        ({"bounds": (8.0, 8.0)}, r"ascending must hold, got \[8.0, 8.0\]"),
        ({"bounds": (9.0, 8.0)}, r"ascending must hold, got \[9.0, 8.0\]"),
        ({"bounds": (0.0, 8.0)}, r"above 0, ascending must hold, got \[0.0, 8.0\]"),
        ({"bounds": tuple(range(1, 11))}, "bounds are 1 to 9 distances"),
        ({"columns": {"sequence": "s"}}, "columns names fields among seq, tertiary must hold"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        settings(**changes)


@pytest.mark.parametrize("sampling", ["random", "balanced"])
@pytest.mark.parametrize("bounds", [(8.0,), (5.0, 9.0, 11.5)])
def test_a_constant_answer_scores_as_chance(tmp_path, case_data, sampling, bounds):
    files = Files(train="contact/rows.jsonl", validation="contact/rows.jsonl")
    chosen = settings(**SIZES, files=files, sampling=sampling, bounds=bounds)
    train, split = (
        load_split(TASK, chosen, name, TOKENIZER, tmp_path, [case_data])
        for name in ("train", "validation")
    )
    found = guess_scores(TASK, chosen, TOKENIZER, train, split)
    classes = len(bounds) + 1
    wanted = Counter(TOKENIZER.decode(split.answer_tokens.tolist()))
    assert len(wanted) == classes
    assert found["majority"]["balanced_accuracy"] == pytest.approx(1 / classes)
    assert found["majority"]["mcc"] == 0
    assert found["chance"]["balanced_accuracy"] == pytest.approx(1 / classes, abs=0.05)
    assert found["chance"]["mcc"] == pytest.approx(0, abs=0.05)
    # The wanted answers of a winding chain do follow from the separation.
    assert found["usual answer at the separation"]["mcc"] >= found["majority"]["mcc"]


def test_places_may_be_whole_numbers_and_must_be_numbers(tmp_path):
    rows = [contact_row(number) for number in range(60)]
    for row in rows:
        row["tertiary"] = [[round(value) for value in place] for place in row["tertiary"]]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    files = Files(train=str(path), validation=str(path))
    chosen = settings(files=files)
    split = load_split(TASK, chosen, "train", TOKENIZER, tmp_path / "cache", [])
    example = split.example(0)
    row = next(row for row in rows if row["seq"] in text(example))
    digits = "".join(close(row, pair, (8.0,)) for pair in asked(example))
    assert TOKENIZER.decode(example.answer) == digits
    for wrong in ([["1", 2, 3]] * 60, [[None, 2, 3]] * 60, [1, 2, 3] * 20, [[True, 2, 3]] * 60):
        rows[1]["tertiary"] = wrong
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        with pytest.raises(TaskError, match=r"rows.jsonl:2: tertiary: (number|a list) is wanted"):
            load_split(TASK, chosen, "train", TOKENIZER, tmp_path / "cache", [])


def test_real_chains(tmp_path, real_data):
    path = real_data / "protein_contact/train.jsonl"
    if not path.is_file():
        pytest.skip(f"no real chains: {path} is absent")
    files = Files(train=str(path), validation=str(path))
    chosen = settings(
        train_size=40,
        validation_size=8,
        files=files,
        columns={"seq": "sequence", "tertiary": "ca_coords"},
        max_residues=200,
    )
    split = load_split(TASK, chosen, "train", TOKENIZER, tmp_path, [])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for index in range(len(split)):
        example = split.example(index)
        shown = text(example).partition("Sequence:\n")[2].partition("\n")[0]
        row = next(row for row in rows if shown in row["sequence"])
        start = row["sequence"].index(shown)
        ca = np.array(row["ca_coords"])[start : start + len(shown)]
        near = np.linalg.norm(ca[:, None] - ca[None], axis=2) <= 8
        digits = "".join(str(int(near[i - 1, j - 1])) for i, j in asked(example))
        assert TOKENIZER.decode(example.answer) == digits
