"""A task's train, validation and test examples: drawn, kept apart, built once and cached.

Kept apart: a group of rows (a question, a document) feeds one split only, and so do near-copies
where a source can tell them (`Source.marks`). Generated rows, and collected ones of which there is
one pool only, belong to the split that the hash of their group names. Other collected rows come
from the split's pool; train drops every group that the other pools hold. Where test has no pool of
its own it shares validation's: of groups of several rows (an article) each is one of theirs by
hash, else validation reads from the front and test from the back. Of near-copies train's are left
out, then test's. Collected rows are read in the order of a hash of data seed and group, so
that neither another size nor another row, unless it is a copy, moves the ones before. No split
depends on the size of train, and no other split on its sample. A task's material (rows to quote
from) is in groups of the train pool that give no example; rows that generated examples quote
(`Generated.quotes`) are of the split's own groups.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from filelock import FileLock

from tasks.controls import controlled
from tasks.example import Example, Split, TaskError, Tokenizer
from tasks.progress import Progress
from tasks.sources import Generated, Row, Rows, Source, fingerprint, open_rows
from tasks.task import SPLIT_NAMES, Builder, Dropped, Material, SplitName, TaskSettings

if TYPE_CHECKING:
    from tasks.registry import AnyTask

# Raised with every change of how rows are ordered, kept apart or stored.
_VERSION = 3

# Shares of generated rows, in sixteenths; the hash of a group says whose it is.
_OWNERS: tuple[SplitName, ...] = ("validation",) * 2 + ("test",) * 2 + ("train",) * 12

# Before which splits a split gives way, where both have a group or near-copies of a row.
_BEFORE: Mapping[SplitName, tuple[SplitName, ...]] = {
    "train": ("validation", "test"),
    "test": ("validation",),
    "validation": (),
}
_COPIES = "near-copies of rows that another split holds"

# One group of the train pool in so many is material, where a task wants any.
_MATERIAL_SHARE = 16

# Draws before a generator is said to have no more; validation, with 2 shares of 16, needs 8 an
# example where nothing repeats.
_DRAWS_PER_EXAMPLE = 64
_MIN_DRAWS = 10_000


@dataclass(frozen=True)
class _Request:
    """What is asked for, and where to look."""

    task: "AnyTask"
    settings: TaskSettings
    split: SplitName
    tokenizer: Tokenizer
    cache_dir: Path
    data_dirs: tuple[Path, ...]

    @property
    def size(self) -> int:
        return self.settings.size(self.split)

    @property
    def seed(self) -> str:
        """Of the split's rows."""
        settings = self.settings
        sampled = self.split == "train" and settings.train_sample
        return (
            f"{settings.data_seed}/{settings.train_sample}" if sampled else f"{settings.data_seed}"
        )

    @property
    def asked(self) -> str:
        return f"{self.task.name} {self.split}: {self.size} examples asked"


