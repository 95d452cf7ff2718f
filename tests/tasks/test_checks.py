"""Tests taken apart, and values read back: the part of running programs where nothing runs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sandbox.checks import UnsupportedTestError, check_of
from tasks.sandbox.child import inert
from tasks.sandbox.enclosure import Returned, read_value

PROGRAM = """
import math
def same(value):
    return value
def root(value):
    return math.sqrt(value)
def raising(value):
    raise KeyError(value)
"""


@pytest.mark.parametrize(
    ("test", "holds"),
    [
        ("assert same(3) == 3", True),
        ("assert same(3) == 4", False),
        ("assert 3 == same(3)", True),
        ("assert same([1, (2,), {3: {4}}]) == [1, (2,), {3: {4}}]", True),
        ("assert same((1, 2)) == [1, 2]", False),
        ("assert same(True) is True", True),
        ("assert same(1) is True", False),
        ("assert same(None) is None", True),
        ("assert same(None) is not None", False),
        ("assert same(-2.5) == -2.5", True),
        ("assert same(1+2j) == 1+2j", True),
        ("assert set(same([1, 2, 2])) == set([2, 1])", True),
        ("assert sorted(same([2, 1])) == [1, 2]", True),
        ("assert same(2) in (1, 2)", True),
        ("assert same(3) not in [1, 2]", True),
        ("assert 1 < same(2) < 3", True),
        ("assert 1 < same(3) < 3", False),
        ("assert math.isclose(root(2), 1.41421, rel_tol=1e-4)", True),
        ("assert math.isclose(root(2), 1.5, rel_tol=1e-4)", False),
        ("assert abs(root(2) - 1.41421) < 1e-4", True),
        ("assert abs(root(2) - 1.5) < 1e-4", False),
        ("assert same(7) / 2 - 1 == 2.5", True),
        ("assert abs(same('a')) == 1", False),
        ("assert same(True)", True),
        ("assert not same([])", True),
        ("assert same([])", False),
        ("assert same(1) == 1 and same(2) == 3", False),
        ("assert same(1) == 2 or same(2) == 2, 'a message'", True),
        ("assert raising(1) == 1", False),
        ("assert raising(1) != 1", False),
        ("assert same('a') < 3", False),
        ("assert absent(1) == 1", False),
        ("assert same(math.pi) == math.pi", True),
        ("assert sys_size(same) == 1 or same((1,)) == (1,)", False),
    ],
)
def test_a_test_means_what_it_means_in_python(test, holds):
    space = {}
    exec(PROGRAM, space)
    check, answers = check_of(test), []
    for call in check.calls:
        try:
            answers.append(Returned(eval(call, space)))
        except Exception:  # noqa: BLE001
            answers.append(None)
    assert check.holds(answers) == holds
    try:
        exec(PROGRAM + test, {})
        in_python = True
    except Exception:  # noqa: BLE001
        in_python = False
    assert in_python == holds


@pytest.mark.parametrize(
    "test",
    [
        "assert same(1) == other(1)",
        "assert isinstance(same(1), int)",
        "assert (same(1) == 2) == True",
        "assert int(same(1) == 2) == 1",
        "assert round(same(1) - 2) == 0",
        "assert same(4) % 2 == 0",
        "assert all(same(1))",
        "assert math.isfinite(same(1))",
        "assert 1 == 1",
        "assert same(1) == [x for x in (1,)]",
        "assert same(1) == 2 ** 9",
        "assert same(1) == 'a' * 9",
        "assert same(1) == 'a'.upper()",
        "assert same(1) == (lambda: 1)()",
        "assert same(1) == ().__class__",
        "assert same(1) == sys.modules",
        "assert same(1) == math.__loader__",
        "assert math.isclose(same(1), same(2))",
        "assert math.isclose(same(1), 2, rel_tol=same(9))",
        "same(1) == 1",
        "assert same(1) == 1; print()",
        "assert same(1) ==",
    ],
)
def test_a_test_that_cannot_be_taken_apart_is_refused(test):
    with pytest.raises(UnsupportedTestError):
        check_of(test)


numbers = st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
plain = st.none() | st.booleans() | numbers | st.text() | st.binary()
hashable = plain | st.tuples(plain, st.frozensets(plain, max_size=3))
inner = st.lists(hashable, max_size=3) | st.dictionaries(hashable, plain, max_size=3)
values = hashable | st.lists(inner | st.sets(hashable, max_size=3), max_size=3)


@given(values)
def test_a_value_comes_back_as_it_was(value):
    back = read_value(json.dumps({"value": inert(value)}).encode())
    assert back == Returned(value)
    assert type(back.value) is type(value)


kinds = st.sampled_from(["list", "tuple", "set", "dict", "bytes", "complex", "other", "x", "value"])
leaves = st.none() | st.integers() | st.floats() | st.text(max_size=3)
forged = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(kinds, inner, max_size=2),
    max_leaves=6,
)


@given(forged, st.binary())
def test_a_line_may_say_anything(content, line):
    read_value(line)
    read_value(json.dumps(content).encode())
    read_value(json.dumps({"value": content}).encode())


@pytest.mark.parametrize(
    "line", [b"[" * 10**5, b"9" * 10**5, b'{"list": ' * 10**5, b'{"value": ' * 900, b"\xff"]
)
def test_a_line_that_would_break_a_reader_is_no_value(line):
    assert read_value(line) is None
