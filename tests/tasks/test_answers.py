"""Written answers against the rules of the official evaluation scripts."""

import pytest
from task_cases import Bytes

from model.tokenizer import WorldTokenizer
from tasks.example import Example
from tasks.parts.answers import (
    CLOSED,
    answer_scorer,
    exact_match,
    normalised,
    reference,
    to_the_line_end,
    word_f1,
)
from tasks.scoring import Prediction


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Eiffel-Tower!", "eiffeltower"),
        ("an apple a day", "apple day"),
        ("Theatre", "theatre"),
        ("  A.  B ", "b"),
        ("1,000 km", "1000 km"),
        ("the", ""),
    ],
)
def test_texts_are_compared_without_case_articles_punctuation_and_spacing(text, wanted):
    assert normalised(text) == wanted


def test_exact_match_takes_the_best_gold_answer():
    assert exact_match(" The Tower.\n", ["a bridge", "tower"]) == 1.0
    assert exact_match("tower bridge", ["a bridge", "tower"]) == 0.0


@pytest.mark.parametrize(
    ("written", "gold", "wanted"),
    [
        ("red house", ["the red house"], 1.0),
        ("red big house", ["red house"], 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("house house", ["house"], 2 * 0.5 * 1 / 1.5),
        ("green", ["red house"], 0.0),
        ("", ["red house"], 0.0),
        ("red", ["blue", "red house"], 2 * 1 * 0.5 / 1.5),
    ],
)
def test_f1_counts_words_as_often_as_both_have_them(written, gold, wanted):
    assert word_f1(written, gold) == pytest.approx(wanted)


def test_yes_and_no_score_nothing_against_anything_else():
    assert word_f1("yes it is", ["yes"], CLOSED) == 0.0
    assert word_f1("yes", ["yes sir"], CLOSED) == 0.0
    assert word_f1("Yes.", ["yes"], CLOSED) == 1.0
    assert word_f1("yes", ["yes sir"]) == pytest.approx(2 / 3)


def test_the_greedy_answer_is_scored_against_the_references():
    tokens = Bytes().encode
    example = Example((1,), tuple(tokens(" ten")), reference=reference(["ten", "10"]))
    prediction = Prediction((0,) * 4, generated=(tuple(tokens(" 10")), tuple(tokens(" ten"))))
    found = answer_scorer(Bytes())(example, prediction)
    assert found == {"answer_em": 1.0, "answer_f1": 1.0}
    assert to_the_line_end(Bytes(), 7).stop == ((10,),)


def test_what_stands_behind_the_line_end_is_no_part_of_the_answer():
    world = WorldTokenizer()
    written = tuple(world.encode(" ten\n\nQuestion: how many"))
    stop = to_the_line_end(world, 24).stop[0]
    assert stop[0] not in written  # merged with the line end behind it
    example = Example((1,), (*world.encode(" ten"), *stop), reference=reference(["ten"]))
    found = answer_scorer(world)(example, Prediction((0,) * 2, generated=(written,)))
    assert found == {"answer_em": 1.0, "answer_f1": 1.0}
