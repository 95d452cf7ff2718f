"""The inside of the sandbox: a script that shuts itself in and then runs a program.

`tasks.sandbox.enclosure` starts it as a process of its own and says what there is to run. It
imports nothing but the standard library. Three processes come of it:

    outer       leaves the namespaces of the machine and waits
    init        pid 1 of the new namespace: empties the file system, gives up every privilege,
                watches the clock; when it ends, the kernel ends all that is left in there
    program     the program: one process with one thread and few system calls

Only `program` runs code that is not ours, and it does so after everything else is done. What it
writes back is data to be distrusted: it may have changed any part of the process that it is in.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import sys
import types
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

UNSHARED = b"unshared\n"
"""First line of the reply: the namespaces are left, and identities wait to be mapped."""
ENCLOSED = b"enclosed\n"
"""Second line: all that follows is written by the program's process."""
TIMED_OUT = 3
"""Exit code where the program used up its time."""

# Kernel interface: linux/sched.h, linux/mount.h, linux/prctl.h, linux/seccomp.h, linux/audit.h.
_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID = 0x8000000, 0x10000000, 0x20000000
_CLONE_NEWNET = 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_MODE_FILTER = 2
_SECCOMP_KILL_PROCESS, _SECCOMP_ERRNO, _SECCOMP_ALLOW = 0x80000000, 0x50000, 0x7FFF0000
_AUDIT_ARCH_X86_64 = 0xC000003E
_SYS_PIVOT_ROOT, _SYS_CAPSET = 155, 126
_SYS_IOCTL = 16

_ALLOWED_CALLS = {
    # memory, time, signals to itself, its end
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131, "tgkill": 234,
    "alarm": 37, "getitimer": 36, "setitimer": 38, "nanosleep": 35, "clock_nanosleep": 230,
    "clock_gettime": 228, "clock_getres": 229, "gettimeofday": 96, "time": 201, "times": 100,
    "futex": 202, "restart_syscall": 219, "sched_yield": 24, "exit": 60, "exit_group": 231,
    # what it is
    "getpid": 39, "getppid": 110, "gettid": 186, "getuid": 102, "geteuid": 107, "getgid": 104,
    "getegid": 108, "getrusage": 98, "uname": 63, "sched_getaffinity": 204, "getrandom": 318,
    # files, of which there are the standard library and an empty directory
    "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "lseek": 8,
    "open": 2, "openat": 257, "close": 3, "stat": 4, "lstat": 6, "fstat": 5, "newfstatat": 262,
    "statx": 332, "access": 21, "faccessat": 269, "faccessat2": 439, "readlink": 89,
    "readlinkat": 267, "getdents64": 217, "getcwd": 79, "chdir": 80, "mkdir": 83, "mkdirat": 258,
    "rmdir": 84, "unlink": 87, "unlinkat": 263, "rename": 82, "renameat": 264, "ftruncate": 77,
    "fcntl": 72, "dup": 32, "dup2": 33, "dup3": 292, "pipe": 22, "pipe2": 293, "poll": 7,
    "ppoll": 271, "select": 23, "pselect6": 270, "umask": 95,
}  # fmt: skip
"""System calls that the program may make, with their numbers on x86_64; the rest does not exist
for it: no other process or thread, no other program, no socket, no namespace, no signal to others,
no tracing."""

_libc = ctypes.CDLL(None, use_errno=True)


