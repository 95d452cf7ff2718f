"""What a shell offers where a spec, a search or a task is wanted. Light: it runs at every tab.

What does not begin with the word so far is left out by Typer.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import typer

from fstune.files import RUNS


def specs(incomplete: str) -> Iterator[str]:
    """Shipped searches, and the YAML files and folders that the word leads to."""
    from fstune.specs.loading import shipped

    yield from shipped()
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder or ("/" if incomplete.startswith("/") else "."))
    for path in sorted(place.glob(f"{start}*")) if place.is_dir() else ():
        found = f"{folder}/{path.name}" if "/" in incomplete else path.name
        if path.suffix in (".yaml", ".yml"):
            yield found
        elif path.is_dir() and not path.name.startswith("."):
            yield f"{found}/"


def searches(context: typer.Context) -> Iterator[str]:
    """The searches in the folder of runs that the command line or the environment names."""
    from fstune.results.paths import search_names

    runs = Path(context.params.get("runs") or os.environ.get("FSTUNE_RUNS") or RUNS)
    yield from search_names(runs)


def tasks() -> Iterator[str]:
    """The registered tasks."""
    from tasks import registry

    yield from registry.names()
