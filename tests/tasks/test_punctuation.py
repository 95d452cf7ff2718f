"""punctuation in both forms: texts, templates, leaks, and the scores of marks and cases."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from task_cases import WORDS, Bytes, prose_row, write_rows

from model.tokenizer import WorldTokenizer
from tasks import registry
from tasks.catalog.punctuation_marks import (
    MARKS,
    RESTORATION,
    Word,
    aligned,
    plain,
    restored,
    words,
)
from tasks.controls import controlled
from tasks.example import TaskError
from tasks.guesses import guess_scores
from tasks.metrics import gathered
from tasks.parts.answers import normalised
from tasks.parts.text import detokenised, sentences
from tasks.scoring import Prediction
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES, Dropped

AFTER, INPLACE = registry.get("punctuation"), registry.get("punctuation_inplace")
BOTH = pytest.mark.parametrize("task", [AFTER, INPLACE], ids=lambda task: task.name)
TOKENIZER = Bytes()
SIZES = {"train_size": 1, "validation_size": 1}
ROW = {
    "text": "Ann McDonald (born 1950), of NATO, saw  3,000 “well-known” U.S. ships; why?\n"
    "It's a boat!"
}
CLEAN = "Ann McDonald, of NATO, saw 3,000 well-known U.S. ships; why? It's a boat!"
NOISY = "ann mcdonald of nato saw 3,000 well-known u.s ships why it's a boat"


def build(task, row, tokenizer=TOKENIZER, material=(), **changes):
    return task.builder(task.Settings(**SIZES | changes), tokenizer, material)(row)


def test_wikitext_is_written_as_a_writer_would():
    apart = 'It cost 1 @,@ 000 in a 5 @-@ day week , " Rawls \'s first " ( see " A " ) : 2 @.@ 5 !'
    together = 'It cost 1,000 in a 5-day week, "Rawls\'s first" (see "A"): 2.5!'
    assert detokenised(apart) == together
    assert detokenised(together) == together


def test_sentences_joined_are_the_line_again():
    line = 'He left. "Did he?" Yes (he did.) I, J. Doe, saw 3.5 of them... Then e.g. this.'
    assert " ".join(sentences(line)) == line
    assert sentences(line)[:3] == ["He left.", '"Did he?"', "Yes (he did.)"]


def test_the_templates():
    after = build(AFTER, ROW)
    assert TOKENIZER.decode(after.prompt) == (
        f"Noisy transcript:\n {NOISY}\n\nTask: Restore punctuation and casing.\n\nAnswer:"
    )
    assert TOKENIZER.decode(after.answer) == f" {CLEAN}\n"
    inplace = build(INPLACE, ROW)
    assert TOKENIZER.decode(inplace.prompt) == f"Noisy transcript:\n {NOISY}"
    ends = [p for p in range(len(inplace.prompt)) if _ends_a_word(inplace.prompt, p)]
    assert list(inplace.target_positions) == ends[-len(NOISY.split()) :]


def _ends_a_word(prompt, place):
    after = prompt[place + 1 : place + 2]
    return after in ((), (ord(" "),)) and prompt[place] != ord("\n")


def test_words_marks_and_cases():
    told = [(word.mark, word.case) for word in words(CLEAN)]
    assert told == [
        ("", "capital"),
        (",", "other"),
        ("", "lower"),
        (",", "other"),
        ("", "lower"),
        ("", "lower"),
        ("", "lower"),
        (".", "other"),
        (";", "lower"),
        ("?", "lower"),
        ("", "capital"),
        ("", "lower"),
        ("!", "lower"),
    ]
    assert words("It – is") == [Word("it", "", "capital"), Word("is", "", "lower")]
    # Upper case, but no letter.
    assert words("Ⅳ.") == [Word("ⅳ", ".", "other")]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WorldTokenizer()], ids=lambda t: t.name)
def test_a_label_stands_at_its_words_last_token(tokenizer):
    example = build(INPLACE, {"text": f"{CLEAN} So – as NATO said – ended it, then."}, tokenizer)
    bare = [word.bare for word in words(example.reference)]
    start = example.prompt.index(tokenizer.encode(":\n")[-1]) + 1
    seen = []
    for position in example.target_positions:
        # A dash is read along with the word behind it.
        seen.append(tokenizer.decode(example.prompt[start : position + 1]).split()[-1])
        start = position + 1
    assert seen == bare
    assert len(set(example.target_tokens)) == len(
        {(word.mark, word.case) for word in words(example.reference)}
    )


def test_of_every_so_many_words_one_is_labelled():
    every, some = (build(INPLACE, ROW, stride=stride) for stride in (1, 4))
    assert some.prompt == every.prompt
    assert some.target_positions == every.target_positions[::4]
    assert some.target_tokens == every.target_tokens[::4]
    settings = INPLACE.Settings(**SIZES, stride=4)
    measures = INPLACE.scorer(settings, TOKENIZER)(some, Prediction(some.target_tokens))
    told = words(CLEAN)[::4]
    assert measures["mark_true"] == measures["mark_hits"] == sum(bool(w.mark) for w in told)
    guesses = INPLACE.trivial(settings, TOKENIZER, None)
    for name, guess in INPLACE.trivial(INPLACE.Settings(**SIZES), TOKENIZER, None).items():
        assert guesses[name](some).tokens == guess(every).tokens[::4]


def test_the_control_permutes_most_of_what_stands_to_the_right():
    with pytest.raises(ValueError, match=r"stride > 1 with control shuffled_future.*got 1"):
        INPLACE.Settings(**SIZES, control="shuffled_future")
    shares, world = [], WorldTokenizer()
    for number in range(20):
        example = build(INPLACE, prose_row(number), world, stride=8)
        behind = slice(example.target_positions[0] + 1, None)
        shuffled = controlled(example, "shuffled_future").prompt[behind]
        shares.append(np.not_equal(shuffled, example.prompt[behind]).mean())
    assert np.mean(shares) > 0.7


SENTENCE = st.lists(
    st.tuples(
        st.sampled_from(WORDS),
        st.sampled_from(["", "", ",", ";", ":"]),
        st.sampled_from([str.lower, str.capitalize, str.upper]),
    ),
    min_size=2,
    max_size=9,
)


@given(SENTENCE, st.sampled_from(".!?"), SENTENCE, st.sampled_from(".!?"))
@hypothesis_settings(max_examples=30, deadline=None)
def test_any_text_is_restored_from_its_labels_and_scores_one(one, end, other, last):
    text = " ".join(
        " ".join(case(word) + mark for word, mark, case in part[:-1])
        + f" {part[-1][2](part[-1][0])}{stop}"
        for part, stop in ((one, end), (other, last))
    )
    example = build(INPLACE, {"text": text}, min_chars=1)
    if isinstance(example, Dropped):
        return
    scorer = INPLACE.scorer(INPLACE.Settings(**SIZES), TOKENIZER)
    measures = scorer(example, Prediction(example.target_tokens))
    counted = Counter(character for character in text if character in MARKS)
    for mark, name in MARKS.items():
        assert {measures[f"{name}_{what}"] for what in ("hits", "said", "true")} == {counted[mark]}
    assert measures["mark_true"] == counted.total()
    assert measures["case_accuracy"] == 1


def test_scores_against_a_count_by_hand():
    true = words("We met, Ann. Did you see NATO?")
    said = words("we met. Ann, did you you see NATO.")
    measures = restored(aligned(true, said))
    # Ann's period became a comma, met's comma a period, and the question mark a period.
    assert (measures["mark_true"], measures["mark_said"], measures["mark_hits"]) == (3, 3, 0)
    assert (measures["period_true"], measures["period_said"], measures["comma_said"]) == (1, 2, 1)
    # Right: met, Ann, you, see, NATO of We, met, Ann, Did, you, see, NATO.
    assert measures["case_accuracy"] == 5 / 7
    assert (measures["case_true"], measures["case_said"], measures["case_hits"]) == (4, 2, 2)
    scores = {metric.name: metric.score(gathered([measures])) for metric in RESTORATION}
    assert scores["mark_f1"] == scores["question_f1"] == 0
    assert scores["case_f1"] == 2 * 2 / (4 + 2)
    better = restored(aligned(true, words("We met, Ann Did you see NATO? Yes.")))
    assert {w: better[f"mark_{w}"] for w in ("hits", "said", "true")} == {
        "hits": 2,
        "said": 3,
        "true": 3,
    }


def test_what_is_written_behind_the_line_end_does_not_count():
    world = WorldTokenizer()
    example = build(AFTER, ROW, world)
    scorer = AFTER.scorer(AFTER.Settings(**SIZES), world)
    behind = (*world.encode(f" {CLEAN}\n\nNoisy, but why?"),)
    assert example.answer[-1] not in behind
    found, wanted = (
        scorer(example, Prediction(example.answer, generated=(written,)))
        for written in (behind, example.answer)
    )
    assert found == wanted


def test_words_that_are_left_out_or_made_up_cost():
    true = words("One two, three four.")
    measures = restored(aligned(true, words("One five! three four.")))
    assert (measures["mark_hits"], measures["mark_said"], measures["mark_true"]) == (1, 2, 2)
    assert measures["case_accuracy"] == 3 / 4
    assert restored(aligned(true, []))["case_accuracy"] == 0


@BOTH
def test_prompts_are_filled_with_notes_that_hold_no_sentence_of_the_text(task):
    material = [prose_row(number) for number in range(40, 60)]
    example = build(task, prose_row(3), material=material, fill_to=900)
    assert len(example.prompt) == 900
    text = TOKENIZER.decode(example.prompt)
    assert text.startswith("Background notes:\n")
    notes = text.partition("\n\nNoisy transcript:\n")[0].splitlines()[1:]
    allowed = [plain(row["text"]) for row in material]
    assert all(note in allowed for note in notes[:-1])
    assert any(note.startswith(notes[-1]) for note in allowed)
    assert len(set(notes)) == len(notes)
    again = build(task, prose_row(3), material=material, fill_to=900)
    assert again == example


@BOTH
def test_a_text_of_which_the_notes_hold_a_sentence_is_left_out(task):
    reason = Dropped("texts of which the notes hold a sentence")
    material = [prose_row(number) for number in range(40, 60)]
    last = sentences(plain(prose_row(3)["text"]))[1].upper()
    leaking = [*material, {"text": f"Something else is said. {last}"}]
    assert build(task, prose_row(3), material=leaking, fill_to=900) == reason
    assert build(task, prose_row(3), material=leaking) != reason
    assert build(task, prose_row(3), material=material, fill_to=900) != reason


@BOTH
@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        ("Too short.", {}, "texts without marked sentences of 64 to 220 characters"),
        ("no mark " * 12, {}, "texts without marked sentences of 64 to 220 characters"),
        (f"{'Long, ' * 60}.", {}, "texts without marked sentences of 64 to 220 characters"),
        (CLEAN, {"max_prompt_tokens": 70}, "prompts over 70 tokens"),
    ],
)
def test_rows_that_do_not_fit_are_left_out(task, text, changes, reason):
    assert build(task, {"text": text}, **changes) == Dropped(reason)


def test_an_answer_too_long_is_left_out():
    length = len(f" {CLEAN}")
    assert build(AFTER, ROW, max_answer_tokens=length) != Dropped(f"texts over {length} tokens")
    assert build(AFTER, ROW, max_answer_tokens=length - 1) == Dropped(
        f"texts over {length - 1} tokens"
    )


def test_the_first_sentences_that_fit_are_taken():
    text = f"{'A very long one, ' * 20}it is. One fits, here. Two fits. {'Three ' * 8}is more."
    example = build(AFTER, {"text": text}, min_chars=10, max_chars=30)
    assert example.reference == "One fits, here. Two fits."


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"min_chars": 0}, "min_chars >= 1"),
        ({"max_chars": 63}, "max_chars >= min_chars = 64"),
        ({"fill_to": 511}, "fill_to is 0 or at least max_prompt_tokens"),
        ({"max_answer_tokens": 0}, "max_answer_tokens >= 1"),
        ({"columns": {"txt": "page"}}, "columns names fields among text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        AFTER.Settings(**SIZES | changes)


def test_too_few_notes_are_told():
    with pytest.raises(TaskError, match=r"punctuation: the notes are \d+ tokens too short"):
        build(AFTER, prose_row(3), material=[prose_row(40)], fill_to=900)


@BOTH
def test_paragraphs_of_which_the_same_text_is_taken_feed_one_split(task, tmp_path):
    rows = [prose_row(number) for number in range(200)]
    rows += [{"text": f"{row['text']} No {'more, ' * 40}so it ends."} for row in rows]
    write_rows(tmp_path / "rows.jsonl", rows)
    files = Files("rows.jsonl", "rows.jsonl")
    asked = task.Settings(train_size=100, validation_size=15, test_size=15, files=files)
    texts = []
    for name in SPLIT_NAMES:
        split = load_split(task, asked, name, TOKENIZER, tmp_path / "cache", [tmp_path])
        texts += [split.example(index).reference for index in range(len(split))]
        assert split.dropped["repeats of another row"] > 0
    assert len(set(texts)) == len(texts)


@BOTH
def test_copying_finds_no_mark_and_one_sentence_some(task, tmp_path, real_data):
    pool = str(real_data / "wikitext" / "wiki_paragraphs_validation.jsonl")
    asked = task.Settings(
        train_size=200,
        validation_size=40,
        test_size=40,
        max_prompt_tokens=600,
        fill_to=1000,
        files=Files(train=pool, validation=pool),
    )
    splits = {name: load_split(task, asked, name, TOKENIZER, tmp_path, []) for name in SPLIT_NAMES}
    train, split = splits["train"], splits["validation"]
    scores = guess_scores(task, asked, TOKENIZER, train, split)
    assert scores["copy"]["mark_f1"] == scores["copy"]["case_f1"] == 0
    assert scores["copy"]["case_accuracy"] < scores["one_sentence"]["case_accuracy"]
    assert 0.1 < scores["one_sentence"]["mark_f1"] < 0.7
    texts = {name: {s.example(i).reference for i in range(len(s))} for name, s in splits.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    for index in range(len(train)):
        example = train.example(index)
        notes = TOKENIZER.decode(example.prompt).partition("\n\nNoisy transcript:\n")[0]
        told = [normalised(one) for one in sentences(example.reference) if len(one.split()) > 5]
        assert not any(one in normalised(notes) for one in told)