def main(parent: int) -> NoReturn:
    """Outer process: reads what to run from stdin, ends with the exit code of `init`.

    Args:
        parent: the process that started this one, and that it must not outlive.
    """
    # The program cannot signal `init`, but by a signal that it handles: this is Python's only one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    isolated = "unisolated" not in sys.argv
    try:
        if isolated:
            _call(
                "unshare",
                _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC
                | _CLONE_NEWUTS | _CLONE_NEWCGROUP,
            )  # fmt: skip
        os.write(1, UNSHARED)
        request = json.loads(sys.stdin.buffer.read())
        if not request:
            os._exit(1)
        init = os.fork()
    except OSError as error:
        _refuse(error)
    if init == 0:
        _init(request, isolated)
    _, status = os.waitpid(init, 0)
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def _init(request: dict[str, Any], isolated: bool) -> NoReturn:
    """Shuts the process in, starts the program, ends when it does or its time is over."""
    limits = request["limits"]
    try:
        if isolated:
            _empty_file_system(request["uid"], limits["disk_bytes"])
            _become(request["uid"], request["drop_groups"])
        # A change of identity forgets this, so that it stands behind it.
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        program = os.fork()
    except OSError as error:
        _refuse(error)
    if program == 0:
        _program(request)
    poll = select.poll()
    poll.register(os.pidfd_open(program), select.POLLIN)
    in_time = poll.poll(limits["wall_s"] * 1000)
    if not in_time:
        os.kill(program, signal.SIGKILL)
    _, status, used = os.wait4(program, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    # The limit counts whole ticks and what is reported here is exact: on a machine that others use
    # the two differ by tenths of a second. A program that is killed earlier was not by its limit.
    spent = used.ru_utime + used.ru_stime > limits["cpu_s"] / 2
    os._exit(TIMED_OUT if not in_time or (killed and spent) else 0)


def _empty_file_system(uid: int, disk_bytes: int) -> None:
    """Leaves of all files the standard library, read-only, and an empty directory of `uid`."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    libraries = _libraries()
    # Held open, since the next mount may hide their paths.
    held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in libraries}
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,nr_inodes=1k,mode=755")
    home = f"{root}/tmp"
    Path(home).mkdir()
    owned = f"size={disk_bytes},nr_inodes=1k,mode=700,uid={uid}"
    _mount("tmpfs", home, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, owned)
    for path, directory in held.items():
        target = root + path
        Path(target).mkdir(parents=True)
        _mount(f"/proc/self/fd/{directory}", target, None, _MS_BIND | _MS_REC)
        # Packages that somebody installed are not the interpreter's.
        for packages in ("site-packages", "dist-packages"):
            if Path(target, packages).is_dir():
                _mount("tmpfs", f"{target}/{packages}", "tmpfs", _MS_RDONLY, "size=4k,nr_inodes=2")
        # A mount keeps the restrictions that it has outside; f_flag numbers them as mount does,
        # but for relatime, which is the default.
        kept = os.statvfs(target).f_flag & 0xC0F
        read_only = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
        _mount(None, target, None, read_only | kept)
        os.close(directory)
    _mount(None, root, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir(root)
    # The old root comes to lie over the new one, and is taken away from there.
    _system_call(_SYS_PIVOT_ROOT, b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/tmp")


def _libraries() -> list[str]:
    """Where this interpreter imports from: real directories, none of them inside another."""
    sys.path[:] = [os.path.realpath(path) for path in sys.path if Path(path).is_dir()]
    return [
        path
        for path in sorted(set(sys.path))
        if not any(path.startswith(f"{other}/") for other in sys.path)
    ]


def _become(uid: int, drop_groups: bool) -> None:
    """Takes on an identity without any privilege, for good."""
    if drop_groups:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    _system_call(_SYS_CAPSET, header, ctypes.create_string_buffer(24))
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def _program(request: dict[str, Any]) -> NoReturn:
    """Gives up what is left, runs the program, writes a line for each call; never returns."""
    try:
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        reply = os.dup(1)
        os.dup2(2, 0)  # the parent opened /dev/null as 2
        os.dup2(2, 1)
        os.closerange(reply + 1, 1024)
        os.environ.clear()
        sys.argv[:] = [""]
        _limit(request["limits"])
        _allow_few_calls()
        os.write(reply, ENCLOSED)
    except OSError as error:
        _refuse(error)
    try:
        _answer(request, reply)
    finally:
        # Whatever the program left to be done at the end stays undone.
        os._exit(0)


def _limit(limits: dict[str, Any]) -> None:
    """Hard limits; none of them can be raised again."""
    for kind, most in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, 1),  # it exists already: no other process and no thread
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        allowed = resource.getrlimit(kind)[1]
        lowest = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(kind, (lowest, lowest))


def _allow_few_calls() -> None:
    """Installs the filter of system calls (linux/filter.h: code, jump if true, if false, value)."""
    load, equal, ret = 0x20, 0x15, 0x06
    # struct seccomp_data: the call's number at 0, the architecture at 4.
    steps = [
        (load, 0, 0, 4),
        (equal, 1, 0, _AUDIT_ARCH_X86_64),
        (ret, 0, 0, _SECCOMP_KILL_PROCESS),
        (load, 0, 0, 0),
    ]
    for number in _ALLOWED_CALLS.values():
        steps += [(equal, 0, 1, number), (ret, 0, 0, _SECCOMP_ALLOW)]
    steps += [
        # What is asked most often: whether a file is a terminal.
        (equal, 0, 1, _SYS_IOCTL),
        (ret, 0, 0, _SECCOMP_ERRNO | errno.ENOTTY),
        (ret, 0, 0, _SECCOMP_ERRNO | errno.ENOSYS),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    # struct sock_fprog: number of steps, address.
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)


def _answer(request: dict[str, Any], reply: int) -> None:
    module = types.ModuleType("program")
    sys.modules["program"] = module
    space = vars(module)
    # Bound here: the program may replace what names mean elsewhere.
    to_text, write = json.dumps, os.write
    try:
        for part in request["parts"]:
            exec(compile(part, "<program>", "exec", dont_inherit=True), space)
        for call in request["calls"]:
            try:
                value = eval(compile(call, "<call>", "eval", dont_inherit=True), space)
                line = to_text({"value": inert(value)})
            except Exception as error:  # noqa: BLE001  # whatever the program raises
                line = to_text({"error": type(error).__name__})
            write(reply, f"{line}\n".encode())
    except BaseException:  # noqa: BLE001  # SystemExit, too: nobody is there to read a traceback
        return


Json: TypeAlias = Any


def inert(value: object) -> Json:
    """A value as plain JSON, of which the enclosure makes an equal one that has no behaviour.

    Subclasses become their built-in base; of what is none of the known kinds the name remains.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, dict):
        return {"dict": [[inert(key), inert(item)] for key, item in value.items()]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [inert(item) for item in value]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    return {"bytes": value.hex()} if isinstance(value, bytes) else {"other": type(value).__name__}


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _call("mount", *names, ctypes.c_ulong(flags), data)


def _call(name: str, *arguments: object) -> None:
    """Calls a function of the C library.

    Raises:
        OSError: it failed; tells its name and the paths it was given.
    """
    if getattr(_libc, name)(*arguments) != 0:
        _fail(" ".join([name, *(os.fsdecode(a) for a in arguments if isinstance(a, bytes))]))


def _system_call(number: int, *arguments: object) -> None:
    if _libc.syscall(ctypes.c_long(number), *arguments) != 0:
        _fail(f"system call {number}")


def _fail(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def _refuse(error: OSError) -> NoReturn:
    """Tells the parent why nothing was run, and ends; before the program starts only."""
    where = f"{error.filename}: " if error.filename else ""
    os.write(1, f"refused {where}{error.strerror}\n".encode())
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
