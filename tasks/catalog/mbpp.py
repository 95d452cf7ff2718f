"""mbpp: short Python programs from a sentence and three tests (Austin et al., arXiv 2108.07732).

The problem stands before the notes (problem_first, where what to do is long past when the program
begins) or after them (problem_last, the control); both orders of a row have the same pieces. Notes
are other problems with their tests, never their programs: rows that are put aside as material, of
another text and about functions of other names, over again where they do not suffice. A prompt with
notes has exactly `max_prompt_tokens`. Problem, tests and program are never cut.

A program ends with two blank lines; rows' programs have none inside. What a model writes is cut at
the first of `STOPS`, in the text, since a token may begin inside one. It runs only where `execute`
says so (`tasks.sandbox.checks`).
"""

import ast
import builtins
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, cycle
from math import comb
from typing import ClassVar, Literal

from tasks.example import Example, Split, TaskError, Tokenizer
from tasks.metrics import NLL, TOKEN_ACCURACY, Metric, mean_of
from tasks.parts.collected import CollectedSettings, CollectedTask
from tasks.parts.notes import filled
from tasks.parts.text import one_line
from tasks.sandbox.checks import UnsupportedTestError, check_of, run_all_checks
from tasks.sandbox.enclosure import refusal
from tasks.scoring import Generation, Prediction, Scorer
from tasks.sources import Row, Shape
from tasks.streams import stream_of
from tasks.task import Builder, Dropped, Guess, Material, require

PASS_AT_1 = mean_of("pass_at_1", True, "1 where the greedy program passes all tests", worst=0.0)
PASS_AT_K = mean_of(
    "pass_at_k", True, "chance that one of `k` drawn programs passes all tests, unbiased", worst=0.0
)
TESTS_PASSED = mean_of(
    "tests_passed", True, "share of tests that the greedy program passes", worst=0.0
)

END = "\n\n\n"
STOPS = (
    END,
    "\nassert ",
    "\nprint(",
    "\nif __name__",
    "\n```",
    "\nProblem:",
    "\nTests:",
    "\nNotes:",
)
"""What no program of a row has: its end, tests, a main part, the next piece of a prompt."""

_MATERIAL = 512
"""At most so many rows become notes."""
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")


@dataclass(frozen=True, kw_only=True)
class MbppSettings(CollectedSettings):
    """Settings of mbpp."""

    name: Literal["mbpp"] = "mbpp"
    """Which task it is."""
    order: Literal["problem_first", "problem_last"] = "problem_first"
    """Where the problem stands, seen from the notes; problem_last is the control."""
    notes: bool = True
    """Whether notes fill every prompt to max_prompt_tokens; without them there is one order."""
    max_prompt_tokens: int = 2048
    """Tokens of a prompt with notes; rows whose problem and tests need more are left out."""
    max_answer_tokens: int = 160
    """Rows whose program is longer are left out."""
    execute: bool | Literal["unisolated"] = False
    """Whether evaluations write programs out and run them, each shut in; `unisolated` runs them
    where the system cannot shut them in, with no protection of the user's files."""
    samples: int = 0
    """Programs drawn beside the greedy one, for pass_at_k."""
    k: int = 1
    """Of pass_at_k."""
    temperature: float = 0.8
    """Of the drawn programs."""
    top_p: float = 0.95
    """The drawn programs take the smallest set of tokens with at least this probability."""
    hub: str = "google-research-datasets/mbpp"
    hub_config: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.order in Mbpp.orders, f"order is one of {', '.join(Mbpp.orders)}", self.order)
        require(self.max_answer_tokens >= 1, "max_answer_tokens >= 1", self.max_answer_tokens)
        require(self.samples >= 0, "samples >= 0", self.samples)
        require(1 <= self.k <= max(1, self.samples), "1 <= k <= samples", (self.k, self.samples))
        require(self.temperature > 0, "temperature > 0", self.temperature)
        require(0 < self.top_p <= 1, "0 < top_p <= 1", self.top_p)
        executed = self.execute is not False
        require(executed or self.samples == 0, "samples are drawn with execute only", self.samples)
        Mbpp.check_columns(self.columns)


