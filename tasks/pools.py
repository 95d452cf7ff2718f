"""Which collected rows a split may use, so that no two splits share any.

A group of rows (a question, a document) feeds one split only, and so do near-copies where a source
can tell them (`Source.marks`). There are three arrangements of pools, the files or splits of the
hub that rows come from:

- each split has a pool of its own: train leaves out every group that the others' hold, test those
  that validation's holds;
- one pool serves all: each group is one split's, by a hash of its name;
- test has none of its own and shares validation's: of groups of several rows (an article) each is
  one of theirs by hash, else validation reads from the front and test from the back.

Of near-copies train's are left out, then test's. Rows are read in the order of a hash of seed and
group, so that neither another size nor another row, unless it is a copy, moves the ones before. A
task's material (rows to quote from) is in groups of the train pool that give no example.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, overload

from tasks.sources import Row, Rows, Source
from tasks.task import SPLIT_NAMES, SplitName

OWNERS: tuple[SplitName, ...] = ("validation",) * 2 + ("test",) * 2 + ("train",) * 12
"""Shares of rows that serve all splits, in sixteenths; the hash of a group says whose it is."""


# Before which splits a split gives way, where both have a group or near-copies of a row.
_BEFORE: Mapping[SplitName, tuple[SplitName, ...]] = {
    "train": ("validation", "test"),
    "test": ("validation",),
    "validation": (),
}
_COPIES = "near-copies of rows that another split holds"

# One group of the train pool in so many is material, where a task wants any.
_MATERIAL_SHARE = 16


@dataclass(frozen=True)
class Reader:
    """The split that reads a source's rows, and how it gets at them."""

    split: SplitName
    seed: str
    """Of the order of the rows."""
    open_pool: Callable[[SplitName], Rows]
    """The rows that feed a split which has a pool."""
    read_by_validation: Callable[[], int]
    """How many rows validation has looked at."""


@dataclass(frozen=True)
class Pool:
    """Collected rows that one split may use, in the order in which it reads them."""

    stored: Any
    order: Sequence[int]
    size: int
    """Rows before any was left out."""
    description: str
    left_out: Counter[str]

    def rows(self) -> Iterator[Row]:
        return (self.stored[index] for index in self.order)


class _Group(NamedTuple):
    """A group of rows without its name, which may be as long as a document."""

    place: bytes
    """Names it, and where the split reads its row: a hash of the split's seed and its name."""
    owner: int
    """Says which of the splits that share a pool it belongs to."""
    is_material: bool

    @classmethod
    def of(cls, name: str, seed: str, wants_material: bool) -> "_Group":
        share = hashlib.sha256(f"material\0{name}".encode()).digest()[0] % _MATERIAL_SHARE
        owner = hashlib.sha256(f"owner\0{name}".encode()).digest()[0]
        return cls(_place(name, seed), owner, wants_material and share == 0)

    def owned_by(self, owners: Sequence[SplitName]) -> SplitName:
        """Which of the splits it belongs to; each has its share of `owners`."""
        return owners[self.owner % len(owners)]


