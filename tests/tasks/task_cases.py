"""Small settings of every task, rows to build them from, and a byte tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_case_data(folder: Path) -> None:
    """The files that `CASES` name."""
    write_rows(folder / "hotpot/train.jsonl", [hotpot_row(n) for n in range(60)])
    write_rows(folder / "hotpot/validation.jsonl", [hotpot_row(n) for n in range(100, 140)])


HOTPOT_FILES = Files(train="hotpot/train.jsonl", validation="hotpot/validation.jsonl")

CASES: dict[str, dict[str, Any]] = {
    "hotpot": {"files": HOTPOT_FILES, "max_prompt_tokens": 300},
    "rightcopy": {"length": 4},
}
SIZES = {"train_size": 24, "validation_size": 12, "test_size": 8}


def golden_row(name: str) -> dict[str, Any]:
    rows = {"hotpot": hotpot_row(7), "rightcopy": {"left": "3141", "right": "5926"}}
    return rows[name]
