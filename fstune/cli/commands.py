"""The commands: arguments and exit codes. Heavy parts are imported inside the commands.

FSTUNE_DATA, FSTUNE_RUNS and MLFLOW_TRACKING_URI are defaults of options. Besides, completion looks
for FSTUNE_RUNS, `search.cluster` and `search.requirements` for RAY_ADDRESS, and `machine` for
CUDA_VISIBLE_DEVICES.
"""

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fstune.cli import preparation
from fstune.cli.completion import searches
from fstune.cli.options import (
    Data,
    Form,
    Format,
    Name,
    Overrides,
    Quiet,
    Runs,
    Spec,
    Tracking,
)
from fstune.cli.terminal import console, run_live, say, say_what_mlflow_lacks, working
from fstune.errors import FstuneError, InputError
from fstune.files import RUNS

if TYPE_CHECKING:
    from fstune.results.folder import SearchFolder
    from fstune.specs.sections import SearchSpec


app = typer.Typer(
    name="fstune",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fstune {importlib.metadata.version('fstune')}")
        raise typer.Exit


@app.callback()
def fstune(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Does a mechanism help, where, and with which settings? Paired searches on RWKV-7."""


@app.command()
def search(
    spec: Spec,
    data: Data = None,
    runs: Runs = RUNS,
    tracking_uri: Tracking = None,
    set_: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on if a search of that name exists.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run a search, live."""
    with working("checking the spec and preparing the data", quiet):
        from fstune.api import prepare

        made = prepare(
            spec,
            data=data or [],
            runs=runs,
            overrides=set_ or [],
            tracking_uri=tracking_uri,
            resume=resume,
        )
    run_live(made, quiet)


@app.command("resume")
def resume_search(
    name: Name, runs: Runs = RUNS, tracking_uri: Tracking = None, quiet: Quiet = False
) -> None:
    """Go on with a search after any stop."""
    with working("reading the search", quiet):
        from fstune.search.lifecycle import Search

        found = Search.open(name, runs, tracking_uri)
    run_live(found, quiet)


@app.command()
def confirm(
    name: Name, runs: Runs = RUNS, tracking_uri: Tracking = None, quiet: Quiet = False
) -> None:
    """Try a search's best again on the test split, with new seeds until it is decided."""
    from fstune.report.live import quietly
    from fstune.report.table import confirmation_table

    with working("reading the search", quiet):
        from fstune.search.confirmation import run_confirmation
        from fstune.search.lifecycle import Search

        found = Search.open(name, runs, tracking_uri)
    with working("confirming the finalists", quiet), quietly(found.records.log_file):
        run_confirmation(found)
    console().print(confirmation_table(found.records, found.spec))
    say_what_mlflow_lacks(found)


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a search; all if absent.", autocompletion=searches),
    ] = None,
    runs: Runs = RUNS,
) -> None:
    """Where a search stands, also while it runs."""
    from fstune.report.live import snapshot
    from fstune.results.paths import search_names

    names = [name] if name else list(search_names(runs))
    if not names:
        say(f"no search in {runs}; `fstune search quickstart` makes one")
    for each in names:
        records, spec = _opened(each, runs)
        console().print(snapshot(records, spec, in_full=name is not None))


@app.command()
def report(
    name: Name,
    runs: Runs = RUNS,
    format_: Annotated[
        Format, typer.Option("--format", help="html writes a page beside the records.")
    ] = Format.table,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Folder for the figures: SVG, PNG and CSV.")
    ] = None,
) -> None:
    """What a search found: its ranked table, all of it as JSON, a text or a page with figures."""
    from fstune.report.data import as_json
    from fstune.report.table import confirmation_table, result_table

    records, spec = _opened(name, runs)
    if figures is not None:
        from fstune.report.page import write_figures

        written = write_figures(records, spec, figures)
        typer.echo(f"{len(written)} files in {figures}", err=True)
    if format_ is Format.json:
        import json

        typer.echo(json.dumps(as_json(records, spec), indent=1))
    elif format_ is Format.markdown:
        from fstune.report.page import markdown
        from fstune.report.summary import summarise

        typer.echo(markdown(summarise(records, spec)), nl=False)
    elif format_ is Format.html:
        from fstune.report.page import write_page

        typer.echo(write_page(records, spec).html)
    else:
        console().print(result_table(records, spec), confirmation_table(records, spec))


@app.command()
def ui(
    runs: Runs = RUNS,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="5000 if absent, or a free one."),
    ] = None,
) -> None:
    """MLflow's pages over the runs on 127.0.0.1, until Ctrl-C."""
    from fstune.tracking.ui import serve

    serve(runs, port, typer.echo)


@app.command()
def verify(name: Name, runs: Runs = RUNS) -> None:
    """Compute every figure of a search again from the stored outcomes, and say which differ."""
    from fstune.report.verification import differences

    records, spec = _opened(name, runs)
    with working("computing every figure again"):
        found = differences(records, spec)
    for line in found:
        typer.echo(line)
    if found:
        raise typer.Exit(1)
    typer.echo(f"every figure of {name} comes out again")


@app.command()
def compare(
    one: Annotated[str, typer.Argument(metavar="A", help="SEARCH for its best, or SEARCH:TRIAL.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The same of another.")],
    unmatched: Annotated[
        bool, typer.Option("--unmatched", help="Show both even where their contexts differ.")
    ] = False,
    runs: Runs = RUNS,
) -> None:
    """Two variants side by side, B minus A over the same examples; refused if contexts differ."""
    from fstune.report.side_by_side import ComparedVariant, comparison_view

    left, right = (ComparedVariant.find(name, runs.resolve()) for name in (one, other))
    console().print(comparison_view(left, right, unmatched), highlight=False)


@app.command()
def export(  # noqa: PLR0913, PLR0917 - a parameter is an option
    name: Name,
    to: Annotated[
        Form,
        typer.Option(
            "--to",
            help="pth: RWKV-7's official layout, gates beside it; hf: a folder for transformers.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The file, or for hf the folder.")],
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", help="A trial's number; the confirmed winner if absent."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the arm; the first that is stored if absent.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="The trial's baseline, not its variant.")
    ] = False,
    train_again: Annotated[
        bool, typer.Option("--train-again", help="Train the arm anew if its weights are gone.")
    ] = False,
    runs: Runs = RUNS,
) -> None:
    """Write an arm's model for other programs."""
    records, spec = _opened(name, runs.resolve())
    with working("reading the arm's weights"):
        from fstune.export.weights import Wanted, take, write_pth

        wanted = Wanted(candidate, "baseline" if baseline else "variant", seed)
        exported = take(records, spec, wanted, train_again)
        if to is Form.hf:
            from fstune.export.folder import write_folder

            write_folder(exported, out)
            files = [out]
        else:
            files = write_pth(exported, out)
    typer.echo(f"{exported.place}, step {exported.step}: {', '.join(map(str, files))}")


app.add_typer(preparation.group)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors meant for people become a line and an exit code.

    Args:
        arguments: what stands after `fstune`; that of this process if None.
    """
    # Typer itself exits with 2 for wrong arguments and with 130 for Ctrl-C.
    try:
        app(arguments, prog_name="fstune")
    except FstuneError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        # A folder or file that the user named: --runs, --figures, --out.
        if error.filename is None:
            raise
        typer.echo(f"{error.filename}: {error.strerror}", err=True)
        sys.exit(InputError.exit_code)


def _opened(name: str, runs: Path) -> "tuple[SearchFolder, SearchSpec]":
    from fstune.api import load

    found = load(name, runs)
    return found.records, found.spec


if __name__ == "__main__":
    main()
