"""Which tasks there are. Names only: a task's module is imported when it is asked for.

A new task of this package is one file and one line here. One of another package is an entry point
of that package's in the group `fstune.tasks`, such as `tickets = "tickets:Tickets"`; once the
package is installed, here and wherever trials run, the task is like any other.
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    from tasks.task import Task

    # Which settings a task has is known only once its name is.
    AnyTask: TypeAlias = Task[Any]

GROUP = "fstune.tasks"
"""Of the entry points by which other packages bring tasks."""

_TASKS = {
    "arc": "tasks.catalog.arc:Arc",
    "constr": "tasks.catalog.constr:Constr",
    "copy_a2q": "tasks.catalog.retrieval:CopyA2Q",
    "hotpot": "tasks.catalog.hotpot:Hotpot",
    "kvsort": "tasks.catalog.sorting:KvSort",
    "kvsort_after": "tasks.catalog.sorting:KvSortAfter",
    "mbpp": "tasks.catalog.mbpp:Mbpp",
    "middlematch": "tasks.catalog.lists:MiddleMatch",
    "nameindex": "tasks.catalog.lists:NameIndex",
    "needle": "tasks.catalog.needle:Needle",
    "passkey": "tasks.catalog.passkey:Passkey",
    "permfill": "tasks.catalog.sorting:PermFill",
    "protein_contact": "tasks.catalog.protein_contact:ProteinContact",
    "protein_ss": "tasks.catalog.protein_ss:ProteinSs",
    "protein_ss_inplace": "tasks.catalog.protein_ss:ProteinSsInplace",
    "punctuation": "tasks.catalog.punctuation:Punctuation",
    "punctuation_inplace": "tasks.catalog.punctuation:PunctuationInPlace",
    "retrieval": "tasks.catalog.retrieval:Retrieval",
    "retrieval_a2q": "tasks.catalog.retrieval:RetrievalA2Q",
    "rightcopy": "tasks.catalog.rightcopy:RightCopy",
    "squad": "tasks.catalog.squad:Squad",
    "sudoku": "tasks.catalog.sudoku:Sudoku",
    "sudoku_after": "tasks.catalog.sudoku:SudokuAfter",
}


def names() -> tuple[str, ...]:
    """All tasks, in alphabetical order."""
    return tuple(sorted(_places()))


def get(name: str) -> "AnyTask":
    """The task of that name.

    Raises:
        ValueError: there is none, or it is none; names the nearest and all that there are.
        ImportError: the package that brings it cannot be imported.
    """
    places = _places()
    if name not in places:
        near = difflib.get_close_matches(name, places, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no task is called {name!r}; {hint}known: {', '.join(names())}")
    module, _, attribute = places[name].partition(":")
    task: AnyTask = getattr(importlib.import_module(module), attribute)()
    if task.name != name:
        raise ValueError(
            f"the task at {places[name]} must have the name {name!r}, got {task.name!r}"
        )
    return task


@cache
def _places() -> Mapping[str, str]:
    """Module and class of every task, by name.

    Raises:
        ValueError: two packages bring a task of one name.
    """
    places = dict(_TASKS)
    for entry in importlib.metadata.entry_points(group=GROUP):
        known = places.setdefault(entry.name, entry.value)
        if known != entry.value:
            raise ValueError(
                f"the task name {entry.name!r} must be one task's, got {known} and {entry.value}"
            )
    return places


def settings_types() -> object:
    """The union of all tasks' settings, told apart by their field `name`."""
    return Union[tuple(get(name).Settings for name in names())]  # noqa: UP007  # known at run time
