"""A task's train, validation and test examples: drawn, kept apart, built once and cached.

How collected rows are kept apart is in `tasks.pools`; generated ones belong to the split that the
hash of their group names. No split depends on the size of train, and no other split on its sample.
A task's material comes from groups that give no example; rows that generated examples quote
(`Generated.quotes`) are of the split's own groups.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from tasks.controls import controlled
from tasks.example import Example, Split, TaskError, Tokenizer
from tasks.pools import OWNERS, Reader, pool_of
from tasks.progress import BuildProgress
from tasks.sources import Generated, Row, Rows, Source, fingerprint, open_rows
from tasks.task import SPLIT_NAMES, Builder, Dropped, Material, SplitName, TaskSettings

if TYPE_CHECKING:
    from tasks.registry import AnyTask

# Raised with every change of how rows are ordered, kept apart or stored.
_VERSION = 3

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
    collected = None if rows_of is None else pool_of(rows_of, _reader(request, rows_of))
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
        progress = BuildProgress()
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
        if OWNERS[_hash(drawn, source.group_fields)[0] % len(OWNERS)] != request.split:
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


def _reader(request: _Request, source: Source) -> Reader:
    """What a request is to the pools of its rows."""

    def open_pool(split: SplitName) -> Rows:
        return open_rows(source, split, request.cache_dir, request.data_dirs)

    def read_by_validation() -> int:
        places = (request.cache_dir, request.data_dirs)
        return load_split(
            request.task, request.settings, "validation", request.tokenizer, *places
        ).rows_read

    return Reader(request.split, request.seed, open_pool, read_by_validation)
