"""The sandbox: against programs that mean harm, for those that do not, and where there is none."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template

import pytest
from hostile_programs import BY_TIME, BY_TIME_OR_MEMORY, HOSTILE

from tasks.sandbox import child as sandbox_child
from tasks.sandbox import enclosure as sandbox
from tasks.sandbox.checks import ProgramResult, check_of, run_all_checks, run_checks
from tasks.sandbox.enclosure import Limits, Returned, run

LIMITS = Limits(wall_s=2.0, cpu_s=1)
SECRET = "a-secret-of-the-parent"


@pytest.fixture(scope="module", autouse=True)
def isolation():
    if reason := sandbox.refusal():
        pytest.skip(reason)


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory):
    """Outcomes of all hostile programs, and what was touched."""
    home = tmp_path_factory.mktemp("home")
    (home / "precious").write_text("precious")
    before, mounts = everything(home), Path("/proc/self/mountinfo").read_text()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    facts = {
        "home": home,
        "pid": os.getpid(),
        "port": listener.getsockname()[1],
        "secret": SECRET,
    }
    os.environ["FSTUNE_TEST_SECRET"] = SECRET
    check = [check_of("assert attack() == 42")]
    programs = {
        name: Template(textwrap.dedent(program)).substitute(facts)
        for name, program in HOSTILE.items()
    }
    with listener, ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda text: run_checks(text, check, limits=LIMITS), programs.values())
        outcomes = dict(zip(programs, found, strict=True))
        with pytest.raises(BlockingIOError):
            listener.accept()
    del os.environ["FSTUNE_TEST_SECRET"]
    assert everything(home) == before
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not Path("/planted").exists()
    return outcomes


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_does_not_pass(aftermath, name):
    outcome = aftermath[name]
    assert outcome.tests_passed == 0
    if name in BY_TIME_OR_MEMORY:
        assert outcome.verdict in ("timeout", "failed")
    else:
        assert outcome.verdict == ("timeout" if name in BY_TIME else "failed")


def processes_of(parent):
    """Ids of the sandbox's processes that `parent` started and that are there."""
    script, found = sandbox_child.__file__.encode(), []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue  # ended meanwhile
        if {script, str(parent).encode()} <= set(command.split(b"\0")):
            found.append(entry.name)
    return found


def wait_for(number, parent):
    deadline = time.monotonic() + 20
    while len(processes_of(parent)) != number:
        assert time.monotonic() < deadline, processes_of(parent)
        time.sleep(0.02)


def test_nothing_is_left_running(aftermath):
    assert aftermath
    wait_for(0, os.getpid())


def test_a_program_ends_with_the_process_that_asked_for_it():
    code = "from tasks.sandbox.enclosure import run; run('import time; time.sleep(60)', [])"
    asking = subprocess.Popen([sys.executable, "-c", code])
    wait_for(3, asking.pid)
    asking.kill()
    asking.wait()
    wait_for(0, asking.pid)


# In a user namespace of its own, as somebody without privileges: id 1000 is whoever runs the tests.
UNPRIVILEGED = """
import ctypes, os
from pathlib import Path
uid, gid = os.geteuid(), os.getegid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
Path("/proc/self/gid_map").write_text(f"1000 {gid} 1")
"""
NO_MORE_NAMESPACES = 'Path("/proc/sys/user/max_user_namespaces").write_text("0")\n'
TRY = """
from tasks.sandbox.checks import check_of, run_checks
from tasks.sandbox.enclosure import refusal
print(refusal())
program = "import os\\nme = os.getuid()\\ntry:\\n    os.fork()\\nexcept OSError:\\n    forked = 0"
check = check_of("assert (me, forked, os.listdir('.')) == (1000, 0, [])")
print(run_checks(program, [check], **{}))
"""