def _place(name: str, seed: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


class OwnPool:
    """A pool that gives way to those before it, group by group and near-copy by near-copy."""

    def __init__(self, source: Source, reader: Reader) -> None:
        self._source = source
        self._reader = reader
        self._pools = source.pools
        # One that has none of its own reads validation's.
        self._reads: SplitName = reader.split if reader.split in self._pools else "validation"
        self._groups_of: dict[SplitName, list[_Group]] = {}

    def pool(self) -> Pool:
        """The rows that may give examples."""
        stored, groups = self._reader.open_pool(self._reads), self._groups(self._reads)
        copies = self._copies(stored, self._marks(self._rows_before()))
        anothers = self._anothers()
        left_out: Counter[str] = Counter()
        first_row: dict[bytes, int] = {}
        for index, (group, row) in enumerate(zip(groups, self._row_places(), strict=True)):
            if group.place in anothers:
                left_out["rows that another split holds"] += 1
            elif self._reads == "train" and group.is_material:
                left_out["rows kept as material"] += 1
            elif index in copies:
                left_out[_COPIES] += 1
            elif row in first_row:
                left_out["repeats of another row"] += 1
            else:
                first_row[row] = index
        order = [first_row[row] for row in sorted(first_row)]
        return Pool(stored, order, len(groups), "rows", left_out)

    def material(self) -> list[Row]:
        """The first rows of the train pool that are in groups put aside."""
        if self._source.material == 0:
            return []
        stored, taken = self._reader.open_pool("train"), self._taken("train")
        groups = enumerate(self._groups("train"))
        chosen = (i for i, group in groups if group.is_material and group.place not in taken)
        return [stored[index] for index in islice(chosen, self._source.material)]

    def quotes(self) -> "Quotes":
        """All rows of the split, where none gives an example.

        A pool that serves several splits gives each of its groups to one of them.
        """
        split, pools = self._reader.split, self._pools
        feeds = {name: pools.get(name, pools["validation"]) for name in SPLIT_NAMES}
        owners = [owner for owner in OWNERS if feeds[owner] == feeds[split]]
        taken = self._taken(self._reads)
        own = [
            index
            for index, group in enumerate(self._groups(self._reads))
            if group.place not in taken and group.owned_by(owners) == split
        ]
        return Quotes(self._reader.open_pool(self._reads), own)

    def _anothers(self) -> set[bytes]:
        """Places of the groups that this pool has, and another split."""
        return self._taken(self._reads)

    def _taken(self, pool: SplitName) -> set[bytes]:
        """Places of the groups that pools before this one hold."""
        before = (other for other in _BEFORE[pool] if other in self._pools)
        return {group.place for other in before for group in self._groups(other)}

    def _rows_before(self) -> Iterator[Row]:
        """Rows, with the fields of groups alone, of which this pool has no near-copies."""
        for other in _BEFORE[self._reads]:
            if other in self._pools:
                yield from self._reader.open_pool(other).only(self._source.group_fields)

    def _groups(self, pool: SplitName) -> list[_Group]:
        """The group of every row of a pool."""
        if pool not in self._groups_of:
            source, seed = self._source, self._reader.seed
            names = self._reader.open_pool(pool).groups(source.group_fields, source.group_name)
            self._groups_of[pool] = [_Group.of(name, seed, source.material > 0) for name in names]
        return self._groups_of[pool]

    def _row_places(self) -> Iterator[bytes]:
        """Where the split reads each row."""
        source = self._source
        if not source.row_fields:
            return (group.place for group in self._groups(self._reads))
        stored = self._reader.open_pool(self._reads)
        names = stored.groups((*source.group_fields, *source.row_fields))
        return (_place(name, self._reader.seed) for name in names)

    def _marks(self, rows: Iterable[Row]) -> set[str]:
        marks = self._source.marks
        return set() if marks is None else {mark for row in rows for mark in marks(row)}

    def _copies(self, stored: Rows, held: set[str]) -> set[int]:
        """Rows that have a mark of those that are held."""
        marks = self._source.marks
        if marks is None or not held:
            return set()
        rows = enumerate(stored.only(self._source.group_fields))
        return {index for index, row in rows if not held.isdisjoint(marks(row))}


class ShareOfOnePool(OwnPool):
    """The groups of the one pool that are the split's by their hash; material is no split's."""

    def __init__(self, source: Source, reader: Reader) -> None:
        super().__init__(source, reader)
        self._reads = "train"

    def _anothers(self) -> set[bytes]:
        others = {other for other in SPLIT_NAMES if other != self._reader.split}
        return {group.place for group in self._groups("train") if self._owner(group) in others}

    def _taken(self, pool: SplitName) -> set[bytes]:
        del pool  # there is but one
        return set()

    def _rows_before(self) -> Iterator[Row]:
        rows = self._reader.open_pool("train").only(self._source.group_fields)
        for group, row in zip(self._groups("train"), rows, strict=True):
            if self._owner(group) in _BEFORE[self._reader.split]:
                yield row

    def _owner(self, group: _Group) -> SplitName | None:
        """The split to which a group belongs."""
        return None if group.is_material else group.owned_by(OWNERS)


class HalfOfAPool(OwnPool):
    """The groups of validation's pool that are validation's, or test's, by their hash."""

    def _anothers(self) -> set[bytes]:
        halves: tuple[SplitName, ...] = ("validation", "test")
        groups = self._groups(self._reads)
        return {group.place for group in groups if group.owned_by(halves) != self._reader.split}


class RestOfAPool(OwnPool):
    """What validation leaves of its pool, from the back."""

    def pool(self) -> Pool:
        whole = super().pool()
        used = self._reader.read_by_validation()
        seen = self._marks(whole.stored[index] for index in whole.order[:used])
        copies = self._copies(whole.stored, seen)
        rest = whole.order[used:][::-1]
        kept = [index for index in rest if index not in copies]
        left_out = Counter(_COPIES for index in rest if index in copies)
        description = "rows that validation does not use"
        return Pool(whole.stored, kept, len(rest), description, left_out)


def pool_of(source: Source, reader: Reader) -> OwnPool:
    """The arrangement of the source's pools, as one split sees it."""
    pools, arrangement = source.pools, OwnPool
    if len(set(pools.values())) == 1:
        arrangement = ShareOfOnePool
    elif "test" not in pools and reader.split != "train":
        if source.row_fields:
            arrangement = HalfOfAPool
        elif reader.split == "test":
            arrangement = RestOfAPool
    return arrangement(source, reader)


class Quotes(Sequence[Row]):
    """Some of the rows of a pool, read when they are looked at."""

    def __init__(self, stored: Rows, indices: Sequence[int]) -> None:
        self._stored = stored
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        if isinstance(place, slice):
            return Quotes(self._stored, self._indices[place])
        return self._stored[self._indices[place]]
