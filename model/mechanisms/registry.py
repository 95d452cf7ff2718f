"""Which mechanisms there are. Names only: a mechanism's module is imported when it is asked for.

A new one of this package is a folder and one line here. One of another package is an entry point of
that package's in the group `fstune.mechanisms`, such as `transposed = "transposed:Transposed"`;
once the package is installed, here and wherever trials run, it is a section of every spec.
"""

from functools import cache
from typing import TYPE_CHECKING

from model.entries import Entries

if TYPE_CHECKING:
    from model.mechanisms.mechanism import AnyMechanism

_MECHANISMS = Entries(
    "mechanism",
    "fstune.mechanisms",
    {
        "future_seed": "model.mechanisms.future_seed.mechanism:FutureSeedMechanism",
        "learned_state": "model.mechanisms.learned_state.mechanism:LearnedStateMechanism",
        "second_pass": "model.mechanisms.second_pass.mechanism:SecondPassMechanism",
    },
    # The other sections of an arm, and the other files of a kept model.
    reserved=("model", "task", "train", "weights", "description"),
)


def names() -> tuple[str, ...]:
    """All mechanisms: this package's, then those of others, each in alphabetical order."""
    return _MECHANISMS.names()


@cache
def get(name: str) -> "AnyMechanism":
    """The mechanism of that name.

    Raises:
        ValueError: there is none, or it has another name than its entry point.
        ImportError: the package that brings it cannot be imported.
    """
    mechanism: AnyMechanism = _MECHANISMS.load(name)
    return mechanism


def of_path(path: str) -> str | None:
    """The mechanism whose setting a path names (`future_seed.alpha`); None for any other."""
    section = path.partition(".")[0]
    return section if section in names() else None
