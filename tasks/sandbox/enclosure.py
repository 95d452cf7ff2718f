"""Runs a program that nobody has read, and calls in it, in a process that can reach nothing.

The program gets its own user, process, mount, network, IPC and host-name namespaces, a file system
of the interpreter's standard library (read-only) and an empty directory in memory, no environment,
few system calls, and limits on everything it can use up. Its values come back as data without
behaviour. What is done inside is in `tasks.sandbox.child`; what a result is worth, in
`tasks.sandbox.checks`.

Needs Linux on x86_64 with user namespaces, which some containers and systems forbid: `refusal`
says why, and nothing runs. Unisolated, a program may read and write what its user may; limits, the
scrubbed environment and the filter of system calls stay.
"""

import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.example import TaskError
from tasks.sandbox import child as sandbox_child

_START_S = 20.0
"""For interpreter and enclosure, on a machine that is busy."""
_FREE_UID = 0x70000000
"""Identities from here on belong to nobody (systemd's "Users, Groups, UIDs and GIDs" says whose
others are); each program of a privileged user gets one of its own."""


@dataclass(frozen=True)
class Limits:
    """What a program may use up."""

    wall_s: float = 8.0
    """Seconds from its start."""
    cpu_s: int = 4
    """Seconds of a processor."""
    memory_bytes: int = 512 * 2**20
    """Of address space; 30 MB are the interpreter's."""
    file_bytes: int = 2**20
    """Of one file that it writes."""
    disk_bytes: int = 8 * 2**20
    """Of all files; they lie in memory, and are not limited together in an unisolated run."""
    reply_bytes: int = 2**16
    """Of all values that it returns, written out."""


LIMITS = Limits()


@dataclass(frozen=True)
class Returned:
    """What a call returned: built-in data; an object of any other kind equals nothing else."""

    value: object


@dataclass(frozen=True)
class Reply:
    """What became of a program."""

    calls: tuple[Returned | None, ...]
    """In the order of the calls; None where one raised or was not reached."""
    timed_out: bool


class IsolationError(TaskError):
    """A program cannot be shut in on this system, or could not this time; it did not run."""


@lru_cache(maxsize=1)
def refusal() -> str:
    """Why this system cannot isolate a program; empty if it can. Found out by trying once."""
    try:
        reply = run("def answer():\n    return 42\n", ["answer()"])
    except IsolationError as error:
        return str(error)
    return "" if reply.calls == (Returned(42),) else f"a trial run gave {reply}"


