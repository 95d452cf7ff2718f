"""The generated probes against readers that know nothing but the text of a prompt."""

import re

import pytest
from task_cases import Bytes

from model.tokenizer import WorldTokenizer
from tasks.catalog.constr import Constr
from tasks.catalog.lists import MiddleMatch, NameIndex
from tasks.catalog.retrieval import CopyA2Q, Retrieval, RetrievalA2Q
from tasks.catalog.sorting import KvSort, KvSortAfter, PermFill
from tasks.example import TaskError
from tasks.splits import load_split

SIZES = {"train_size": 40, "validation_size": 10}


def read_retrieval(prompt):
    (asked,) = re.findall(r"Q=(\w+);", prompt)
    (value,) = [v for k, v in re.findall(r"(\w+)=(\w+);", prompt) if k == asked]
    return value


def read_retrieval_a2q(prompt):
    value = prompt.rpartition("A=")[2]
    (key,) = [k for k, v in re.findall(r"(\w+)=(\w+);", prompt) if v == value]
    return key


def read_copy_a2q(prompt):
    return prompt.split(";A=")[1]


def read_kvsort(prompt):
    by_key = dict(re.findall(r"(\d+):(\d+)", prompt))
    return "".join(by_key[f"{key:02d}"] for key in range(100) if f"{key:02d}" in by_key)


def read_permfill(prompt):
    span, order, items = re.fullmatch(r"M=(\w+)\|O=(\w+)\|I=(\w+)", prompt).groups()
    ordered = [symbol for symbol in order if symbol in items]
    assert all(seen in ("_", symbol) for seen, symbol in zip(span, ordered, strict=True))
    return "".join(s for seen, s in zip(span, ordered, strict=True) if seen == "_")


def read_nameindex(prompt):
    (names,) = re.findall(r"N=([\w,]+);", prompt)
    (index,) = re.findall(r"I=(\d+);", prompt)
    return names.split(",")[int(index) - 1]


def read_middlematch(prompt):
    (names,) = re.findall(r"N=([\w,]+);", prompt)
    left, right = re.findall(r"L=(\w+),R=(\w+);", prompt)[0]
    (middle,) = re.findall(rf"\b{left},(\w+),{right}\b", names)
    return middle


def read_constr(prompt):
    left, length, first, second = re.fullmatch(r"P=(\d+)\|M=(_+)\|R=(\d)(\d)", prompt).groups()
    assert first != second
    return (left[-1] + (first + second) * len(length))[: len(length)]


READERS = [
    (Retrieval, {}, read_retrieval),
    (Retrieval, {"order": "query_first"}, read_retrieval),
    (RetrievalA2Q, {}, read_retrieval_a2q),
    (CopyA2Q, {}, read_copy_a2q),
    (KvSort, {}, read_kvsort),
    (KvSortAfter, {}, read_kvsort),
    (PermFill, {}, read_permfill),
    (PermFill, {"items": 36, "anchors": 0}, read_permfill),
    (NameIndex, {}, read_nameindex),
    (NameIndex, {"order": "query_first"}, read_nameindex),
    (MiddleMatch, {}, read_middlematch),
    (MiddleMatch, {"order": "query_first"}, read_middlematch),
    (Constr, {}, read_constr),
]


@pytest.mark.parametrize("tokenizer", [Bytes(), WorldTokenizer()], ids=["bytes", "world"])
@pytest.mark.parametrize(("task", "changes", "read"), READERS)
def test_the_prompt_alone_tells_what_is_wanted(task, changes, read, tokenizer, tmp_path):
    settings = task.Settings(**SIZES, **changes)
    split = load_split(task(), settings, "train", tokenizer, tmp_path, [])
    for index in range(len(split)):
        example = split.example(index)
        prompt = tokenizer.decode(example.prompt)
        wanted = tokenizer.decode(example.target_tokens + example.answer)
        assert len(prompt) == len(example.prompt)
        assert len(wanted) == split.target_counts[index]
        assert wanted == read(prompt)
        assert {prompt[position] for position in example.target_positions} <= {"_"}
        assert prompt.count("_") == len(example.target_positions)


@pytest.mark.parametrize(
    ("task", "row", "changes", "text"),
    [
        (
            Retrieval,
            {"keys": ["ab", "cd"], "values": ["40", "55"], "asked": 1},
            {},
            "ab=40;cd=55;Q=cd;A=⟦55⟧",
        ),
        (
            Retrieval,
            {"keys": ["ab", "cd"], "values": ["40", "55"], "asked": 0},
            {"order": "query_first"},
            "Q=ab;ab=40;cd=55;A=⟦40⟧",
        ),
        (
            RetrievalA2Q,
            {"keys": ["ab", "cd"], "values": ["40", "55"], "asked": 1},
            {},
            "Q=⟦__ → cd⟧;ab=40;cd=55;A=55",
        ),
        (CopyA2Q, {"copied": "k3x9"}, {"length": 4}, "Q=⟦____ → k3x9⟧;A=k3x9"),
        (
            KvSort,
            {"keys": ["31", "12"], "values": ["55", "90"]},
            {"pairs": 2, "value_width": 2},
            "M=⟦____ → 9055⟧|31:55,12:90",
        ),
        (
            KvSort,
            {"keys": ["31", "12"], "values": ["33", "22"]},
            {"pairs": 2, "value_width": 2, "alphabet": "321"},
            "M=⟦____ → 3322⟧|31:33,12:22",
        ),
        (
            KvSortAfter,
            {"keys": ["31", "12"], "values": ["55", "90"]},
            {},
            "31:55,12:90|Q=SORT|A=⟦9055⟧",
        ),
        (
            PermFill,
            {"order": "dcba", "items": "acd", "anchors": [1]},
            {"items": 3, "anchors": 1, "alphabet": "abcd"},
            "M=⟦_ → d⟧c⟦_ → a⟧|O=dcba|I=acd",
        ),
        (
            NameIndex,
            {"names": ["ab", "cd", "ef"], "asked": 1},
            {"names": 10},
            "N=ab,cd,ef;Q=I=02;A=⟦cd⟧",
        ),
        (
            MiddleMatch,
            {"names": ["ab", "cd", "ef"], "asked": 1},
            {"order": "query_first"},
            "Q=L=ab,R=ef;N=ab,cd,ef;A=⟦cd⟧",
        ),
        (
            Constr,
            {"left": "40713", "turn": "51"},
            {"length": 5},
            "P=40713|M=⟦_____ → 35151⟧|R=51",
        ),
    ],
)
def test_a_row_as_the_model_sees_it(task, row, changes, text, tokenizer):
    example = task().builder(task.Settings(**SIZES, **changes), tokenizer, ())(row)
    assert task().render(example, tokenizer) == text


