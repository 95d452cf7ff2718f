"""Small settings of every task, rows to build them from, and a byte tokenizer."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tasks.parts.symbols import BASE_36
from tasks.sources import Files

_WORDS = "amber birch cedar delta ember fjord grove heath inlet jetty knoll larch"
WORDS = _WORDS.split()


class Bytes:
    """One token per byte of UTF-8."""

    name = "bytes"
    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")


class Refusing(Bytes):
    """Fails where anything is tokenised."""

    def encode(self, text: str) -> list[int]:
        raise AssertionError(f"tokenised again: {text!r}")


def hotpot_row(number: int, paragraphs: int = 5, **changes: Any) -> dict[str, Any]:
    """A row like HotpotQA's: paragraphs 1 and 3 hold the supporting facts."""
    titles = [f"{WORDS[(number + p) % 12].title()} {number}.{p}" for p in range(paragraphs)]
    sentences = [
        [
            f"{title} stands by the {WORDS[(number * 7 + p) % 12]}.",
            f" It is {p + number} years old.",
        ]
        for p, title in enumerate(titles)
    ]
    row = {
        "id": f"row{number}",
        "question": f"How old is the {WORDS[number % 12]} of number {number}?",
        "answer": f"{number + 3} years",
        "context": {"title": titles, "sentences": sentences},
        "supporting_facts": {"title": [titles[1], titles[3], titles[3]], "sent_id": [0, 0, 1]},
    }
    return row | changes


def arc_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row like ARC's: three to five options, labelled by letters or by digits."""
    count = 3 + number % 3
    words = [WORDS[(number * 5 + n) % 12] for n in range(count)]
    labels = list("ABCDE" if number % 2 else "12345")[:count]
    row = {
        "id": f"row{number}",
        "question": f"Which tree is number {number}?",
        "choices": {
            "text": [f"{word} {'x' * (n % 3)}".strip() for n, word in enumerate(words)],
            "label": labels,
        },
        "answerKey": labels[number * 7 % count],
    }
    return row | changes


def squad_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row like SQuAD's: four rows an article, two a passage."""
    article, passage = number // 4, number // 2
    words = [WORDS[(passage * k + k) % 12] for k in range(1, 9)]
    row = {
        "id": f"row{number}",
        "title": f"Article_{article}",
        "context": f"Passage {passage} is on {' and '.join(words)}. It has {passage + 100} pages.",
        "question": f"How many pages has passage {passage}, asked {number % 2 + 1} times?",
        "answers": {"text": [f"{passage + 100}", f"{passage + 100} pages"], "answer_start": [0, 0]},
    }
    return row | changes


def prose_row(number: int, **changes: Any) -> dict[str, Any]:
    """A paragraph of some sentences, with every mark and case in it."""
    a, b, c = (WORDS[(number * k + k) % 12] for k in (1, 5, 7))
    row = {
        "text": f"Who saw {a.title()} number {number}? The {b} did; {c.upper()} {number} did not: "
        f"so. Look, it was {a} or {number + 100}! Then came the {number}th rain, and NATO left."
    }
    return row | changes


