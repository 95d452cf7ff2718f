"""Words with their marks and cases: how a text is taken apart, and how a restored one is scored.

Scored are the six marks that may follow a word. Marks inside a word (3,000, U.S, don't, well-known)
stay in it; bracketed remarks and quotation marks are no part of a text here. F1 as is usual for the
task (Tilk and Alumäe, Interspeech 2016, section 4): a mark is a hit where the same word has it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal, TypeAlias

from tasks.metrics import Float64Array, Metric, mean_of, ratio
from tasks.parts.text import detokenised, one_line

MARKS = {
    ",": "comma",
    ".": "period",
    ";": "semicolon",
    ":": "colon",
    "!": "exclamation",
    "?": "question",
}
"""The marks by what their metrics are called."""

Case: TypeAlias = Literal["lower", "capital", "other"]
"""No letter is upper; only the first letter is; anything else (NATO, McDonald)."""

_REMARK = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_REMOVED = str.maketrans("", "", '()[]{}"“”„«»')


@dataclass(frozen=True)
class Word:
    """A word of a text and what belongs to it."""

    bare: str
    """Lower case, without the mark: what a transcript has of it."""
    mark: str
    """One of `MARKS`, or nothing."""
    case: Case

    @property
    def has_letters(self) -> bool:
        """Whether it has a case at all."""
        return any(map(str.isalpha, self.bare))


def plain(text: str) -> str:
    """The text on one line without remarks in brackets, brackets and quotation marks."""
    line = detokenised(one_line(text))
    kept, previous = line, ""
    while kept != previous:
        kept, previous = _REMARK.sub("", kept), kept
    kept = kept.translate(_REMOVED)
    # What was removed leaves spaces behind.
    return line if kept == line else detokenised(one_line(kept))


def words(text: str) -> list[Word]:
    """The words of a plain text; pieces without letter and digit, such as dashes, are none."""
    return [_word(piece) for piece in text.split() if is_word(piece)]


def is_marked(text: str) -> bool:
    """Whether a mark follows one of a plain text's words with letters."""
    return any(word.mark and word.has_letters for word in map(_word, text.split()))


def is_word(piece: str) -> bool:
    """Whether a piece between spaces has a letter or a digit."""
    return any(map(str.isalnum, piece))


def transcript(text: str) -> list[str]:
    """The pieces of a plain text without marks and in lower case."""
    return [_word(piece).bare for piece in text.split()]


@lru_cache(maxsize=2**16)
def _word(piece: str) -> Word:
    mark = piece[-1] if piece[-1] in MARKS else ""
    body = piece.removesuffix(mark) if mark else piece
    bare = body.lower()
    return Word(bare, mark, "lower" if bare == body else _upper_case(body))


def _upper_case(body: str) -> Case:
    letters = [character for character in body if character.isalpha()]
    initial = bool(letters) and letters[0].isupper()
    return "capital" if initial and not any(map(str.isupper, letters[1:])) else "other"


def _f1(hits: Float64Array, said: Float64Array, true: Float64Array) -> Float64Array:
    return ratio(2 * hits, said + true)


def _f1_metric(measure: str, name: str, summary: str) -> Metric:
    needs = tuple(f"{measure}_{what}" for what in ("hits", "said", "true"))
    return Metric(name, True, summary, needs, _f1, pooled=True, worst=0.0)


MARK_F1 = _f1_metric("mark", "mark_f1", "F1 of all marks at their words")
CASE_F1 = _f1_metric("case", "case_f1", "F1 of the cases of words that are not in lower case")
CASE_ACCURACY = mean_of(
    "case_accuracy", True, "share of words with letters whose case is right", worst=0.0
)
RESTORATION: tuple[Metric, ...] = (
    MARK_F1,
    *(_f1_metric(name, f"{name}_f1", f"F1 of {mark} at its words") for mark, name in MARKS.items()),
    CASE_ACCURACY,
    CASE_F1,
)
"""The metrics of `restored` and `rewritten`."""


def restored(pairs: Iterable[tuple[Word | None, Word | None]]) -> dict[str, float]:
    """The measures of a text, from its words as they should be and as they are said to be.

    Args:
        pairs: a word's truth, None if it is made up; what is said of it, None for nothing.
    """
    counts: Counter[str] = Counter()
    lettered = right = 0
    for true, said in pairs:
        true_mark, said_mark = (word.mark if word else "" for word in (true, said))
        true_case, said_case = (word.case if word else "lower" for word in (true, said))
        for label, kind in ((true_mark, "true"), (said_mark, "said")):
            if label:
                counts.update((f"mark_{kind}", f"{MARKS[label]}_{kind}"))
        if true_mark and true_mark == said_mark:
            counts.update(("mark_hits", f"{MARKS[true_mark]}_hits"))
        counts["case_true"] += true_case != "lower"
        counts["case_said"] += said_case != "lower"
        counts["case_hits"] += true_case == said_case != "lower"
        if true is not None and true.has_letters:
            lettered += 1
            right += said is not None and true_case == said_case
    names = ("mark", "case", *MARKS.values())
    measures = {
        f"{name}_{what}": float(counts[f"{name}_{what}"])
        for name in names
        for what in ("hits", "said", "true")
    }
    return measures | {CASE_ACCURACY.name: float(ratio(right, lettered))}


def aligned(true: Sequence[Word], said: Sequence[Word]) -> list[tuple[Word | None, Word | None]]:
    """The words of two texts, those paired that are the same but for mark and case."""
    blocks = SequenceMatcher(
        None, [word.bare for word in true], [word.bare for word in said], autojunk=False
    ).get_matching_blocks()
    pairs: list[tuple[Word | None, Word | None]] = []
    done_true = done_said = 0
    for block in blocks:
        pairs += [(word, None) for word in true[done_true : block.a]]
        pairs += [(None, word) for word in said[done_said : block.b]]
        done_true, done_said = block.a + block.size, block.b + block.size
        pairs += zip(true[block.a : done_true], said[block.b : done_said], strict=True)
    return pairs