def run(
    program: str,
    calls: Sequence[str],
    setup: str = "",
    limits: Limits = LIMITS,
    isolated: bool = True,
) -> Reply:
    """Runs a program and evaluates calls in it, in a process that ends with this call.

    May be called from any thread of any process: nothing is forked here.

    Args:
        program: Python source, run as a module that is not `__main__`.
        calls: expressions, evaluated one after the other in the program's module.
        setup: source that is run between the two.
        limits: what it may use up.
        isolated: whether it is shut in.

    Raises:
        IsolationError: it cannot be shut in; it did not run.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise IsolationError(
            f"programs run on Linux on x86_64 only, this is {sys.platform} on {platform.machine()}"
        )
    uid, maps = _identity()
    request = {
        "parts": [program, setup],
        "calls": list(calls),
        "limits": vars(limits),
        "uid": uid,
        "drop_groups": os.geteuid() == 0,
    }
    with ExitStack() as stack:
        # A shut in program has a directory of its own.
        folder = "/" if isolated else stack.enter_context(tempfile.TemporaryDirectory())
        process = stack.enter_context(_start(isolated, folder))
        stack.callback(_end, process)
        return _talk(process, request, limits, maps if isolated else {})


def _start(isolated: bool, folder: str) -> "subprocess.Popen[bytes]":
    script = str(Path(sandbox_child.__file__).resolve())
    # -S and -s: no installed packages; -P: no folder of the script; -B: no byte code is written.
    command = [sys.executable, "-S", "-s", "-P", "-B", script, str(os.getpid())]
    return subprocess.Popen(
        command if isolated else [*command, "unisolated"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd=folder,
        # A set's order follows from it, and so may a verdict.
        env={"PYTHONHASHSEED": "0"},
        start_new_session=True,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills what there is of it; the kernel ends a namespace with its first process."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _talk(
    process: "subprocess.Popen[bytes]",
    request: dict[str, Any],
    limits: Limits,
    maps: dict[str, str],
) -> Reply:
    assert process.stdin is not None
    assert process.stdout is not None
    pipe = _Pipe(process.stdout.fileno(), time.monotonic() + _START_S)
    pipe.expect(sandbox_child.UNSHARED)
    try:
        for name, text in maps.items():
            Path(f"/proc/{process.pid}/{name}").write_text(text, encoding="ascii")
    except OSError as error:
        raise _refused(f"{error.filename}: {error.strerror}") from error
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(request).encode())
    pipe.expect(sandbox_child.ENCLOSED)
    # It watches the time itself; this is for the case that it was hindered.
    pipe.deadline = time.monotonic() + limits.wall_s + _START_S
    written = pipe.rest(limits.reply_bytes)
    if written is None:
        return Reply((None,) * len(request["calls"]), timed_out=pipe.late)
    # The pipe is closed when the last process ends, which is the one waited for here.
    timed_out = process.wait() == sandbox_child.TIMED_OUT
    answers = [read_value(line) for line in written.split(b"\n")[: len(request["calls"])]]
    answers += [None] * (len(request["calls"]) - len(answers))
    return Reply(tuple(answers), timed_out)


def _refused(reason: str) -> IsolationError:
    return IsolationError(f"a program cannot be isolated on this system ({reason})")


class _Pipe:
    """Reads from a pipe until a deadline."""

    def __init__(self, descriptor: int, deadline: float) -> None:
        self._descriptor = descriptor
        self._kept = b""
        self.deadline = deadline
        """On the monotonic clock, in seconds."""
        self.late = False
        """Whether it has passed."""

    def expect(self, line: bytes) -> None:
        """Reads a line.

        Raises:
            IsolationError: it is another one; tells which, or that there is none.
        """
        while b"\n" not in self._kept and self._more():
            pass
        found, end, self._kept = self._kept.partition(b"\n")
        if self.late:
            raise _refused(f"it has not started after {_START_S:.0f} s")
        if found + end != line:
            told = found.decode(errors="replace").removeprefix("refused ")
            raise _refused(told or "the interpreter ended without a word")

    def rest(self, most: int) -> bytes | None:
        """All that comes; None if that is over `most` bytes or does not end in time."""
        while self._more():
            if len(self._kept) > most:
                return None
        return None if self.late else self._kept

    def _more(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        left = self.deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            self.late = True
            return False
        new = os.read(self._descriptor, 2**16)
        self._kept += new
        return bool(new)


def _identity() -> tuple[int, dict[str, str]]:
    """The program's user, and the namespace's maps of identities: everybody as outside.

    A privileged user sees through the file system with them, and the program is somebody whom
    nobody else is; another user can map itself only.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
        return user, maps
    maps, last = {}, 0
    for name in ("uid_map", "gid_map"):
        ranges = [
            [int(number) for number in line.split()]
            for line in Path("/proc/self", name).read_text(encoding="ascii").splitlines()
        ]
        maps[name] = "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
        highest = max(first + count - 1 for first, _, count in ranges)
        last = min(last or highest, highest)
    free = _FREE_UID + int.from_bytes(os.urandom(3))
    return free if free < last else last, maps


def read_value(line: bytes) -> Returned | None:
    """The value in a line of a reply; None where it holds none, whatever it holds instead."""
    try:
        content = json.loads(line)
        return Returned(_value(content["value"]))
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        return None


def _value(content: Any) -> object:
    """The inverse of `child.inert`.

    Raises:
        LookupError, TypeError, ValueError, RecursionError: it is the inverse of nothing.
    """
    if not isinstance(content, dict):
        if isinstance(content, list):
            raise TypeError("a list stands for nothing by itself")
        return content
    ((kind, inner),) = content.items()
    if kind == "other":
        return object()
    if kind == "dict":
        return {_value(key): _value(item) for key, item in inner}
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "complex":
        return complex(*inner)
    kinds = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return kinds[kind](_value(item) for item in inner)
