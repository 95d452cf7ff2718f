"""Which tasks there are. Names only: a task's module is imported when it is asked for.

A new task is one file and one line here.
"""

import difflib
import importlib
from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    from tasks.task import Task

    # Which settings a task has is known only once its name is.
    AnyTask: TypeAlias = Task[Any]

_TASKS = {
    "arc": "tasks.arc:Arc",
    "constr": "tasks.constr:Constr",
    "copy_a2q": "tasks.retrieval:CopyA2Q",
    "hotpot": "tasks.hotpot:Hotpot",
    "kvsort": "tasks.sorting:KvSort",
    "kvsort_after": "tasks.sorting:KvSortAfter",
    "mbpp": "tasks.mbpp:Mbpp",
    "middlematch": "tasks.lists:MiddleMatch",
    "nameindex": "tasks.lists:NameIndex",
    "needle": "tasks.needle:Needle",
    "passkey": "tasks.passkey:Passkey",
    "permfill": "tasks.sorting:PermFill",
    "protein_contact": "tasks.protein_contact:ProteinContact",
    "protein_ss": "tasks.protein_ss:ProteinSs",
    "protein_ss_inplace": "tasks.protein_ss:ProteinSsInplace",
    "punctuation": "tasks.punctuation:Punctuation",
    "punctuation_inplace": "tasks.punctuation:PunctuationInPlace",
    "retrieval": "tasks.retrieval:Retrieval",
    "retrieval_a2q": "tasks.retrieval:RetrievalA2Q",
    "rightcopy": "tasks.rightcopy:RightCopy",
    "squad": "tasks.squad:Squad",
    "sudoku": "tasks.sudoku:Sudoku",
    "sudoku_after": "tasks.sudoku:SudokuAfter",
}


def names() -> tuple[str, ...]:
    """All tasks, in alphabetical order."""
    return tuple(sorted(_TASKS))


def get(name: str) -> "AnyTask":
    """The task of that name.

    Raises:
        ValueError: there is none; names the nearest and all that there are.
    """
    if name not in _TASKS:
        near = difflib.get_close_matches(name, _TASKS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no task is called {name!r}; {hint}known: {', '.join(names())}")
    module, _, attribute = _TASKS[name].partition(":")
    task: AnyTask = getattr(importlib.import_module(module), attribute)()
    return task


def settings_types() -> object:
    """The union of all tasks' settings, told apart by their field `name`."""
    return Union[tuple(get(name).Settings for name in names())]  # noqa: UP007  # known at run time
