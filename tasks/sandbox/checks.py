"""Whether a program passes tests: `assert` statements on what its functions return.

The program never meets a test. Each is taken apart here: what only the program can say (`f(3)`) is
evaluated in the sandbox (`tasks.sandbox.enclosure`) and comes back as plain data; what it is
compared with never leaves this process, and the comparison is done here. So a program passes by
returning the right values only: not by ending early, nor by objects that equal everything, nor by
replacing what tests it.
"""

import ast
import builtins
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Literal, TypeAlias

from tasks.sandbox.enclosure import LIMITS, Limits, Returned, run

Passed: TypeAlias = Literal["passed", "failed", "timeout"]

_NAMES: Mapping[str, object] = {
    "abs": abs,
    "complex": complex,
    "float": float,
    "frozenset": frozenset,
    "list": list,
    "math": math,
    "set": set,
    "sorted": sorted,
    "sys": sys,
    "tuple": tuple,
}
_CALLED = frozenset({*_NAMES, "sys.getsizeof"}) - {"math", "sys"}
_CONSTANTS = frozenset({"math.pi", "math.e", "math.inf"})
_SUMS = (ast.Add, ast.Sub, ast.Div)
_NODES = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.keyword, ast.Load),
    *(ast.UnaryOp, ast.unaryop, ast.BinOp, *_SUMS),
)
"""What an expression of ours consists of: literals, sums, and calls of what is named above."""


class UnsupportedTestError(ValueError):
    """A test that cannot be taken apart into the program's part and ours."""


@dataclass(frozen=True)
class Check:
    """A test, taken apart."""

    calls: tuple[str, ...]
    """What the program is asked for."""
    condition: CodeType
    """What must be true; `answer_0` stands for what the first call returned."""

    def holds(self, answers: Sequence[Returned | None]) -> bool:
        """Whether it is met by these answers to `calls`."""
        values = {}
        for place, answer in enumerate(answers):
            if answer is None:
                return False
            values[_answer(place)] = answer.value
        try:
            return bool(eval(self.condition, {"__builtins__": {}, **_NAMES}, values))
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            return False


@dataclass(frozen=True)
class ProgramResult:
    """What a program is worth."""

    verdict: Passed
    tests_passed: int
    tests: int


def check_of(test: str) -> Check:
    """Takes a test apart.

    Args:
        test: one `assert` statement.

    Raises:
        UnsupportedTestError: it is of another form, or its result would be the program's word.
    """
    try:
        statements = ast.parse(test).body
    except (SyntaxError, ValueError) as error:
        raise UnsupportedTestError(f"not Python: {test!r}") from error
    if len(statements) != 1 or not isinstance(statements[0], ast.Assert):
        raise UnsupportedTestError(f"not one assert statement: {test!r}")
    parts = _Parts()
    condition = ast.fix_missing_locations(ast.Expression(parts.condition(statements[0].test)))
    if not parts.calls:
        raise UnsupportedTestError(f"nothing is asked of the program: {test!r}")
    return Check(tuple(parts.calls), compile(condition, "<test>", "eval"))


def run_checks(
    program: str,
    checks: Sequence[Check],
    setup: str = "",
    limits: Limits = LIMITS,
    isolated: bool = True,
) -> ProgramResult:
    """Runs a program once and checks what it returns.

    Args:
        program: Python source.
        checks: the tests.
        setup: source that is run after the program and before the tests.
        limits: what the program may use up.
        isolated: whether it is shut in.

    Raises:
        IsolationError: it cannot be shut in; it did not run.
    """
    calls = [call for check in checks for call in check.calls]
    reply = run(program, calls, setup, limits, isolated)
    passed, first = 0, 0
    for check in checks:
        passed += check.holds(reply.calls[first : first + len(check.calls)])
        first += len(check.calls)
    verdict: Passed = "passed" if passed == len(checks) else "failed"
    return ProgramResult("timeout" if reply.timed_out else verdict, passed, len(checks))