@pytest.mark.parametrize(
    ("task", "changes", "rule"),
    [
        (Retrieval, {"order": "last"}, "order is one of query_last, query_first"),
        (Retrieval, {"pairs": 1}, "pairs >= 2 must hold, got 1"),
        (Retrieval, {"key_width": 0}, "key_width >= 1"),
        (Retrieval, {"value_width": 0}, "value_width >= 1"),
        (Retrieval, {"key_alphabet": "abb"}, "key_alphabet has at least 2 characters and none"),
        (Retrieval, {"value_alphabet": "ab="}, "value_alphabet holds none of '=;'"),
        (Retrieval, {"key_width": 1, "pairs": 37}, "keys of 1 symbols among 36: at most 36 must"),
        (Retrieval, {"value_width": 1, "pairs": 11}, "values of 1 symbols among 10: at most 10"),
        (RetrievalA2Q, {"mask": "a"}, "key_alphabet holds neither the mask 'a'"),
        (RetrievalA2Q, {"mask": ";"}, "mask is one character and none of '=;'"),
        (CopyA2Q, {"length": 0}, "length >= 1"),
        (CopyA2Q, {"mask": "__"}, "mask is one character"),
        (CopyA2Q, {"alphabet": "ab_"}, "alphabet holds neither the mask"),
        (KvSort, {"mask": "1"}, "alphabet holds neither the mask '1'"),
        (KvSort, {"pairs": 1}, "pairs >= 2"),
        (KvSortAfter, {"alphabet": "ab:"}, "alphabet holds none of"),
        (KvSortAfter, {"key_width": 0}, "key_width >= 1"),
        (KvSortAfter, {"value_width": 0}, "value_width >= 1"),
        (KvSortAfter, {"key_width": 1, "pairs": 11}, "at most 10 must hold, got 11"),
        (PermFill, {"items": 37}, "2 <= items <= 36"),
        (PermFill, {"anchors": 19}, "0 <= anchors <= items - 2 = 18 must hold, got 19"),
        (PermFill, {"mask": "|"}, "mask is one character"),
        (NameIndex, {"order": "first"}, "order is one of"),
        (NameIndex, {"names": 2}, "names >= 3"),
        (NameIndex, {"name_width": 0}, "name_width >= 1"),
        (
            MiddleMatch,
            {"name_width": 1},
            "names of 1 symbols among 36: at most 36 must hold, got 96",
        ),
        (MiddleMatch, {"alphabet": "ab,"}, "alphabet holds none of"),
        (Constr, {"length": 1}, "length >= 2"),
        (Constr, {"mask": "="}, "mask is one character"),
        (Constr, {"alphabet": "a"}, "at least 2 characters"),
    ],
)
def test_settings_that_make_no_sense_are_refused(task, changes, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        task.Settings(**SIZES | changes)


@pytest.mark.parametrize(
    "task",
    [Retrieval, RetrievalA2Q, CopyA2Q, KvSort, KvSortAfter, PermFill, NameIndex, MiddleMatch],
)
def test_a_symbol_of_several_tokens_is_refused(task, tokenizer):
    name = "key_alphabet" if task in (Retrieval, RetrievalA2Q) else "alphabet"
    settings = task.Settings(**SIZES, **{name: "abcdefghijklmnopqrsté"})
    with pytest.raises(
        TaskError, match=f"^{task.name}: every character must be one token, but 'é'"
    ):
        task().builder(settings, tokenizer, ())


@pytest.mark.parametrize("task", [Retrieval, NameIndex])
def test_no_list_serves_two_questions(task, tmp_path, tokenizer):
    # So few lists that some would be drawn again, with another question.
    few = {"pairs": 2, "key_alphabet": "ab", "key_width": 1, "value_alphabet": "ab"}
    few |= {"value_width": 2} if task is Retrieval else {}
    if task is NameIndex:
        few = {"names": 3, "alphabet": "ab", "name_width": 2}
    prompts = []
    for name, size in (("train", 8), ("validation", 1)):
        settings = task.Settings(train_size=8, validation_size=1, **few)
        split = load_split(task(), settings, name, tokenizer, tmp_path, [])
        assert len(split) == size
        prompts += [tokenizer.decode(split.example(i).prompt) for i in range(size)]
    lists = [prompt.split("Q=")[0] for prompt in prompts]
    assert len(set(lists)) == len(lists)
