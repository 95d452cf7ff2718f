"""A task's train, validation and test examples: drawn, kept apart, built once and cached.

Kept apart: a group of rows (a question, a document) feeds one split only, and so do near-copies
where a source can tell them (`Source.marks`). Generated rows, and collected ones of which there is
one pool only, belong to the split that the hash of their group names. Other collected rows come
from the split's pool; train drops every group that the other pools hold; where test has no pool of
its own, validation reads its own from the front and test from the back. Of near-copies train's are
left out, then test's. Collected rows are read in the order of a hash of data seed and group, so
that neither another size nor another row, unless it is a copy, moves the ones before. No split
depends on the size of train. A task's material (rows to quote from) is in groups of the train pool
that give no example.
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
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tasks.controls import controlled
from tasks.example import Example, Split, TaskError, Tokenizer
from tasks.sources import Generated, Row, Rows, Source, fingerprint, group_of, open_rows
from tasks.task import SPLIT_NAMES, Builder, Dropped, SplitName, TaskSettings

if TYPE_CHECKING:
    from tasks.registry import AnyTask

# Raised with every change of how rows are ordered, kept apart or stored.
_VERSION = 2

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
    for name in {"train_size", "validation_size", "test_size"} - needed:
        del settings[name]
    settings.pop("files", None)
    source = request.task.source(request.settings)
    rows = (
        fingerprint(source, request.cache_dir, request.data_dirs)
        if isinstance(source, Source)
        else "generated"
    )
    parts = {
        "rows": rows,
        "splits": _VERSION,
        "task": [request.task.name, request.task.version],
        "tokenizer": [request.tokenizer.name, request.tokenizer.vocab_size],
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _build(request: _Request) -> Split:
    source = request.task.source(request.settings)
    collected = _Collected(request, source) if isinstance(source, Source) else None
    material = collected.material() if collected else ()
    build = request.task.builder(request.settings, request.tokenizer, material)
    selection = _Selection(request.size, build, request.settings.control)
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
                f"{_counted(selection.dropped)}"
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

    size: int
    build: Builder
    control: str
    rows_read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def examples(self, rows: Iterator[Row]) -> Iterator[Example]:
        found = 0
        for row in rows:
            self.rows_read += 1
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
    stream = random.Random(f"{request.task.name}/{request.split}/{request.settings.data_seed}")
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


class _Collected:
    """The rows of a source as one split and its builder may use them."""

    def __init__(self, request: _Request, source: Source) -> None:
        self._request = request
        self._source = source
        self._pools = source.pools
        self._one_pool = len(set(self._pools.values())) == 1

    def pool(self) -> _Pool:
        """The rows that may give examples."""
        request = self._request
        # One that has none of its own shares validation's, or all have the same.
        shared = request.split not in self._pools
        name: SplitName = "validation" if shared else request.split
        if self._one_pool:
            shared, name = False, "train"
        stored = self._rows(name)
        groups = stored.groups(self._source.group_fields)
        taken = self._taken(name)
        copies = self._copies(stored, self._held(request.split if self._one_pool else name))
        left_out: Counter[str] = Counter()
        rows = groups
        if self._source.row_fields:
            rows = stored.groups((*self._source.group_fields, *self._source.row_fields))
        first_row: dict[str, int] = {}
        for index, (group, row) in enumerate(zip(groups, rows, strict=True)):
            if group in taken or self._of_another_split(group):
                left_out["rows that another split holds"] += 1
            elif name == "train" and self._is_material(group):
                left_out["rows kept as material"] += 1
            elif index in copies:
                left_out[_COPIES] += 1
            elif row in first_row:
                left_out["repeats of another row"] += 1
            else:
                first_row[row] = index
        seed = request.settings.data_seed
        ordered = sorted(
            first_row, key=lambda row: hashlib.sha256(f"{seed}\0{row}".encode()).digest()
        )
        order = [first_row[row] for row in ordered]
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
        groups = enumerate(stored.groups(self._source.group_fields))
        chosen = (i for i, group in groups if group not in taken and self._is_material(group))
        return [stored[index] for index in islice(chosen, self._source.material)]

    def _rows(self, pool: str) -> Rows:
        return open_rows(self._source, pool, self._request.cache_dir, self._request.data_dirs)

    def _taken(self, pool: SplitName) -> set[str]:
        """Groups that go to the pools that have precedence over this one."""
        if self._one_pool:
            return set()
        return {
            group
            for other in _BEFORE[pool]
            if other in self._pools
            for group in self._rows(other).groups(self._source.group_fields)
        }

    def _of_another_split(self, group: str) -> bool:
        """Whether the one pool's group belongs to another split."""
        return self._one_pool and self._owner(group) not in (self._request.split, None)

    def _owner(self, group: str) -> SplitName | None:
        """The split to which a group belongs where all have one pool; None for material."""
        if self._is_material(group):
            return None
        return _OWNERS[hashlib.sha256(f"owner\0{group}".encode()).digest()[0] % len(_OWNERS)]

    def _held(self, split: SplitName) -> set[str]:
        """The marks of the rows that go to splits before this one."""
        fields = self._source.group_fields

        def rows() -> Iterator[Row]:
            for other in _BEFORE[split]:
                if self._one_pool:
                    for row in self._rows("train").only(fields):
                        if self._owner(group_of(row, fields)) == other:
                            yield row
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

    def _is_material(self, group: str) -> bool:
        if self._source.material == 0:
            return False
        digest = hashlib.sha256(f"material\0{group}".encode()).digest()
        return digest[0] % _MATERIAL_SHARE == 0


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
