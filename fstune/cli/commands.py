"""The commands: arguments and exit codes. Heavy parts are imported inside the commands.

The environment is read here and nowhere else: FSTUNE_DATA, FSTUNE_RUNS and MLFLOW_TRACKING_URI are
defaults of options.
"""

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fstune.cli import completion
from fstune.errors import FstuneError, InputError
from fstune.files import RUNS

if TYPE_CHECKING:
    from rich.console import Console

    from fstune.results.folder import SearchFolder
    from fstune.search.lifecycle import Search
    from fstune.specs.sections import SearchSpec


app = typer.Typer(
    name="fstune",
    help="Does Future-Seed help, where, and with which settings? Paired searches on RWKV-7.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


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


Name = Annotated[str, typer.Argument(help="Name of a search.", autocompletion=completion.searches)]


Quiet = Annotated[bool, typer.Option("--quiet", help="Only the final answer and errors.")]


@app.command()
def search(
    spec: Spec,
    data: Data = None,
    runs: Runs = RUNS,
    tracking_uri: Tracking = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="path=value, instead of what the spec says.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on if a search of that name exists.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run a search, live."""
    with _telling("checking the spec and preparing the data", quiet):
        from fstune.api import prepare

        made = prepare(
            spec,
            data=data or [],
            runs=runs,
            overrides=set_ or [],
            tracking_uri=tracking_uri,
            resume=resume,
        )
    _run(made, quiet)


@app.command("resume")
def resume_search(
    name: Name, runs: Runs = RUNS, tracking_uri: Tracking = None, quiet: Quiet = False
) -> None:
    """Go on with a search after any stop."""
    with _telling("reading the search", quiet):
        from fstune.search.lifecycle import Search

        found = Search.open(name, runs, tracking_uri)
    _run(found, quiet)


@app.command()
def confirm(
    name: Name, runs: Runs = RUNS, tracking_uri: Tracking = None, quiet: Quiet = False
) -> None:
    """Try a search's finalists again on new seeds and the test split: one look."""
    from fstune.report.live import quietly
    from fstune.report.table import confirmation_table

    with _telling("reading the search", quiet):
        from fstune.search.confirmation import run_confirmation
        from fstune.search.lifecycle import Search

        found = Search.open(name, runs, tracking_uri)
    with _telling("confirming the finalists", quiet), quietly(found.records.log):
        run_confirmation(found)
    _console().print(confirmation_table(found.records, found.spec))
    _tell_unsent(found)


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a search; all if absent.", autocompletion=completion.searches),
    ] = None,
    runs: Runs = RUNS,
) -> None:
    """Where a search stands, also while it runs."""
    from fstune.report.live import snapshot
    from fstune.results.folder import search_names

    console = _console()
    names = [name] if name else list(search_names(runs))
    if not names:
        console.print(f"no search in {runs}; `fstune search quickstart` makes one", soft_wrap=True)
    for each in names:
        records, spec = _opened(each, runs)
        console.print(snapshot(records, spec, in_full=name is not None))


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
        _console().print(result_table(records, spec), confirmation_table(records, spec))


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
    with _telling("computing every figure again"):
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
    _console().print(comparison_view(left, right, unmatched), highlight=False)


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
    with _telling("reading the arm's weights"):
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


@app.command()
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(help="A task, to see it in full.", autocompletion=completion.tasks),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            "--spec",
            help="Whose settings the example is built with.",
            autocompletion=completion.specs,
        ),
    ] = None,
    data: Data = None,
    runs: Runs = RUNS,
) -> None:
    """The tasks: what each needs, knows and is scored by; of one, an example too."""
    from fstune.cli.task_page import declarations, overview, shown_example
    from fstune.specs.loading import known_task

    console = _console()
    if name is None:
        for heading, lines in overview():
            console.print(heading, style="bold", highlight=False, soft_wrap=True, markup=False)
            for line in lines:
                console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
        return
    task = known_task(name)
    try:
        source, text = shown_example(task, spec, data or [], runs / "cache")
        example = [f"example, as in {source}:", text]
    except InputError as error:
        if spec is not None:
            raise
        # The task's facts stand without its data, which may be on another machine.
        example = [f"example: {error}"]
    facts = [f"{fact}: {value}" for fact, value in declarations(task).items()]
    for line in [*facts, *example]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command()
