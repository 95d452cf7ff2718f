"""What a shell offers where a spec, a search or a task is wanted. Light: it runs at every tab."""

import os
from collections.abc import Iterator
from pathlib import Path

import typer

from fstune.places import RUNS


def specs(incomplete: str) -> Iterator[str]:
    """Shipped searches, and the YAML files and folders that the word leads to."""
    from fstune.spec import shipped

    yield from (name for name in shipped() if name.startswith(incomplete))
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder or ("/" if incomplete.startswith("/") else "."))
    for path in sorted(place.glob(f"{start}*")) if place.is_dir() else ():
        found = f"{folder}/{path.name}" if "/" in incomplete else path.name
        if path.suffix in (".yaml", ".yml"):
            yield found
        elif path.is_dir() and not path.name.startswith("."):
            yield f"{found}/"


def searches(context: typer.Context, incomplete: str) -> Iterator[str]:
    """The searches in the folder of runs that the command line or the environment names."""
    runs = Path(context.params.get("runs") or os.environ.get("FSTUNE_RUNS") or RUNS)
    for path in sorted(runs.glob("searches/*/spec.json")):
        if path.parent.name.startswith(incomplete):
            yield path.parent.name


def tasks(incomplete: str) -> Iterator[str]:
    """The registered tasks."""
    from tasks import registry

    yield from (name for name in registry.names() if name.startswith(incomplete))