def load_split(
    task: "AnyTask",
    settings: TaskSettings,
    split: SplitName,
    tokenizer: Tokenizer,
    cache_dir: Path,
    data_dirs: Sequence[Path],
) -> Split:
    """A split, mapped from the cache, or built and cached.

    Args:
        task: from `tasks.registry.get`.
        settings: of the task's own `Settings`.
        split: train, validation or test.
        tokenizer: its name and vocabulary size are part of the cache's key.
        cache_dir: one folder per split, and `rows`; several processes may use it at once.
        data_dirs: where relative paths of `files` are looked for, in this order.

    Raises:
        TaskError: rows that cannot be had, or too few of them; says which and why.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f"split is one of {', '.join(SPLIT_NAMES)}, got {split!r}")
    request = _Request(task, settings, split, tokenizer, cache_dir, tuple(data_dirs))
    if request.size == 0:
        raise TaskError(f"{request.asked}: set {split}_size")
    folder = cache_dir / f"{task.name}-{split}-{_key(request)}"
    found = _load(folder)
    if found is not None:
        return found
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        found = _load(folder)
        if found is not None:
            return found
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _build(request).save(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    return Split.load(folder)


def _load(folder: Path) -> Split | None:
    """The split in `folder`; None where it is absent or damaged and must be built."""
    try:
        return Split.load(folder)
    except (FileNotFoundError, NotADirectoryError, TaskError):
        return None


def _key(request: _Request) -> str:
    """Hash of all that a split depends on; sizes of other splits and paths of files are not."""
    settings = asdict(request.settings)
    needed = {f"{request.split}_size"}
    if request.split == "test":
        needed.add("validation_size")
    if request.split == "train":
        needed.add("train_sample")
    for name in {"train_size", "validation_size", "test_size", "train_sample"} - needed:
        del settings[name]
    settings.pop("files", None)
    source = _collected_source(request)
    rows = (
        "generated" if source is None else fingerprint(source, request.cache_dir, request.data_dirs)
    )
    parts = {
        "rows": rows,
        "splits": _VERSION,
        "task": [request.task.name, request.task.version],
        "tokenizer": [request.tokenizer.name, request.tokenizer.vocab_size],
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _collected_source(request: _Request) -> Source | None:
    """Of the rows that give examples or, where those are generated, that are quoted."""
    source = request.task.source(request.settings)
    return source if isinstance(source, Source) else source.quotes


def _build(request: _Request) -> Split:
    source = request.task.source(request.settings)
    rows_of = _collected_source(request)
    collected = None if rows_of is None else _Collected(request, rows_of)
    material: Material = ()
    if collected is not None:
        material = collected.quotes() if isinstance(source, Generated) else collected.material()
    build = request.task.builder(request.settings, request.tokenizer, material)
    selection = _Selection(request.asked, request.size, build, request.settings.control)
    if isinstance(source, Generated):
        split = Split.from_examples(selection.examples(_drawn(request, source)))
        if len(split) < request.size:
            raise TaskError(
                f"{request.asked}, {len(split)} different ones found"
                f"{_counted(selection.dropped)}: "
                "its settings allow too few, ask for less or for longer examples"
            )
    else:
        assert collected is not None
        pool = collected.pool()
        selection.dropped.update(pool.left_out)
        split = Split.from_examples(selection.examples(pool.rows()))
        if len(split) < request.size:
            raise TaskError(
                f"{request.asked}, {len(split)} of {pool.size} {pool.description} fit"
                f"{_counted(selection.dropped)}; ask for fewer, or give more rows"
            )
    _check_tokens(split, request)
    return replace(split, dropped=dict(selection.dropped), rows_read=selection.rows_read)


def _counted(dropped: Counter[str]) -> str:
    counts = [f"{count} {reason}" for reason, count in dropped.most_common() if count]
    return f": {', '.join(counts)}" if counts else ""


def _check_tokens(split: Split, request: _Request) -> None:
    size = request.tokenizer.vocab_size
    every = (split.prompt_tokens, split.answer_tokens, split.target_tokens, split.choice_tokens)
    for tokens in every:
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
            raise TaskError(
                f"{request.task.name}: tokens lie in 0..{size - 1} with the tokenizer "
                f"{request.tokenizer.name}, got {tokens.min()}..{tokens.max()}"
            )


@dataclass
class _Selection:
    """The first `size` examples that rows give, and a count of the rows that give none."""

    asked: str
    size: int
    build: Builder
    control: str
    rows_read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def examples(self, rows: Iterator[Row]) -> Iterator[Example]:
        found = 0
        progress = Progress()
        for row in rows:
            self.rows_read += 1
            progress.tell(f"{self.asked}, {found} built from {self.rows_read} rows")
            built = self.build(row)
            if isinstance(built, Example):
                built = controlled(built, self.control)
            if isinstance(built, Dropped):
                self.dropped[built.reason] += 1
                continue
            yield built
            found += 1
            if found == self.size:
                return


def _drawn(request: _Request, source: Generated) -> Iterator[Row]:
    """Generated rows of one split, none twice."""
    # A string seeds through SHA-512, the same on every machine.
    stream = random.Random(f"{request.task.name}/{request.split}/{request.seed}")
    seen: set[bytes] = set()
    for _ in range(_MIN_DRAWS + _DRAWS_PER_EXAMPLE * request.size):
        drawn = source.draw(stream)
        if _OWNERS[_hash(drawn, source.group_fields)[0] % len(_OWNERS)] != request.split:
            continue
        row = drawn if source.finish is None else source.finish(drawn)
        if row is None:
            continue
        example = _hash(row, source.example_fields or source.group_fields)
        if example not in seen:
            seen.add(example)
            yield row


def _hash(row: Row, fields: Sequence[str]) -> bytes:
    content = json.dumps([row[name] for name in fields]).encode()
    return hashlib.sha256(content).digest()


@dataclass(frozen=True)
class _Pool:
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


class _Collected:
    """The rows of a source as one split and its builder may use them."""

    def __init__(self, request: _Request, source: Source) -> None:
        self._request = request
        self._source = source
        self._pools = source.pools
        self._one_pool = len(set(self._pools.values())) == 1
        self._of_many_rows = bool(source.row_fields)
        self._groups_of: dict[SplitName, list[_Group]] = {}

    def pool(self) -> _Pool:
        """The rows that may give examples."""
        request = self._request
        # One that has none of its own shares validation's, or all have the same.
        name: SplitName = request.split if request.split in self._pools else "validation"
        shared = request.split not in self._pools and not self._of_many_rows
        if self._one_pool:
            shared, name = False, "train"
        stored = self._rows(name)
        groups = self._groups(name)
        taken = self._taken(name)
        copies = self._copies(stored, self._held(request.split if self._one_pool else name))
        left_out: Counter[str] = Counter()
        places = (group.place for group in groups)
        if self._source.row_fields:
            rows = stored.groups((*self._source.group_fields, *self._source.row_fields))
            places = (_place(row, request.seed) for row in rows)
        first_row: dict[bytes, int] = {}
        for index, (group, row) in enumerate(zip(groups, places, strict=True)):
            if group.place in taken or self._of_another_split(group):
                left_out["rows that another split holds"] += 1
            elif name == "train" and group.is_material:
                left_out["rows kept as material"] += 1
            elif index in copies:
                left_out[_COPIES] += 1
            elif row in first_row:
                left_out["repeats of another row"] += 1
            else:
                first_row[row] = index
        order = [first_row[row] for row in sorted(first_row)]
        if not shared:
            return _Pool(stored, order, len(groups), "rows", left_out)
        used = _rows_of_validation(request)
        copies = self._copies(stored, self._marks(stored[index] for index in order[:used]))
        rest = order[used:][::-1]
        kept = [index for index in rest if index not in copies]
        left_out = Counter(_COPIES for index in rest if index in copies)
        return _Pool(stored, kept, len(rest), "rows that validation does not use", left_out)

    def material(self) -> list[Row]:
        """The first rows of the train pool that are in groups put aside."""
        if self._source.material == 0:
            return []
        stored = self._rows("train")
        taken = self._taken("train")
        groups = enumerate(self._groups("train"))
        chosen = (i for i, group in groups if group.is_material and group.place not in taken)
        return [stored[index] for index in islice(chosen, self._source.material)]

    def quotes(self) -> "_Quotes":
        """All rows of the split, where none gives an example.

        A pool that serves several splits gives each of its groups to one of them.
        """
        split = self._request.split
        feeds = {name: self._pools.get(name, self._pools["validation"]) for name in SPLIT_NAMES}
        name: SplitName = split if split in self._pools else "validation"
        served = [other for other in SPLIT_NAMES if feeds[other] == feeds[split]]
        owners = [owner for owner in _OWNERS if owner in served]
        stored = self._rows(name)
        taken = self._taken(name)
        return _Quotes(
            stored,
            [
                index
                for index, group in enumerate(self._groups(name))
                if group.place not in taken and group.owned_by(owners) == split
            ],
        )

    def _rows(self, pool: str) -> Rows:
        return open_rows(self._source, pool, self._request.cache_dir, self._request.data_dirs)

    def _groups(self, pool: SplitName) -> list[_Group]:
        """The group of every row of a pool."""
        if pool not in self._groups_of:
            source, seed = self._source, self._request.seed
            names = self._rows(pool).groups(source.group_fields, source.group_name)
            self._groups_of[pool] = [_Group.of(name, seed, source.material > 0) for name in names]
        return self._groups_of[pool]

    def _taken(self, pool: SplitName) -> set[bytes]:
        """Places of the groups that go to the pools that have precedence over this one."""
        if self._one_pool:
            return set()
        return {
            group.place
            for other in _BEFORE[pool]
            if other in self._pools
            for group in self._groups(other)
        }

    def _of_another_split(self, group: _Group) -> bool:
        """Whether a group of a shared pool belongs to another split; material is no split's."""
        split = self._request.split
        if self._one_pool:
            return self._split_of(group) not in (split, None)
        halved = self._of_many_rows and "test" not in self._pools and split != "train"
        return halved and group.owned_by(("validation", "test")) != split

    def _split_of(self, group: _Group) -> SplitName | None:
        """The split to which a group belongs where all have one pool; None for material."""
        return None if group.is_material else group.owned_by(_OWNERS)

    def _held(self, split: SplitName) -> set[str]:
        """The marks of the rows that go to splits before this one."""
        marks = self._source.marks
        if marks is None:
            return set()

        def rows() -> Iterator[Row]:
            fields = self._source.group_fields
            for other in _BEFORE[split]:
                if self._one_pool:
                    every = zip(
                        self._groups("train"), self._rows("train").only(fields), strict=True
                    )
                    yield from (row for group, row in every if self._split_of(group) == other)
                elif other in self._pools:
                    yield from self._rows(other).only(fields)

        return self._marks(rows())

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


class _Quotes(Sequence[Row]):
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
            return _Quotes(self._stored, self._indices[place])
        return self._stored[self._indices[place]]


def _rows_of_validation(request: _Request) -> int:
    """How many rows from the front of the shared pool the validation split has looked at."""
    validation = load_split(
        request.task,
        request.settings,
        "validation",
        request.tokenizer,
        request.cache_dir,
        request.data_dirs,
    )
    return validation.rows_read
