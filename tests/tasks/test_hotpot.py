"""hotpot's template, its trimming and its reasons to leave a row out."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_cases import Bytes, hotpot_row

from tasks import registry
from tasks.catalog.hotpot import Paragraph, trimmed
from tasks.example import Example
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import Dropped

TASK = registry.get("hotpot")
TOKENIZER = Bytes()
PARAGRAPHS = st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=8)


def build(row, **changes):
    sizes = {"train_size": 1, "validation_size": 1}
    return TASK.builder(TASK.Settings(**sizes | changes), TOKENIZER, ())(row)


def texts(row, **changes):
    example = build(row, **changes)
    return TOKENIZER.decode(example.prompt), TOKENIZER.decode(example.answer)


def paragraph_texts(row):
    context = row["context"]
    return [
        f"{title}: {' '.join(''.join(sentences).split())}\n\n"
        for title, sentences in zip(context["title"], context["sentences"], strict=True)
    ]


def supports(row):
    return [title in row["supporting_facts"]["title"] for title in row["context"]["title"]]


def test_the_templates_of_both_orders():
    row = hotpot_row(
        0,
        question="Where\n is it? ",
        answer=" in  Bergen ",
        context={"title": ["A ", "B"], "sentences": [["One.", " Two."], ["Three.\n", "Four."]]},
        supporting_facts={"title": ["B"], "sent_id": [0]},
    )
    context = "Context:\nA: One. Two.\n\nB: Three. Four.\n\n"
    question = "Question: Where is it?\n\n"
    answer = " in Bergen\n"
    assert texts(row) == (f"{context}{question}Answer:", answer)
    assert texts(row, order="question_first") == (f"{question}{context}Answer:", answer)


def keyed(shape):
    """Paragraphs whose tokens tell where they come from: (paragraph, position)."""
    return [
        Paragraph([(number, position) for position in range(length)], kept)
        for number, (length, kept) in enumerate(shape)
    ]


@settings(max_examples=150, deadline=None)
@given(PARAGRAPHS, st.integers(0, 160))
def test_trimming_drops_whole_far_distractors_before_it_cuts_anything(shape, budget):
    paragraphs = keyed(shape)
    everything = [token for paragraph in paragraphs for token in paragraph.tokens]
    kept = trimmed(paragraphs, budget)
    # In order, within the budget, and everything where it fits.
    assert kept == [token for token in everything if token in set(kept)]
    assert len(kept) <= budget
    assert kept == everything or len(everything) > budget
    per_paragraph = Counter(number for number, _ in kept)
    lost = [number for number, (length, _) in enumerate(shape) if per_paragraph[number] < length]
    distractors = [number for number, (_, support) in enumerate(shape) if not support]
    lost_support = [number for number in lost if shape[number][1]]
    if lost_support:
        # Evidence goes only when no distractor is left, and then the budget is full.
        assert not any(per_paragraph[number] for number in distractors)
        assert len(kept) == budget
        rest = [token for token in everything if shape[token[0]][1]]
        assert kept == rest[len(rest) - len(kept) :]
    else:
        # Distractors go whole, the far ones first, and no more of them than needed.
        assert not any(per_paragraph[number] for number in lost)
        assert lost == distractors[: len(lost)]
        assert not lost or len(kept) + shape[lost[-1]][0] > budget


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(1, 7), st.integers(90, 700))
def test_a_prompt_keeps_its_frame_and_both_orders_the_same_context(number, paragraphs, limit):
    row = hotpot_row(number, max(4, paragraphs))
    last = build(row, max_prompt_tokens=limit)
    first = build(row, max_prompt_tokens=limit, order="question_first")
    question = f"Question: {row['question']}\n\n"
    assert isinstance(last, Example)
    assert last.answer == first.answer == tuple(TOKENIZER.encode(f" {row['answer']}\n"))
    assert len(last.prompt) == len(first.prompt) <= limit
    last_text, first_text = TOKENIZER.decode(last.prompt), TOKENIZER.decode(first.prompt)
    assert last_text.endswith(f"{question}Answer:")
    assert first_text.startswith(question)
    context = last_text.removesuffix(f"{question}Answer:")
    assert context.startswith("Context:\n")
    assert first_text == f"{question}{context}Answer:"
    paragraph_list = list(zip(paragraph_texts(row), supports(row), strict=True))
    untrimmed = "".join(text for text, _ in paragraph_list)
    assert (
        context == f"Context:\n{untrimmed}"
        or len(f"Context:\n{untrimmed}{question}Answer:") > limit
    )
    if any(text in context for text, support in paragraph_list if not support):
        assert all(text in context for text, support in paragraph_list if support)


@pytest.mark.parametrize(
    ("changes", "settings_changes", "reason"),
    [
        ({"answer": " \n"}, {}, "empty answers"),
        ({"answer": "x" * 8}, {"max_answer_tokens": 8}, "answers over 8 tokens"),
        ({}, {"min_prompt_tokens": 5000}, "prompts under 5000 tokens"),
        ({}, {"max_prompt_tokens": 40}, "questions that alone need over 40 tokens"),
        (
            {"supporting_facts": {"title": ["elsewhere"], "sent_id": [0]}},
            {},
            "contexts without a supporting paragraph",
        ),
        (
            {"context": {"title": ["a", "b"], "sentences": [["one"]]}},
            {},
            "contexts whose titles and paragraphs differ in number",
        ),
    ],
)
def test_a_row_that_gives_no_example_says_why(changes, settings_changes, reason):
    assert build(hotpot_row(1, **changes), **settings_changes) == Dropped(reason)


def test_limits_are_inclusive():
    row = hotpot_row(1)
    size = len(build(row).prompt)
    assert build(row, min_prompt_tokens=size) == build(row)
    assert isinstance(build(row, min_prompt_tokens=size + 1), Dropped)
    assert build(row, max_prompt_tokens=size) == build(row)
    assert len(build(row, max_prompt_tokens=size - 1).prompt) < size
    answer = len(build(row).answer) - 1  # the end of the line does not count
    assert build(row, max_answer_tokens=answer) == build(row)
    assert isinstance(build(row, max_answer_tokens=answer - 1), Dropped)


def test_min_prompt_tokens_looks_at_the_untrimmed_prompt():
    row = hotpot_row(1)
    size = len(build(row).prompt)
    assert len(build(row, min_prompt_tokens=size, max_prompt_tokens=150).prompt) <= 150


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"order": "query_last"}, "order is one of question_last, question_first"),
        ({"max_answer_tokens": 0}, "max_answer_tokens >= 1"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens >= 1"),
        ({"min_prompt_tokens": -1}, "min_prompt_tokens >= 0"),
        ({"columns": {"titles": "t"}}, r"among question, .* got \['titles'\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        TASK.Settings(train_size=1, validation_size=1, **changes)


def test_it_renders_with_the_answer_marked():
    example = build(hotpot_row(1))
    text = TASK.render(example, TOKENIZER)
    assert text == TOKENIZER.decode(example.prompt) + "⟦ 4 years\n⟧"


def test_real_rows(real_data, tmp_path):
    files = Files(train="hotpot/train.jsonl", validation="hotpot/validation.jsonl")
    limits = {"max_prompt_tokens": 1024, "min_prompt_tokens": 1536, "files": files}
    sizes = {"train_size": 300, "validation_size": 40, "test_size": 20}
    orders = [TASK.Settings(**sizes, **limits, order=order) for order in TASK.orders]
    for name in ("train", "validation", "test"):
        last, first = (
            load_split(TASK, order, name, TOKENIZER, tmp_path, [real_data]) for order in orders
        )
        assert len(last) == len(first) == sizes[f"{name}_size"]
        assert (last.prompt_lengths == first.prompt_lengths).all()
        assert last.prompt_lengths.max() <= 1024
        for index in range(len(last)):
            a, b = last.example(index), first.example(index)
            assert a.answer == b.answer
            assert Counter(a.prompt) == Counter(b.prompt)
            assert TOKENIZER.decode(a.prompt).count("Question: ") >= 1
            assert TOKENIZER.decode(b.prompt).startswith("Question: ")
