"""The pages in `docs` that tell people what to type, taken apart and carried out.

In a page, a block ```` ```python tickets.py ```` is a file to be written, ```` ```sh ```` is typed
line by line, ```` ```sh terminal ```` goes on in a terminal of its own until it is stopped. What
```` ```sh harness ```` needs is not always installed: `tests/export/test_folder.py` runs it. Other
blocks are for reading.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (
    *("first_search", "own_task", "own_mechanism", "cluster", "verdicts", "export"),
    "reading_a_report",
)
DATA = ROOT.parent / "shared" / "data"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE_S = 1500


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the word after that, and what it holds."""

    language: str
    word: str
    text: str

    @property
    def is_file(self) -> bool:
        return "." in self.word


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(text_of(page))]


def typed(page: str) -> list[str]:
    """Every line that a page tells people to type, continued lines joined."""
    scripts = [block.text for block in blocks(page) if block.language == "sh"]
    scripts += [block.text for block in blocks(page) if block.word.endswith(".sh")]
    joined = "\n".join(scripts).replace("\\\n", " ")
    lines = (line.partition(" #")[0].strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def commands(page: str) -> list[list[str]]:
    """The arguments of every `fstune …` that a page has people type."""
    parts = (part.strip() for line in typed(page) for part in re.split(r"&&|\|", line))
    words = [shlex.split(part) for part in parts]
    return [each[1:] for each in words if each and each[0] == "fstune"]


class Desk:
    """A folder in which a page is carried out, with the commands in the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        tools, self.site = folder / "bin", folder / "site"
        tools.mkdir()
        _script(tools / "fstune", f'exec "{sys.executable}" -m fstune.cli "$@"')
        # Installed aside, so that the environment of the tests stays as it is.
        _script(
            tools / "pip",
            f'exec "{sys.executable}" -m pip install -q --no-deps --no-build-isolation '
            f'--target "{self.site}" .',
        )
        search_path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("FSTUNE_DATA", "FSTUNE_RUNS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
        } | {
            "PATH": search_path + os.environ["PATH"],
            "PYTHONPATH": f"{self.site}{os.pathsep}{ROOT}",
        }
        self._terminals: list[subprocess.Popen[bytes]] = []
        # A cluster of this page's own, whatever else this machine has.
        home = folder / "home"
        home.mkdir()
        self.environment["HOME"] = str(home)
        self._port = _free_port()

    def carry_out(self, block: Block) -> None:
        """Write the block's file, or type its lines; each must end well."""
        if block.is_file:
            (self.folder / block.word).write_text(block.text, encoding="utf-8")
        elif block.language == "sh" and block.word == "terminal":
            self._terminals.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec env {self._placed(block.text)}"],
                    cwd=self.folder,
                    env=self.environment,
                    start_new_session=True,
                )
            )
            time.sleep(10)
        elif block.language == "sh" and block.word != "harness":
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", self._placed(block.text)],
                cwd=self.folder,
                env=self.environment,
                check=True,
                timeout=PATIENCE_S,
            )

    def _placed(self, text: str) -> str:
        text = text.replace("HEAD:", "127.0.0.1:").replace("6379", str(self._port))
        return text.replace("--data DIR", f'--data "{DATA}"')

    def close(self) -> None:
        """End what goes on in terminals of its own, the last first."""
        for terminal in reversed(self._terminals):
            assert terminal.poll() is None, "what was to go on has ended by itself"
            terminal.send_signal(signal.SIGTERM)
            terminal.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
