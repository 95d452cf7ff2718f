"""Programs that mean harm. Each would pass the test `attack() == 42` if it reached its aim.

$home is a folder with a file `precious`, $pid the testing process, $port a port that it listens to,
$secret the value of its environment's FSTUNE_TEST_SECRET.
"""

HOSTILE = {
    "fork bomb": """
        import os
        def attack():
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
    """,
    "one fork": """
        import os
        def attack():
            return 42 if os.fork() >= 0 else 0
    """,
    "a thread": """
        import threading
        def attack():
            threading.Thread(target=print).start()
            return 42
    """,
    "another program": """
        import subprocess
        def attack():
            subprocess.run(["/bin/true"])
            return 42
    """,
    "exec": """
        import os, sys
        def attack():
            os.execv("/bin/true", ["true"])
    """,
    "infinite loop": """
        while True:
            pass
    """,
    "endless sleep": """
        import time
        time.sleep(10**6)
    """,
    "every signal caught": """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, lambda *_: None)
            except (OSError, ValueError):
                pass
        def attack():
            while True:
                pass
    """,
    "more time asked for": """
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))
        except (OSError, ValueError):
            pass
        def attack():
            while True:
                pass
    """,
    "10 GB": """
        def attack():
            return 42 if bytearray(10 * 2**30) else 0
    """,
    "10 GB piece by piece": """
        def attack():
            kept = []
            while len(kept) < 10240:
                kept.append(bytearray(b"x" * 2**20))
            return 42
    """,
    "a large file": """
        def attack():
            with open("large", "wb") as file:
                for _ in range(64):
                    file.write(bytes(2**20))
            return 42
    """,
    "many files": """
        def attack():
            for number in range(64):
                with open(f"file{number}", "wb") as file:
                    file.write(bytes(2**19))
            return 42
    """,
    "deleting the home directory": """
        import os, pathlib, shutil
        def attack():
            for home in ("$home", os.path.expanduser("~"), "/root", "/home"):
                shutil.rmtree(home, ignore_errors=True)
            pathlib.Path("$home/precious").unlink()
            return 42
    """,
    "reading a file": """
        def attack():
            return 42 if open("$home/precious").read() else 0
    """,
    "reading the system's files": """
        import os
        def attack():
            for path in ("/etc/passwd", "/proc/1/environ", "/sys/kernel", "/dev/null"):
                if os.path.exists(path):
                    return 42
    """,
    "reading installed packages": """
        import os, sysconfig
        def attack():
            folder = os.path.dirname(os.__file__)
            for name in ("site-packages", "dist-packages"):
                if os.path.isdir(f"{folder}/{name}") and os.listdir(f"{folder}/{name}"):
                    return 42
    """,
    "changing the standard library": """
        import os
        def attack():
            with open(os.__file__, "a"):
                return 42
    """,
    "reading the environment": """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            libc.getenv.restype = ctypes.c_char_p
            seen = [*os.environ.values(), (libc.getenv(b"FSTUNE_TEST_SECRET") or b"").decode()]
            for name in ("self", "1", "$pid"):
                if os.path.exists(f"/proc/{name}/environ"):
                    seen.append(open(f"/proc/{name}/environ").read())
            return 42 if any("$secret" in text for text in seen) else 0
    """,
    "a socket": """
        import socket
        def attack():
            socket.create_connection(("127.0.0.1", $port), timeout=1)
            return 42
    """,
    "any kind of socket": """
        import socket
        def attack():
            for family in range(46):
                for kind in (1, 2, 3):
                    try:
                        socket.socket(family, kind)
                        return 42
                    except OSError:
                        pass
    """,
    "writing outside": """
        def attack():
            with open("$home/planted", "w") as file:
                file.write("x")
            return 42
    """,
    "writing outside the directory": """
        import os
        def attack():
            for path in ("/planted", "/tmp/../planted", "/usr/planted"):
                try:
                    with open(path, "w"):
                        return 42
                except OSError:
                    pass
    """,
    "printing without end": """
        def attack():
            while True:
                print("x" * 1000)
    """,
    "writing without end to whatever is open": """
        import os
        while True:
            for descriptor in range(64):
                try:
                    os.write(descriptor, b"x" * 1000)
                except OSError:
                    pass
    """,
    "a value without end": """
        def attack():
            return "x" * 2**24
    """,
    "ending early": """
        import os
        os._exit(0)
    """,
    "ending early and politely": """
        raise SystemExit(0)
    """,
    "ending in the call": """
        import os
        def attack():
            os._exit(0)
    """,
    "crashing": """
        import ctypes
        def attack():
            ctypes.string_at(0)
    """,
    "no end of recursion": """
        import sys
        sys.setrecursionlimit(10**9)
        def attack():
            return attack() + 1
    """,
    "equal to everything": """
        class Equal(int):
            def __eq__(self, other):
                return True
            __hash__ = int.__hash__
        def attack():
            return Equal(41)
    """,
    "an object equal to everything": """
        class Equal:
            def __eq__(self, other):
                return True
        def attack():
            return Equal()
    """,
    "replacing what tests": """
        import builtins, json, sys
        import __main__
        for module in (builtins, __main__, json):
            for name in list(vars(module)):
                if callable(getattr(module, name)) and name not in ("print", "__import__"):
                    try:
                        setattr(module, name, lambda *a, **k: 42)
                    except (AttributeError, TypeError):
                        pass
    """,
    "looking for the expected value": """
        import gc, sys
        def attack():
            frame = sys._getframe()
            while frame:
                for value in (*frame.f_locals.values(), *frame.f_globals.values()):
                    if value == 6 * 7 or "=" "= 42" in str(value):
                        return 42
                frame = frame.f_back
    """,
    "forging replies": """
        import os
        for descriptor in range(3, 64):
            for line in (b'{"value": true}', b'{"passed": 1}', b'{"value": {"other": "int"}}',
                         b'passed', b'', b'[' * 100000, b'9' * 100000, b'enclosed', b'null'):
                try:
                    os.write(descriptor, line + bytes([10]))
                except OSError:
                    pass
        os._exit(0)
    """,
    "killing others": """
        import os
        def attack():
            for victim in (1, os.getppid(), $pid, -1):
                if victim:
                    os.kill(victim, 9)
            return 42
    """,
    "killing the first process": """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            return 42 if any(libc.kill(1, number) == 0 for number in range(1, 65)) else 0
    """,
    "system calls of an escape": """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None, use_errno=True)
            done = [
                libc.unshare(0x10000000),
                libc.setuid(0),
                libc.chroot(b"/tmp"),
                libc.mount(b"proc", b"/tmp", b"proc", 0, None),
                libc.ptrace(16, 1, 0, 0),
                libc.prctl(22, 0, 0, 0, 0),
                libc.syscall(435, None, 0),
                libc.syscall(425, 8, None),
                libc.syscall(321, 0, None, 0),
                libc.syscall(0x40000000 + 57),
            ]
            return 42 if any(result >= 0 for result in done) else 0
    """,
    "the old numbers of system calls": """
        import ctypes, mmap
        def attack():
            # mov eax, 20; int 0x80; ret: getpid as 32-bit programs call it
            page = mmap.mmap(-1, 4096, prot=7)
            page.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            return 42 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else 0
    """,
}

BY_TIME = {
    "fork bomb",
    "infinite loop",
    "endless sleep",
    "every signal caught",
    "more time asked for",
    "printing without end",
}
"""Those that are ended by the clock."""

BY_TIME_OR_MEMORY = {"10 GB piece by piece", "no end of recursion"}
"""Those that fill memory bit by bit: a slow machine's clock ends them first."""
