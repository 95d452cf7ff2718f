"""The broken specs and commands of `broken_specs`, and what a user is told of each.

`broken_specs/told.txt` is a transcript: a line `$ fstune …` for every command, and below it what
the command printed. Run this file to write it anew; a spec that no command names yet is searched.
"""

import contextlib
import io
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from fstune.cli.commands import main

FOLDER = Path(__file__).parents[1] / "specs" / "broken_specs"
TRANSCRIPT = FOLDER / "told.txt"
ROOT = Path(__file__).parents[2]
PROMPT = "$ "


def transcript() -> dict[str, str]:
    """What was told, by command, in the order of the file."""
    told: dict[str, str] = {}
    if TRANSCRIPT.exists():
        for case in TRANSCRIPT.read_text(encoding="utf-8").split(f"\n{PROMPT}"):
            command, _, text = case.removeprefix(PROMPT).partition("\n")
            told[command] = text.rstrip("\n")
    return told


def specs() -> list[str]:
    """Names of the broken specs."""
    return sorted(path.name for path in FOLDER.glob("*.yaml"))


@contextlib.contextmanager
def _as_a_user_in(folder: Path, runs: Path) -> Iterator[None]:
    """What a command line finds around it: nothing that this machine happens to say."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FSTUNE_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    } | {"FSTUNE_RUNS": str(runs), "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    with contextlib.chdir(folder), mock.patch.dict(os.environ, variables, clear=True):
        yield


def run(command: str) -> tuple[object, str]:
    """Exit code and all that a command line says, in this process and in the folder of the specs.

    The folders of this machine are called `…/broken_specs` and `mlruns`.
    """
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as made:
        runs = Path(made).resolve() / "mlruns"
        with (
            _as_a_user_in(FOLDER, runs),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            try:
                main(shlex.split(command)[1:])
                code: object = 0
            except SystemExit as end:
                code = end.code
    text = said.getvalue().replace(str(runs), "mlruns").replace(str(FOLDER), "…/broken_specs")
    text = text.replace(str(ROOT), "…")
    return code, "\n".join(line.rstrip() for line in text.splitlines())


def tell() -> None:
    """Write the transcript anew."""
    told = transcript()
    searched = [f"fstune search {name}" for name in specs()]
    new = [line for line, name in zip(searched, specs(), strict=True) if name not in str(told)]
    cases = [f"{PROMPT}{command}\n{run(command)[1]}\n" for command in [*told, *new]]
    TRANSCRIPT.write_text("\n".join(cases), encoding="utf-8")


if __name__ == "__main__":
    tell()
