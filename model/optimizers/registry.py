"""Which optimisers there are. Names only: a module is imported when its optimiser is asked for.

A new one of this package is a file and one line here. One of another package is an entry point of
that package's in the group `fstune.optimizers`, such as `lion = "lion_fstune:Lion"`.
"""

from functools import cache

from model.entries import Entries
from model.optimizers.optimizer import AnyOptimizer

_OPTIMIZERS = Entries(
    "optimizer",
    "fstune.optimizers",
    {
        "adamw": "model.optimizers.adamw:AdamW",
        "muon": "model.optimizers.muon:Muon",
    },
)


def names() -> tuple[str, ...]:
    """All optimisers: this package's, then those of others, each in alphabetical order."""
    return _OPTIMIZERS.names()


@cache
def get(name: str) -> AnyOptimizer:
    """The optimiser of that name.

    Raises:
        ValueError: there is none, or it has another name than its entry point.
        ImportError: the package that brings it cannot be imported.
    """
    optimizer: AnyOptimizer = _OPTIMIZERS.load(name)
    return optimizer