def lines_of(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_somebody_without_privileges_can_isolate_too():
    assert lines_of(UNPRIVILEGED + TRY) == ["", str(ProgramResult("passed", 1, 1))]


def test_where_a_program_cannot_be_isolated_it_does_not_run_unless_told_so():
    refusing = """
from tasks import registry
from tasks.sandbox.enclosure import IsolationError
try:
    run_checks(program, [])
except IsolationError as error:
    print(error)
mbpp = registry.get("mbpp")
for execute in ("unisolated", True):
    settings = mbpp.Settings(train_size=1, validation_size=1, execute=execute)
    try:
        print(callable(mbpp.scorer(settings, None)))
    except ValueError as error:
        print(error)
"""
    script = UNPRIVILEGED + NO_MORE_NAMESPACES + TRY.replace("**{}", "isolated=False") + refusing
    reason, outcome, error, told_so, not_told = lines_of(script)
    assert reason == error
    assert (
        reason == "a program cannot be isolated on this system (unshare: No space left on device)"
    )
    assert outcome == str(ProgramResult("passed", 1, 1))
    assert told_so == "True"
    assert not_told.startswith(f"mbpp: {reason}: allow user namespaces, set `execute: false`, or")


def test_a_program_has_the_standard_library_and_a_directory_to_write_to():
    program = """
import bisect, cmath, collections, copy, datetime, decimal, fractions, functools, hashlib, heapq
import itertools, json, math, operator, random, re, statistics, string, sys, tempfile, typing
def kept(text):
    with open("file", "w") as file:
        file.write(text)
    with tempfile.TemporaryFile("w+") as file:
        file.write(text), file.seek(0)
        return open("file").read() == file.read() == text
"""
    assert run(program, ["kept('äöü')", "input()", "__name__"]).calls == (
        Returned(True),
        None,
        Returned("program"),
    )


def test_no_number_of_a_programs_own_is_close_to_every_other():
    program = """
class Close(float):
    def __sub__(self, other):
        return 0.0
    __rsub__ = __sub__
def abs(number):
    return 0.0
def f():
    return Close(41)
"""
    checks = [check_of(f"assert {test}") for test in ("abs(f() - 42) < 1e-6", "f() - 41 == 0")]
    assert run_checks(program, checks) == ProgramResult("failed", 1, 2)


def test_setup_stands_between_the_program_and_the_calls():
    reply = run("class Node: value = 3\n", ["root.value", "Node.value"], setup="root = Node()")
    assert reply.calls == (Returned(3), Returned(3))


def test_a_set_of_words_has_the_same_order_in_every_run():
    orders = {str(run("", ["list({'one', 'two', 'three', 'four'})"]).calls) for _ in range(3)}
    assert len(orders) == 1


def test_subclasses_come_back_as_what_they_are_built_on():
    program = """
import collections, enum
Point = collections.namedtuple("Point", "x y")
class Level(enum.IntEnum):
    LOW = 1
class Text(str):
    pass
mappings = [collections.Counter("aa"), collections.OrderedDict(a=1)]
"""
    (returned,) = run(program, ["[Point(1, 2), Level.LOW, Text('a'), *mappings]"]).calls
    assert returned.value == [(1, 2), 1, "a", {"a": 2}, {"a": 1}]
    assert [type(value) for value in returned.value] == [tuple, int, str, dict, dict]


def test_what_passed_counts_where_a_later_call_takes_too_long():
    program = "def f(n):\n    while n > 1:\n        pass\n    return n\n"
    checks = [check_of(f"assert f({n}) == {n}") for n in (0, 1, 2, 1)]
    assert run_checks(program, checks, limits=LIMITS) == ProgramResult("timeout", 2, 4)


def test_equal_programs_have_equal_outcomes_in_their_order():
    programs = [f"def f(): return {n}" for n in (1, 2, 3, 2, 1, 1)]
    outcomes = run_all_checks(programs, [check_of("assert f() == 2")])
    assert [outcome.verdict for outcome in outcomes] == [
        "passed" if "2" in program else "failed" for program in programs
    ]


def test_real_programs_pass_their_tests(real_data):
    lines = (real_data / "mbpp" / "prompt.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        checks = [check_of(test) for test in row["test_list"]]
        outcome = run_checks(row["code"], checks, row["test_setup_code"])
        assert outcome == ProgramResult("passed", len(checks), len(checks)), row["task_id"]
