"""The commands that come before a search: tasks, this machine, the size of a batch, a new spec."""

from pathlib import Path
from typing import Annotated

import typer

from fstune.cli import completion
from fstune.cli.options import Data, Overrides, Runs, Spec
from fstune.cli.terminal import say, working
from fstune.errors import ExitCode, InputError
from fstune.files import RUNS
from model.mechanisms import registry as mechanisms

group = typer.Typer()


@group.command()
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
    from fstune.cli.task_page import overview, page_lines
    from fstune.specs.loading import known_task

    if name is None:
        for heading, lines in overview():
            say(heading, style="bold")
            for line in lines:
                say(f"  {line}")
        return
    for line in page_lines(known_task(name), spec, data or [], runs / "cache"):
        say(line)


@group.command()
def doctor(
    spec: Annotated[
        str | None,
        typer.Argument(help="A spec, to check what it needs.", autocompletion=completion.specs),
    ] = None,
    data: Data = None,
    runs: Runs = RUNS,
) -> None:
    """What this machine has, and what a search would use of it; exit 1 if one would be refused."""
    from fstune.cli.doctor import MISSING, REFUSED, needs, workbench_facts
    from fstune.machine import describe
    from fstune.specs.loading import find

    if spec is not None:
        find(spec)  # a wrong name is refused before a page of facts
    for fact, value in (describe() | workbench_facts()).items():
        say(f"{fact}: {value}")
    if spec is None:
        return
    needed = needs(spec, data or [], runs)
    for fact, value in needed.items():
        say(f"{fact}: {value}")
    if MISSING in needed or REFUSED in needed:
        raise typer.Exit(ExitCode.SEARCH_FAILED)


@group.command()
def plan(spec: Spec, data: Data = None, runs: Runs = RUNS, set_: Overrides = None) -> None:
    """What deciding a search's question takes: seeds, steps, time.

    By the arms that a search of that name has trained, else by a few that are trained now.
    """
    from fstune.cli.plan import Plan

    with working("checking the spec, and training a few of its arms"):
        from fstune.search.pilot import pilot_of

        made_of, pilot = pilot_of(spec, data or [], runs.resolve(), set_ or [])
    for line in Plan(made_of, pilot).lines():
        say(line)


@group.command()
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
    set_: Overrides = None,
) -> None:
    """The largest batch that fits for every arm of a spec, tried out here."""
    from fstune.arms.inputs import checkpoint_layers
    from fstune.report.phrases import describe_candidate
    from fstune.specs.loading import find, load

    loaded = load(find(spec), set_ or [])
    if estimate is not None:
        if memory_gb is None:
            raise InputError("--estimate needs --memory-gb")
        with working("measuring one row of the model"):
            from fstune.search.probe import estimated

            lines = estimated(loaded.spec, estimate, memory_gb, loaded.places(data or []))
        for line in lines:
            say(line)
        return
    found_spec = loaded.resolved(data or [], checkpoint_layers).spec
    with working("trying batches of rising size, each in a worker of its own"):
        from fstune.search.probe import probe as try_batches

        found = try_batches(found_spec, runs, memory_gb)
    say(f"largest batch: {found.batch_size}")
    say(f"limited by: {found.stopped_by}")
    say(f"memory in use at that size: {found.peak_memory_gb:.3g} GB")
    say(f"tried on: {describe_candidate(found.candidate) or 'the only arm'}")


@group.command("new")
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
    mechanism: Annotated[
        str, typer.Option("--mechanism", help="What is searched.")
    ] = mechanisms.names()[0],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; NAME.yaml if absent.")
    ] = None,
    data: Data = None,
) -> None:
    """Write a commented spec, to be edited: every setting, with what it is for."""
    from fstune.specs.template import Start, write_new

    path = out or Path(f"{name}.yaml")
    start = Start(mechanism=mechanism)
    if model is not None:
        from fstune.arms.inputs import checkpoint_config
        from fstune.specs.loading import locate

        found = locate(model, [*(data or []), path.resolve().parent])
        start = Start(model, checkpoint_config(found).num_layers, mechanism)
    write_new(name, task, start, path)
    typer.echo(f"{path}: edit it, then `fstune doctor {path}` and `fstune search {path}`")


@group.command()
def schema() -> None:
    """The JSON schema of a spec, for editors."""
    import json

    from fstune.specs.sections import schema as spec_schema

    typer.echo(json.dumps(spec_schema(), indent=1))
