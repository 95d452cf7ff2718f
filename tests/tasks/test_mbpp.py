"""mbpp's template, its notes, what it leaves out, and its programs run and scored."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
from task_cases import CASES, SIZES, Bytes, mbpp_row, write_rows

from tasks import registry
from tasks.catalog.mbpp import cut, pass_at_k, program_of
from tasks.example import TaskError
from tasks.guesses import guess_scores
from tasks.metrics import gathered
from tasks.sandbox import enclosure as sandbox
from tasks.scoring import Prediction, Scoring
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES, Dropped

TASK = registry.get("mbpp")
TOKENIZER = Bytes()
MATERIAL = [mbpp_row(number) for number in range(40, 60)]


def settings(**changes):
    return TASK.Settings(**{"train_size": 1, "validation_size": 1} | changes)


def build(row, material=MATERIAL, **changes):
    return TASK.builder(settings(**changes), TOKENIZER, material)(row)


ROW = mbpp_row(
    1,
    text=" Double  it.\n",
    code="import math\r\n\r\n\r\n\r\ndef double(n): \r\n\treturn 2 * n\r\n\r\n",
    test_list=["assert double(1) == 2", "assert double('a  b') == 'a  ba  b' "],
)
PROBLEM = """Problem: Double it.
Tests:
assert double(1) == 2
assert double('a  b') == 'a  ba  b'