class Mbpp(CollectedTask[MbppSettings]):
    """Writes a program."""

    name = "mbpp"
    version = 2
    summary = "write a short Python program for a problem and its tests, among other problems"
    licence = "CC BY 4.0"
    origin = "MBPP: hub google-research-datasets/mbpp, or local JSONL by `files`"
    orders = ("problem_first", "problem_last")
    needs_future = False
    metrics = (TOKEN_ACCURACY, NLL, PASS_AT_1, TESTS_PASSED, PASS_AT_K)
    primary_metric = TOKEN_ACCURACY.name
    scored_at_once = 4  # each waits for a process of its own
    Settings = MbppSettings
    fields: ClassVar[Mapping[str, Shape]] = {
        "text": "text",
        "code": "text",
        "test_list": ["text"],
        "test_setup_code": "text",
    }
    # No two problems have one text, but a few have one solution, which is the target.
    group_fields = ("code",)
    hub_splits: ClassVar[Mapping[str, str]] = {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }

    def marks(self, settings: MbppSettings) -> Callable[[Row], Set[str]]:
        """The program without its spaces: the official splits share some in other spacing."""
        return lambda row: {"".join(row["code"].split())}

    def material(self, settings: MbppSettings) -> int:
        return _MATERIAL if settings.notes else 0

    def measured(self, settings: MbppSettings) -> tuple[Metric, ...]:
        absent = {PASS_AT_K} if settings.samples == 0 else set()
        if settings.execute is False:
            absent |= {PASS_AT_1, TESTS_PASSED}
        return tuple(metric for metric in self.metrics if metric not in absent)

    def primary(self, settings: MbppSettings) -> str:
        return self.primary_metric if settings.execute is False else PASS_AT_1.name

    def builder(self, settings: MbppSettings, tokenizer: Tokenizer, material: Material) -> Builder:
        header, gap = tokenizer.encode("Notes:\n"), tokenizer.encode("\n\n")
        closing, end = tokenizer.encode("Python solution:\n"), tokenizer.encode(END)
        notes = [Note.of(row, tokenizer) for row in material]

        def build(row: Row) -> Example | Dropped:
            code, reason = program_of(row), _unfit(row)
            if reason:
                return Dropped(reason)
            answer = tokenizer.encode(code)
            if len(answer) > settings.max_answer_tokens:
                return Dropped(f"programs over {settings.max_answer_tokens} tokens")
            problem = tokenizer.encode(_problem(row))
            room = settings.max_prompt_tokens - len(problem) - len(closing)
            if settings.notes:
                room -= len(header) + len(gap)
            if room < 0:
                return Dropped(f"problems over {settings.max_prompt_tokens} tokens")
            parts = [problem]
            if settings.notes:
                fitting = [note.tokens for note in notes if note.fits(row, code)]
                stream_of(f"{row['text']}\0{row['code']}").shuffle(fitting)
                what, advice = "mbpp: the notes", "give data with more rows, or notes: false"
                filling = filled(cycle(fitting), room, what, advice)
                parts.append(list(chain(header, *filling, gap)))
            if settings.order == "problem_last":
                parts.reverse()
            return Example(
                prompt=tuple(chain(*parts, closing)),
                answer=(*answer, *end),
                reference=json.dumps({"tests": row["test_list"], "setup": row["test_setup_code"]}),
            )

        return build

    def generation(self, settings: MbppSettings, tokenizer: Tokenizer) -> Generation | None:
        if settings.execute is False:
            return None
        end = tuple(tokenizer.encode(END))
        return Generation(
            # The end comes on top of the longest program.
            settings.max_answer_tokens + len(end),
            stop=(end,),
            samples=settings.samples,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )

    def trivial(
        self, settings: MbppSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        def first_value(example: Example) -> Prediction:
            program = _value_of_the_first_test(json.loads(example.reference)["tests"])
            written = (*tokenizer.encode(program), *tokenizer.encode(END))
            # At each target what stands there if the program is written over the right one.
            padded = written + (-1,) * len(example.answer)
            return Prediction(tokens=padded[: len(example.answer)], generated=(written,))

        return {"value of the first test": first_value}

    def scorer(self, settings: MbppSettings, tokenizer: Tokenizer) -> Scorer | None:
        """What runs the programs.

        Raises:
            TaskError: they are to be shut in, and this system cannot.
        """
        if settings.execute is False:
            return None
        isolated = settings.execute is True
        if isolated and (reason := refusal()):
            raise TaskError(
                f"mbpp: {reason}: allow user namespaces, set `execute: false`, or, where no "
                "program can do harm, `execute: unisolated`"
            )

        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            content = json.loads(example.reference)
            checks = [check_of(test) for test in content["tests"]]
            programs = [cut(tokenizer.decode(written)) for written in prediction.generated]
            greedy, *drawn = run_all_checks(programs, checks, content["setup"], isolated=isolated)
            measures = {
                PASS_AT_1.name: float(greedy.verdict == "passed"),
                TESTS_PASSED.name: greedy.tests_passed / greedy.tests,
            }
            if settings.samples:
                # A strategy that answers by a rule draws the same program every time.
                passed = [outcome.verdict == "passed" for outcome in drawn or [greedy]]
                k = min(settings.k, len(passed))
                measures[PASS_AT_K.name] = pass_at_k(len(passed), sum(passed), k)
            return measures

        return measure


def _value_of_the_first_test(tests: Sequence[str]) -> str:
    """A program that always returns what the first test wants; empty where that is not plain."""
    test = ast.parse(tests[0]).body[0]
    assert isinstance(test, ast.Assert)
    names = [name for name in _CALLED.findall(tests[0]) if not hasattr(builtins, name)]
    if not names or not isinstance(test.test, ast.Compare):
        return ""
    return f"def {names[0]}(*_):\n  return {ast.unparse(test.test.comparators[0])}"


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Chance that at least one of `k` of the samples, drawn without replacement, has passed.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al., arXiv 2107.03374, section 2.1.
    """
    return 1.0 - comb(samples - passed, k) / comb(samples, k)


def cut(written: str) -> str:
    """The program in what a model wrote: up to the first stop."""
    ends = [written.find(stop) for stop in STOPS]
    return written[: min((end for end in ends if end >= 0), default=len(written))]


def program_of(row: Row) -> str:
    """A row's program with one kind of line end, no trailing space and no two blank lines."""
    lines = [line.rstrip() for line in row["code"].strip("\r\n").splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip("\n"))


@dataclass(frozen=True)
class Note:
    """Another problem."""

    text: str
    functions: frozenset[str]
    """What its tests call, in lower case."""
    tokens: list[int]

    @classmethod
    def of(cls, row: Row, tokenizer: Tokenizer) -> "Note":
        text = _problem(row)
        return cls(text, _functions(row["test_list"]), tokenizer.encode(text))

    def fits(self, row: Row, code: str) -> bool:
        """Whether it tells nothing of a row's own problem or program."""
        return (
            one_line(row["text"]).casefold() not in one_line(self.text).casefold()
            and not self.functions & _functions(row["test_list"])
            and code not in self.text
        )


def _problem(row: Row) -> str:
    tests = "\n".join(test.strip() for test in row["test_list"])
    return f"Problem: {one_line(row['text'])}\nTests:\n{tests}\n\n"


def _functions(tests: Iterable[str]) -> frozenset[str]:
    called = chain.from_iterable(map(_CALLED.findall, tests))
    return frozenset(name.casefold() for name in called if not hasattr(builtins, name))


def _can_be_run(tests: Sequence[str]) -> bool:
    try:
        return all(check_of(test) for test in tests) and bool(tests)
    except UnsupportedTestError:
        return False


def _unfit(row: Row) -> str:
    """Why a row is no problem with a program; empty if it is."""
    code = program_of(row)
    if not row["text"].strip() or not code:
        return "rows without a problem or a program"
    if not _can_be_run(row["test_list"]):
        return "rows whose tests cannot be run apart from the program"
    if cut(f"\n{code}") != f"\n{code}":
        return "programs that have a stop inside"
    return ""