def doctor(
    spec: Annotated[
        str | None,
        typer.Argument(help="A spec, to check what it needs.", autocompletion=completion.specs),
    ] = None,
    data: Data = None,
) -> None:
    """What this machine has, and what a search would use of it."""
    from fstune.cli.doctor import workbench_facts
    from fstune.machine import describe

    console = _console()
    if spec is not None:
        from fstune.specs.loading import find

        find(spec)  # a name that is wrong is told before a page of facts
    for name, value in (describe() | workbench_facts()).items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True, markup=False)
    if spec is not None:
        from fstune.cli.doctor import needs

        for name, value in needs(spec, data or []).items():
            console.print(f"{name}: {value}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def probe(
    spec: Spec,
    data: Data = None,
    runs: Runs = RUNS,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", min=0.1, help="Pretend to have so much memory.")
    ] = None,
    estimate: Annotated[
        int | None,
        typer.Option(
            "--estimate",
            min=1,
            metavar="TOKENS",
            help="Do not try: tell from the model's shapes what prompts of TOKENS would take on "
            "a GPU with --memory-gb.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="path=value, instead of what the spec says.")
    ] = None,
) -> None:
    """The largest batch that fits for every arm of a spec, tried out here."""
    from fstune.arms.inputs import checkpoint_layers
    from fstune.report.phrases import describe_candidate
    from fstune.specs.loading import find, load

    loaded = load(find(spec), set_ or [])
    if estimate is not None:
        if memory_gb is None:
            raise InputError("--estimate needs --memory-gb")
        with _telling("measuring one row of the model"):
            from fstune.search.probe import estimated

            lines = estimated(loaded.spec, estimate, memory_gb, loaded.places(data or []))
        for line in lines:
            _console().print(line, highlight=False)
        return
    found_spec = loaded.resolved(data or [], checkpoint_layers).spec
    with _telling("trying batches of rising size, each in a worker of its own"):
        from fstune.search.probe import probe as try_batches

        found = try_batches(found_spec, runs, memory_gb)
    console = _console()
    console.print(f"largest batch: {found.batch_size}", highlight=False)
    console.print(f"limited by: {found.stopped_by}", highlight=False)
    console.print(f"memory in use at that size: {found.peak_memory_gb:.3g} GB", highlight=False)
    console.print(f"tried on: {describe_candidate(found.candidate) or 'the only arm'}")


@app.command("new")
def new_search(
    name: Annotated[str, typer.Argument(help="Name of the search: letters, digits, _ and -.")],
    task: Annotated[
        str,
        typer.Option("--task", help="What is learnt.", autocompletion=completion.tasks),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="A checkpoint file; a small new model if absent."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; NAME.yaml if absent.")
    ] = None,
    data: Data = None,
) -> None:
    """Write a commented spec, to be edited: every setting, with what it is for."""
    from fstune.specs.template import Start, write_new

    path = out or Path(f"{name}.yaml")
    start = Start()
    if model is not None:
        from fstune.arms.inputs import checkpoint_config
        from fstune.specs.loading import locate

        found = locate(model, [*(data or []), path.resolve().parent])
        start = Start(model, checkpoint_config(found).num_layers)
    write_new(name, task, start, path)
    typer.echo(f"{path}: edit it, then `fstune doctor {path}` and `fstune search {path}`")


@app.command()
def schema() -> None:
    """The JSON schema of a spec, for editors."""
    import json

    from fstune.specs.sections import schema as spec_schema

    typer.echo(json.dumps(spec_schema(), indent=1))


def main() -> None:
    """Run the command line; errors meant for people become a line and an exit code."""
    # Typer itself exits with 2 for wrong arguments and with 130 for Ctrl-C.
    try:
        app()
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


def _run(search: "Search", quiet: bool) -> None:
    """Run under the live view; afterwards, or when stopped, say what to do next."""
    from fstune.report.live import View, live, quietly
    from fstune.report.table import result_table
    from fstune.tracking.tracker import shown_uri

    records, again = search.records, _resume_command(search)
    console = _console()
    view = View(records, search.spec)
    try:
        with (
            quietly(records.log) as terminal,
            contextlib.nullcontext() if quiet else live(terminal, view),
        ):
            search.run()
    except KeyboardInterrupt:
        _say(console, f"stopped; nothing is lost. Go on with: {again}")
        raise
    except FstuneError:
        raise
    except BaseException:
        _say(console, f"the search broke off; see {records.log}. Go on with: {again}")
        raise
    finally:
        console.print(result_table(records, search.spec))
    _tell_unsent(search)
    if not quiet:
        _say(console, f"records: {records.root}; MLflow: {shown_uri(search.tracking_uri)}")


def _resume_command(search: "Search") -> str:
    runs = f" --runs {shlex.quote(str(search.runs))}" if search.runs != RUNS.resolve() else ""
    return f"fstune resume {search.spec.name}{runs}"


def _tell_unsent(search: "Search") -> None:
    """Say what MLflow lacks, if it lacks something."""
    if search.records.unsent:
        told = f"MLflow is behind ({search.records.unsent}); what it lacks is sent by"
        _say(_console(), f"{told} {_resume_command(search)}")


def _say(console: "Console", text: str) -> None:
    """Print a line whole, whatever is in it: paths and commands are there to be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _telling(what: str, quiet: bool = False) -> Iterator[None]:
    """Say what takes a while, on a terminal; and how far the building of a split is."""
    console = _console()
    told = console.is_terminal and not quiet
    with console.status(what) if told else contextlib.nullcontext() as status:

        class Told(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if status is not None:
                    status.update(f"{what}: {record.getMessage()}")
                elif not quiet:
                    typer.echo(record.getMessage(), err=True)

        handler, building = Told(logging.INFO), logging.getLogger("tasks")
        building.addHandler(handler)
        level = building.level
        building.setLevel(logging.INFO)
        try:
            yield
        finally:
            building.setLevel(level)
            building.removeHandler(handler)


def _console() -> "Console":
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