"""
CODE = "import math\n\ndef double(n):\n\treturn 2 * n"


def test_the_template_in_both_orders():
    last, first = (build(ROW, order=order, max_prompt_tokens=600) for order in TASK.orders[::-1])
    first, last = TOKENIZER.decode(first.prompt), TOKENIZER.decode(last.prompt)
    assert first.startswith(f"{PROBLEM}Notes:\nProblem: Write a function to add ")
    assert first.endswith("\n\nPython solution:\n")
    assert last.startswith("Notes:\nProblem: Write a function to add ")
    assert last.endswith(f"\n\n{PROBLEM}Python solution:\n")
    assert TOKENIZER.decode(build(ROW).answer) == f"{CODE}\n\n\n"


def test_without_notes_the_problem_stands_alone():
    for order in TASK.orders:
        example = build(ROW, (), notes=False, order=order)
        assert TOKENIZER.decode(example.prompt) == f"{PROBLEM}Python solution:\n"


@pytest.mark.parametrize("length", [400, 1000, 9000])
def test_notes_fill_a_prompt_to_exactly_so_many_tokens(length):
    for number in range(40, 60):
        row = mbpp_row(number)
        one, other = (build(row, order=order, max_prompt_tokens=length) for order in TASK.orders)
        assert len(one.prompt) == len(other.prompt) == length
        assert Counter(one.prompt) == Counter(other.prompt)
        text = TOKENIZER.decode(one.prompt)
        assert text.count(f"to add {number} to the length") == 1
        assert text.count(f"_{number}(") == len(row["test_list"])
        assert program_of(row) not in text


def test_notes_on_the_same_problem_or_a_function_of_the_same_name_are_not_used():
    telling = [
        mbpp_row(70, test_list=["assert set(Double(2)) == {4}"]),
        mbpp_row(71, text="Simplify: double  it. Twice."),
    ]
    with pytest.raises(TaskError, match=r"mbpp: the notes are \d+ tokens too short"):
        build(ROW, telling)
    text = TOKENIZER.decode(build(ROW, [*telling, mbpp_row(73)]).prompt)
    assert not any(f"to add {number} to" in text for number in (70, 71))
    assert "Double(2)" not in text


def test_a_note_that_holds_the_program_is_not_used():
    row = mbpp_row(1, code="answer = 6 * 7", test_list=["assert answer == 42"])
    telling = mbpp_row(74, text="What is x after answer = 6 * 7, x = answer?")
    text = TOKENIZER.decode(build(row, [telling, mbpp_row(73)]).prompt)
    assert "What is x" not in text


def test_no_program_is_in_two_splits_in_other_spacing(tmp_path):
    rows = [mbpp_row(number) for number in range(30)]
    again = [row | {"code": row["code"].replace(" + ", "+")} for row in rows[:9]]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "validation.jsonl", again)
    files = Files("train.jsonl", "validation.jsonl")
    asked = TASK.Settings(train_size=21, validation_size=9, files=files, notes=False)
    split = load_split(TASK, asked, "train", TOKENIZER, tmp_path / "cache", [tmp_path])
    assert split.dropped == {"near-copies of rows that another split holds": 9}


@pytest.mark.parametrize(
    ("changes", "limits", "reason"),
    [
        ({"code": "def f(): pass"}, {"max_answer_tokens": 12}, "programs over 12 tokens"),
        ({}, {"max_prompt_tokens": 90}, "problems over 90 tokens"),
        ({"text": " "}, {}, "rows without a problem or a program"),
        ({"code": "\r\n"}, {}, "rows without a problem or a program"),
        (
            {"test_list": ["assert f(1) == g(1)"]},
            {},
            "rows whose tests cannot be run apart from the program",
        ),
        ({"test_list": []}, {}, "rows whose tests cannot be run apart from the program"),
        ({"code": "x = 1\nprint(x)"}, {}, "programs that have a stop inside"),
        ({"code": "assert True"}, {}, "programs that have a stop inside"),
    ],
)
def test_rows_that_do_not_fit_are_left_out(changes, limits, reason):
    assert build(mbpp_row(1, **changes), **limits) == Dropped(reason)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"order": "notes_first"}, "order is one of problem_first, problem_last must hold"),
        ({"samples": 4}, "samples are drawn with execute only"),
        ({"execute": True, "samples": 4, "k": 5}, "1 <= k <= samples"),
        ({"execute": True, "k": 0}, "1 <= k <= samples"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"top_p": 0.0}, "0 < top_p <= 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        settings(**changes)


@pytest.mark.parametrize(
    ("written", "program"),
    [
        ("def f():\n  return 1", "def f():\n  return 1"),
        ("def f():\n  return 1\n\n\nmore", "def f():\n  return 1"),
        ("def f():\n  return 1\n\ndef g():\n  pass\nassert f() == 1", None),
        ("x = 1\nassert_x = 2\nprint(x)\n\n\n", "x = 1\nassert_x = 2"),
        ("x = 1\n```\nExplanation", "x = 1"),
        ("\n\n\nx = 1", ""),
        ("", ""),
    ],
)
def test_what_is_written_is_cut_at_the_first_stop(written, program):
    assert cut(written) == (written.partition("\nassert ")[0] if program is None else program)


@pytest.mark.parametrize("samples", [1, 3, 6])
def test_pass_at_k_is_the_share_of_subsets_with_one_that_passed(samples):
    for passed, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        outcomes = [True] * passed + [False] * (samples - passed)
        subsets = list(itertools.combinations(outcomes, k))
        wanted = sum(map(any, subsets)) / len(subsets)
        assert math.isclose(pass_at_k(samples, passed, k), wanted, abs_tol=1e-12)


def test_programs_are_written_and_scored_only_where_they_are_executed():
    plain, run, drawn = settings(), settings(execute=True), settings(execute=True, samples=3)
    names = [[metric.name for metric in TASK.measured(each)] for each in (plain, run, drawn)]
    assert names[0] == ["token_accuracy", "nll"]
    assert names[1] == [*names[0], "pass_at_1", "tests_passed"]
    assert names[2] == [*names[1], "pass_at_k"]
    assert TASK.primary(plain) == "token_accuracy"
    assert TASK.primary(run) == "pass_at_1"
    assert TASK.generation(plain, TOKENIZER) is TASK.scorer(plain, TOKENIZER) is None
    assert TASK.generation(drawn, TOKENIZER).samples == 3


@pytest.fixture
def isolation():
    if reason := sandbox.refusal():
        pytest.skip(reason)


def measured(example, *programs, **changes):
    scorer = TASK.scorer(settings(execute=True, **changes), TOKENIZER)
    generated = tuple(tuple(TOKENIZER.encode(program)) for program in programs)
    return scorer(example, Prediction((), generated=generated))


@pytest.mark.usefixtures("isolation")
def test_the_greedy_program_is_run_and_so_are_the_drawn_ones():
    example = build(ROW)
    half = "def double(n):\n  return 2"
    assert measured(example, CODE) == {"pass_at_1": 1.0, "tests_passed": 1.0}
    assert measured(example, half) == {"pass_at_1": 0.0, "tests_passed": 0.5}
    assert measured(example, f"{CODE}\nassert double(1) == 3")["pass_at_1"] == 1.0
    found = measured(example, half, CODE, half, "", half, samples=4, k=2)
    assert found == {"pass_at_1": 0.0, "tests_passed": 0.5, "pass_at_k": pytest.approx(0.5)}


@pytest.mark.usefixtures("isolation")
def test_examples_measured_at_the_same_time_keep_their_order():
    examples = [build(mbpp_row(number)) for number in range(9)]
    scoring = Scoring(TASK.scorer(settings(execute=True), TOKENIZER), at_once=3)
    predictions = [Prediction((), generated=(examples[n // 2 * 2].answer,)) for n in range(9)]
    found = scoring.measures(examples, predictions)
    assert [row["pass_at_1"] for row in found] == [1.0, 0.0] * 4 + [1.0]


@pytest.mark.usefixtures("isolation")
def test_setup_of_the_tests_is_run():
    row = mbpp_row(
        1,
        code="class Node:\n  value = 3\ndef value(node):\n  return node.value",
        test_list=["assert value(root) == 3"],
        test_setup_code="root = Node()\r\n",
    )
    assert measured(build(row), program_of(row))["pass_at_1"] == 1.0


@pytest.mark.usefixtures("isolation")
def test_gold_programs_score_one_and_guesses_nothing(case_data, tmp_path):
    asked = TASK.Settings(**SIZES, **CASES["mbpp"] | {"execute": True, "samples": 2})
    splits = [
        load_split(TASK, asked, name, TOKENIZER, tmp_path, [case_data])
        for name in ("train", "validation")
    ]
    scorer = TASK.scorer(asked, TOKENIZER)
    examples = [splits[1].example(index) for index in range(len(splits[1]))]
    predictions = [Prediction((), generated=(example.answer,) * 3) for example in examples]
    measures = gathered(Scoring(scorer, at_once=4).measures(examples, predictions))
    executed = [metric for metric in TASK.measured(asked) if metric.name in measures]
    assert [metric.score(measures) for metric in executed] == [1.0, 1.0, 1.0]
    guesses = guess_scores(TASK, asked, TOKENIZER, *splits)
    assert [guesses["majority"][metric.name] for metric in executed] == [0.0, 0.0, 0.0]
    first = [guesses["value of the first test"][metric.name] for metric in executed]
    assert first == pytest.approx([0.0, 1 / 3, 0.0])


def test_real_rows_give_examples_and_keep_their_programs_apart(tmp_path, real_data):
    files = Files(
        train=str(real_data / "mbpp" / "train.jsonl"),
        validation=str(real_data / "mbpp" / "validation.jsonl"),
    )
    asked = settings(
        train_size=330,
        validation_size=50,
        test_size=30,
        files=files,
        max_prompt_tokens=3072,
        max_answer_tokens=600,
    )
    answers = {}
    for name in SPLIT_NAMES:
        split = load_split(TASK, asked, name, TOKENIZER, tmp_path, [])
        assert set(split.prompt_lengths.tolist()) == {3072}
        assert "rows whose tests cannot be run apart from the program" not in split.dropped
        answers[name] = {split.example(index).answer for index in range(len(split))}
    assert not answers["train"] & (answers["validation"] | answers["test"])
    assert not answers["validation"] & answers["test"]
    other = load_split(TASK, replace(asked, order="problem_last"), "test", TOKENIZER, tmp_path, [])
    assert {other.example(index).answer for index in range(len(other))} == answers["test"]
