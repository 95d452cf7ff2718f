"""Arguments and options that several commands have, with their help.

FSTUNE_DATA, FSTUNE_RUNS and MLFLOW_TRACKING_URI are defaults of options.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fstune.cli import completion

Runs = Annotated[
    Path, typer.Option("--runs", envvar="FSTUNE_RUNS", help="Folder of all that runs write.")
]


Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data", envvar="FSTUNE_DATA", help="Where relative data files and checkpoints are sought."
    ),
]


Tracking = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow server; SQLite in RUNS if absent.",
    ),
]


Spec = Annotated[
    str,
    typer.Argument(
        help="A spec file, or the name of a shipped search.", autocompletion=completion.specs
    ),
]


Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="path=value, instead of what the spec says.")
]


Name = Annotated[str, typer.Argument(help="Name of a search.", autocompletion=completion.searches)]


Quiet = Annotated[bool, typer.Option("--quiet", help="Only the final answer and errors.")]


class Form(StrEnum):
    """What an arm is exported as."""

    pth = "pth"
    hf = "hf"


class Format(StrEnum):
    """How a report is printed."""

    table = "table"
    json = "json"
    markdown = "markdown"
    html = "html"
