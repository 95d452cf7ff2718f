"""Things by name, of this package and of others: what registries of plug-ins are made from.

Names only: a module is imported when it is asked for. A package outside brings its own by an entry
point of the registry's group.
"""

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any


class Entries:
    """A registry.

    Args:
        kind: what is registered, for messages.
        group: of the entry points by which other packages bring theirs.
        own: module and class of this package's, by name.
        reserved: names that nothing may have.
    """

    def __init__(
        self, kind: str, group: str, own: Mapping[str, str], reserved: Sequence[str] = ()
    ) -> None:
        self._kind, self._group, self._own, self._reserved = kind, group, own, reserved

    def names(self) -> tuple[str, ...]:
        """Those of this package, then those of others, each in alphabetical order."""
        others = sorted(name for name in self._places if name not in self._own)
        return (*sorted(self._own), *others)

    def load(self, name: str) -> Any:
        """An instance of what has that name.

        Raises:
            ValueError: there is none, or it has another name than its entry point.
            ImportError: the package that brings it cannot be imported.
        """
        if name not in self._places:
            raise ValueError(
                f"no {self._kind} is called {name!r}; known: {', '.join(self.names())}"
            )
        place = self._places[name]
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(module), attribute)()
        if found.name != name:
            raise ValueError(
                f"the {self._kind} at {place} must have the name {name!r}, got {found.name!r}"
            )
        return found

    @cached_property
    def _places(self) -> Mapping[str, str]:
        """Module and class of each, by name.

        Raises:
            ValueError: two packages bring one name, or a package one that is reserved.
        """
        places = dict(self._own)
        for entry in importlib.metadata.entry_points(group=self._group):
            if entry.name in self._reserved:
                raise ValueError(f"{entry.value}: no {self._kind} may be called {entry.name!r}")
            known = places.setdefault(entry.name, entry.value)
            if known != entry.value:
                raise ValueError(
                    f"the {self._kind} name {entry.name!r} must be one {self._kind}'s, "
                    f"got {known} and {entry.value}"
                )
        return places