def run_all_checks(
    programs: Sequence[str],
    checks: Sequence[Check],
    setup: str = "",
    limits: Limits = LIMITS,
    isolated: bool = True,
) -> list[ProgramResult]:
    """`run_checks` of several programs for the same tests; equal programs run once."""
    found = {
        program: run_checks(program, checks, setup, limits, isolated)
        for program in dict.fromkeys(programs)
    }
    return [found[program] for program in programs]


class _Parts:
    """Collects what a test asks of the program while it is taken apart."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def condition(self, node: ast.expr) -> ast.expr:
        """The condition with a name in place of each of the program's parts."""
        if isinstance(node, ast.BoolOp):
            return ast.BoolOp(node.op, [self.condition(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, self.condition(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if all(_program_says(side) for side in sides):
                raise UnsupportedTestError(f"only the program's word: {ast.unparse(node)}")
            left, *others = [self.part(side) for side in sides]
            return ast.Compare(left, node.ops, others)
        if isinstance(node, ast.Call) and _dotted(node.func) == "math.isclose":
            if all(map(_program_says, node.args)) or not all(map(_is_ours, node.keywords)):
                raise UnsupportedTestError(f"only the program's word: {ast.unparse(node)}")
            return ast.Call(node.func, [self.part(a) for a in node.args], node.keywords)
        if isinstance(node, ast.Call) and _is_the_programs(node.func):
            return self.part(node)  # a truth value that the program returns
        raise UnsupportedTestError(f"cannot be taken apart: {ast.unparse(node)}")

    def part(self, node: ast.expr) -> ast.expr:
        """An operand: ours as it is, the program's as a name."""
        if not _program_says(node):
            if not _is_ours(node):
                raise UnsupportedTestError(f"cannot be compared with: {ast.unparse(node)}")
            return node
        # An object of the program's would answer for it, and see what it is compared with.
        if isinstance(node, ast.BinOp) and isinstance(node.op, _SUMS):
            return ast.BinOp(self.part(node.left), node.op, self.part(node.right))
        if isinstance(node, ast.Call) and _dotted(node.func) == "abs" and len(node.args) == 1:
            return ast.Call(node.func, [self.part(node.args[0])], [])
        if _reckons(node):
            raise UnsupportedTestError(f"only the program's word: {ast.unparse(node)}")
        self.calls.append(ast.unparse(node))
        return ast.Name(_answer(len(self.calls) - 1), ast.Load())


def _answer(place: int) -> str:
    return f"answer_{place}"


def _program_says(node: ast.AST) -> bool:
    """Whether an expression has a name that is not one of ours."""
    if isinstance(node, ast.Name):
        return node.id not in _NAMES
    return any(map(_program_says, ast.iter_child_nodes(node)))


def _reckons(node: ast.AST) -> bool:
    """Whether an expression reckons or compares, but for what the program's functions are given."""
    if isinstance(node, ast.Call) and _is_the_programs(node.func):
        return False
    operates = isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare)
    return operates or any(map(_reckons, ast.iter_child_nodes(node)))


def _is_the_programs(function: ast.expr) -> bool:
    """Whether a function is the program's own: one that it has replaced would answer for it."""
    first = _dotted(function).partition(".")[0]
    return bool(first) and first not in _NAMES and not hasattr(builtins, first)


def _is_ours(node: ast.AST) -> bool:
    """Whether an expression without the program's names is safe to evaluate, part by part."""
    if isinstance(node, ast.Call):
        parts = [*node.args, *node.keywords]
        return _dotted(node.func) in _CALLED and all(map(_is_ours, parts))
    if isinstance(node, ast.Name | ast.Attribute):
        return _dotted(node) in _CONSTANTS
    return isinstance(node, _NODES) and all(map(_is_ours, ast.iter_child_nodes(node)))


def _dotted(node: ast.expr) -> str:
    """`name` or `module.name`; empty for other expressions."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