def mbpp_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row like MBPP's, with the line ends that some of its programs have."""
    word, name = WORDS[number % 12], f"{WORDS[number * 7 % 12]}_{number}"
    row = {
        "task_id": number,
        "text": f"Write a function to add {number} to the length of {word}.",
        "code": f"def {name}(text):\r\n  return len(text) + {number} \r\n",
        "test_list": [
            f'assert {name}("{word}") == {len(word) + number}',
            f'assert {name}("") == {number}',
            f'assert {name}("{word * 2}") == {2 * len(word) + number}',
        ],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    return row | changes


def protein_row(number: int, length: int = 60, **changes: Any) -> dict[str, Any]:
    """A chain with its secondary structure: the states follow from the residues around them."""
    stream = Random(number)
    residues = "".join(stream.choices("ACDEFGHIKLMNPQRSTVWY", k=length))
    states = "".join(
        "HGIEBTSC"[(ord(r) + 3 * ord(residues[n - 1])) % 8] for n, r in enumerate(residues)
    )
    row = {"PDB_ID": f"{number:04}_A", "Sequence": residues, "Secondary_structure": states}
    return row | changes


def contact_row(number: int, length: int = 60, **changes: Any) -> dict[str, Any]:
    """A chain that winds about itself, 10 residues a turn, so that pairs of turns are close."""
    residues = protein_row(number, length)["Sequence"]
    angles = [2 * math.pi * (place + number) / 10 for place in range(length)]
    places = [[6 * math.cos(a), 6 * math.sin(a), 0.5 * n] for n, a in enumerate(angles)]
    return {"name": f"row{number}", "seq": residues, "tertiary": places} | changes


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_case_data(folder: Path) -> None:
    """The files that `CASES` name."""
    write_rows(folder / "hotpot/train.jsonl", [hotpot_row(n) for n in range(60)])
    write_rows(folder / "hotpot/validation.jsonl", [hotpot_row(n) for n in range(100, 140)])
    write_rows(folder / "arc/train.jsonl", [arc_row(n) for n in range(60)])
    write_rows(folder / "arc/validation.jsonl", [arc_row(n) for n in range(100, 140)])
    write_rows(folder / "contact/rows.jsonl", [contact_row(n) for n in range(300)])
    write_rows(folder / "protein/train.jsonl", [protein_row(n) for n in range(200)])
    write_rows(folder / "protein/validation.jsonl", [protein_row(n) for n in range(300, 340)])
    write_rows(folder / "mbpp/train.jsonl", [mbpp_row(n) for n in range(80)])
    write_rows(folder / "mbpp/validation.jsonl", [mbpp_row(n) for n in range(100, 140)])
    write_rows(folder / "squad/rows.jsonl", [squad_row(n) for n in range(400)])
    write_rows(folder / "prose/train.jsonl", [prose_row(n) for n in range(200)])
    write_rows(folder / "prose/validation.jsonl", [prose_row(n) for n in range(300, 400)])


HOTPOT_FILES = Files(train="hotpot/train.jsonl", validation="hotpot/validation.jsonl")

ARC_FILES = Files(train="arc/train.jsonl", validation="arc/validation.jsonl")
CONTACT_FILES = Files(train="contact/rows.jsonl", validation="contact/rows.jsonl")
PROTEIN_FILES = Files(train="protein/train.jsonl", validation="protein/validation.jsonl")
MBPP_FILES = Files(train="mbpp/train.jsonl", validation="mbpp/validation.jsonl")
SQUAD_FILES = Files(train="squad/rows.jsonl", validation="squad/rows.jsonl")
PROSE_FILES = Files(train="prose/train.jsonl", validation="prose/validation.jsonl")

CASES: dict[str, dict[str, Any]] = {
    "arc": {"files": ARC_FILES},
    "constr": {"length": 6},
    "copy_a2q": {"length": 4},
    "hotpot": {"files": HOTPOT_FILES, "max_prompt_tokens": 300},
    "kvsort": {"pairs": 4, "value_width": 2},
    "kvsort_after": {"pairs": 4, "value_width": 2},
    "mbpp": {"files": MBPP_FILES, "max_prompt_tokens": 700},
    "middlematch": {"names": 12},
    "nameindex": {"names": 12},
    "needle": {"files": PROSE_FILES, "lengths": (600, 900), "depths": (0.0, 0.5), "distractors": 1},
    "passkey": {"lengths": (256, 400), "depths": (0.0, 1.0), "digits": 4},
    "permfill": {"items": 8},
    "punctuation": {"files": PROSE_FILES, "fill_to": 600},
    "punctuation_inplace": {"files": PROSE_FILES, "min_chars": 40, "max_chars": 240},
    "protein_contact": {
        "files": CONTACT_FILES,
        "min_residues": 40,
        "max_residues": 50,
        "pairs": 12,
        "bounds": (6.0, 12.0),
        "max_prompt_tokens": 400,
        "fill_to": 500,
    },
    "protein_ss": {
        "files": PROTEIN_FILES,
        "min_residues": 40,
        "max_residues": 50,
        "queries": 12,
        "max_prompt_tokens": 400,
        "fill_to": 500,
    },
    "protein_ss_inplace": {
        "files": PROTEIN_FILES,
        "min_residues": 40,
        "max_residues": 50,
        "stride": 2,
    },
    "retrieval": {"pairs": 4, "value_width": 3},
    "retrieval_a2q": {"pairs": 4, "value_width": 3},
    "rightcopy": {"length": 4},
    "squad": {"files": SQUAD_FILES, "max_prompt_tokens": 300, "fill_to": 500},
    "sudoku": {"blanks": 6},
    "sudoku_after": {"side": 9, "blanks": 40},
}
SIZES = {"train_size": 24, "validation_size": 12, "test_size": 8}

_NAMES = ["h0", "k1", "a7", "zz", "3p", "qq", "x4", "b2", "c9", "m5", "r8", "t6"]
_PERMUTED = BASE_36[25:] + BASE_36[:25]
_BOARD_9 = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
_PUZZLE_9 = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"


def golden_row(name: str) -> dict[str, Any]:
    """A row that fits the task's case."""
    rows = {
        "arc": arc_row(7),
        "constr": {"left": "407182", "turn": "51"},
        "copy_a2q": {"copied": "k3x9"},
        "hotpot": hotpot_row(7),
        "kvsort": {"keys": ["31", "12", "90", "05"], "values": ["55", "90", "17", "42"]},
        "kvsort_after": {"keys": ["31", "12", "90", "05"], "values": ["55", "90", "17", "42"]},
        "mbpp": mbpp_row(7),
        "middlematch": {"names": _NAMES, "asked": 6},
        "nameindex": {"names": _NAMES, "asked": 6},
        "needle": {
            "name": "Tovaki",
            "others": ["Ludemo"],
            "values": ["4071826", "5500139"],
            "seed": 7,
            "number": 1,
        },
        "passkey": {"key": "7143", "seed": 7, "number": 1},
        "permfill": {"order": _PERMUTED, "items": "h3x0zq7b", "anchors": [2, 5]},
        "punctuation": prose_row(7),
        "punctuation_inplace": {
            "text": "In time we ate: Ann left soon. Did NATO know it? I said so!"
        },
        "protein_contact": contact_row(7),
        "protein_ss": protein_row(7),
        "protein_ss_inplace": protein_row(7, length=50),
        "retrieval": {
            "keys": ["ab", "4k", "zz", "x0"],
            "values": ["407", "550", "139", "862"],
            "asked": 2,
        },
        "retrieval_a2q": {
            "keys": ["ab", "4k", "zz", "x0"],
            "values": ["407", "550", "139", "862"],
            "asked": 2,
        },
        "rightcopy": {"left": "3141", "right": "5926"},
        "squad": squad_row(7),
        "sudoku": {"solution": "1234341221434321", "puzzle": "0000340221430320"},
        "sudoku_after": {"solution": _BOARD_9, "puzzle": _PUZZLE_9},
    }
    return rows[name]


def golden_material(name: str) -> list[dict[str, Any]]:
    """Rows to quote from beside the golden row."""
    made: dict[str, Callable[[int], dict[str, Any]]] = {
        "mbpp": mbpp_row,
        "needle": prose_row,
        "protein_contact": contact_row,
        "protein_ss": protein_row,
        "punctuation": prose_row,
        "squad": squad_row,
    }
    return [made[name](number) for number in range(40, 80)] if name in made else []


def _refolded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its second and third residue exchanged, and another state of the first."""
    residues, states = row["Sequence"], row["Secondary_structure"]
    swapped = residues[0] + residues[2] + residues[1] + residues[3:]
    return {
        "Sequence": swapped,
        "Secondary_structure": ("E" if states[0] != "E" else "H") + states[1:],
    }


def other_future(name: str) -> dict[str, Any]:
    """For a task that needs the future: what differs from the golden row.

    All that stands before the first target stays; what stands to the right is permuted.
    """
    changes = {
        "constr": {"turn": "15"},
        "copy_a2q": {"copied": "9x3k"},
        "kvsort": {"values": ["90", "55", "42", "17"]},
        # The anchors, z and 7, stay where they are.
        "permfill": {"order": _PERMUTED.translate(str.maketrans("qxbh", "xqhb"))},
        "punctuation_inplace": {
            "text": "In time: Ann left soon, we ate. Did NATO know it? I said so!"
        },
        # Another fold: of the residues behind the first two change places, and its state follows.
        "protein_ss_inplace": _refolded(protein_row(7, length=50)),
        "retrieval_a2q": {"keys": ["zz", "x0", "ab", "4k"]},
        "rightcopy": {"right": "9265"},
        # The first two columns change places.
        "sudoku": {"solution": "2134431212433421", "puzzle": "0000430212433020"},
    }
    return golden_row(name) | changes[name]
