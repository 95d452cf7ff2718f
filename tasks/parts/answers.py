"""Written answers against gold ones: exact match and word F1 as question answering scores them.

After the official evaluation scripts of SQuAD (Rajpurkar et al., arXiv 1606.05250, section 6.1) and
HotpotQA (Yang et al., arXiv 1809.09600): texts are compared in lower case, without punctuation,
without the articles a, an and the, and with single spaces; of several gold answers the best counts.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Sequence

from tasks.example import Example, Tokenizer
from tasks.metrics import mean_of
from tasks.scoring import Generation, Prediction, Scorer

ANSWER_EM = mean_of(
    "answer_em", True, "1 where the written answer is a gold one, normalised", worst=0.0
)
ANSWER_F1 = mean_of(
    "answer_f1", True, "F1 of the words of the written and the gold answer", worst=0.0
)

CLOSED = frozenset({"yes", "no", "noanswer"})
"""HotpotQA's answers that score nothing unless they are met exactly."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """What is compared of an answer."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(written: str, gold: Sequence[str]) -> float:
    """1 if the answer is one of the gold ones, normalised; else 0."""
    return float(any(normalised(written) == normalised(answer) for answer in gold))


def word_f1(written: str, gold: Sequence[str], closed: frozenset[str] = frozenset()) -> float:
    """The best F1 of the answer's words and those of a gold answer.

    Args:
        written: the answer.
        gold: at least one.
        closed: normalised answers that score 0 against any other.
    """
    return max(_f1(normalised(written), normalised(answer), closed) for answer in gold)


def _f1(written: str, gold: str, closed: frozenset[str]) -> float:
    if written == gold:
        return 1.0
    if written in closed or gold in closed:
        return 0.0
    common = (Counter(written.split()) & Counter(gold.split())).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(written.split()), common / len(gold.split())
    return 2 * precision * recall / (precision + recall)


def to_the_line_end(tokenizer: Tokenizer, max_new_tokens: int) -> Generation:
    """Writes one line."""
    return Generation(max_new_tokens, stop=(tuple(tokenizer.encode("\n")),))


def written_line(tokenizer: Tokenizer, written: Sequence[int]) -> str:
    """What was written up to the first line end, which may stand inside a token."""
    return tokenizer.decode(written).partition("\n")[0]


def reference(gold: Sequence[str]) -> str:
    """What the scorer needs of an example."""
    return json.dumps(list(gold), ensure_ascii=False)


def answer_scorer(tokenizer: Tokenizer, closed: frozenset[str] = frozenset()) -> Scorer:
    """Exact match and F1 of the greedy answer against the example's gold answers."""

    def measure(example: Example, prediction: Prediction) -> dict[str, float]:
        gold = json.loads(example.reference)
        written = written_line(tokenizer, prediction.generated[0])
        return {
            ANSWER_EM.name: exact_match(written, gold),
            ANSWER_F1.name: word_f1(written, gold, closed),
        }

    return measure
