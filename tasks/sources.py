"""Where a task's rows come from: the Hugging Face hub, local JSONL files, or a seeded stream.

Hub and files read alike: one row is a mapping from the task's own field names. Rows lie in Arrow
files under the cache folder and are read by index, so that memory does not grow with the data.
What cannot be had is refused with one line that says what to do; nothing half-read stays behind.
"""

import hashlib
import json
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from tasks.example import TaskError
from tasks.progress import BuildProgress

Row: TypeAlias = Mapping[str, Any]

# A field's shape in plain words: "text", "integer", "number", [shape] for a list, {name: shape} for
# a record.
Shape: TypeAlias = "str | list[Shape] | dict[str, Shape]"

_ARROW_TYPES = {"text": "string", "integer": "int64", "number": "float64"}
# JSON writes a number without a fraction as an integer.
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (float, int),
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Rows whose fields are read at once, where all rows are gone through.
_CHUNK = 256
# Raised with every change of how a line becomes a row.
_READER = 1


@dataclass(frozen=True)
class Files:
    """Local JSONL files that stand in for the hub: one row a line, its field names.

    One file may stand for all splits: each group of rows then feeds one of them only.
    """

    train: str
    validation: str
    test: str = ""
    """Without it, test rows are those of `validation` that the validation split does not use."""

    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }


@dataclass(frozen=True)
class Source:
    """Rows that somebody collected."""

    fields: Mapping[str, Shape]
    """The fields that the task reads; others are ignored."""
    group_fields: tuple[str, ...]
    """Text fields; rows that agree in these never fall into two splits."""
    hub: str
    """Id of the data set on the hub."""
    config: str
    revision: str = ""
    """Commit or tag of the data set; empty for its newest."""
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    """Which of the hub's splits feeds train, validation and, where it has answers, test; where it
    is the same one for all, each group of rows is given to one of them."""
    files: Files | None = None
    """Read instead of the hub."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The data's column for a field, where the two are called differently."""
    group_name: Callable[[Row], str] | None = None
    """What a row's group is called, from its group fields alone, where more rows belong together
    than agree in these: rows of the same name never fall into two splits."""
    row_fields: tuple[str, ...] = ()
    """Text fields; of rows that agree in these only the first is read. Empty for `group_fields`:
    then a group is one row."""
    marks: Callable[[Row], Set[str]] | None = None
    """What near-copies of a row share with it, from its group fields. Rows with a mark in common
    never fall into two splits: train's is left out before test's, test's before validation's."""
    material: int = 0
    """At most so many rows may be quoted (notes, distractors). They come from the train pool
    and are in groups of their own, of which no split has an example."""

    @property
    def pools(self) -> Mapping[str, str]:
        """File, or split of the hub, that feeds each split; test only where it has its own."""
        if self.files is None:
            return self.hub_splits
        pools = {"train": self.files.train, "validation": self.files.validation}
        return pools | ({"test": self.files.test} if self.files.test else {})


@dataclass(frozen=True)
class Generated:
    """Rows drawn without end from a seeded stream."""

    draw: Callable[[random.Random], Row]
    group_fields: tuple[str, ...]
    """Rows that agree in these never fall into two splits."""
    finish: Callable[[Row], Row | None] | None = None
    """What is left to do with a row once it is a split's: the costly part; None if it cannot be."""
    example_fields: tuple[str, ...] = ()
    """Finished rows that agree in these are the same example; empty for those of the group."""
    quotes: Source | None = None
    """Rows that builders may quote; each split quotes groups of its own."""


def find_file(path: str, data_dirs: Sequence[Path]) -> Path:
    """The file at `path`: as it is where absolute, else in the first of `data_dirs` that has it.

    Raises:
        TaskError: there is none; lists where it was looked for.
    """
    looked = [Path(path)] if Path(path).is_absolute() else [base / path for base in data_dirs]
    for candidate in looked:
        if candidate.is_file():
            return candidate.resolve()
    places = ", ".join(map(str, looked)) or "no folder: give one with --data"
    raise TaskError(f"data file {path} not found; looked for {places}")


def fingerprint(source: Source, cache_dir: Path, data_dirs: Sequence[Path]) -> str:
    """Hash of what the rows are: file contents, or the hub's commit."""
    if source.files is not None:
        parts = [
            f"{pool} {_content_hash(find_file(path, data_dirs))}"
            for pool, path in source.pools.items()
        ]
    elif _COMMIT.fullmatch(source.revision):
        parts = [source.hub, source.config, source.revision]
    else:
        parts = [open_rows(source, pool, cache_dir, data_dirs).fingerprint for pool in source.pools]
    parts.append(f"reader {_READER}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Rows:
    """Rows of one pool, by index, under the task's field names."""

    def __init__(self, dataset: Any, check: Callable[[int, Row], None] | None = None) -> None:
        """Of a data set that has these fields only.

        Args:
            dataset: of the package `datasets`.
            check: refuses a row or some fields of it, by index; None where all have been checked.
        """
        self._dataset = dataset
        self._check = check

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Row:
        row: Row = self._dataset[index]
        if self._check is not None:
            self._check(index, row)
        return row

    @property
    def fingerprint(self) -> str:
        """Changes with the rows."""
        return str(self._dataset._fingerprint)

    def only(self, fields: Sequence[str]) -> Iterator[Row]:
        """Every row with these fields alone, which is quicker, in row order."""
        selected = self._dataset.select_columns(list(fields))
        progress = BuildProgress()
        for first in range(0, len(selected), _CHUNK):
            progress.tell(f"{', '.join(fields)} of {first} of {len(selected)} rows looked at")
            columns = selected[first : first + _CHUNK]
            chunk = zip(*(columns[name] for name in fields), strict=True)
            for index, values in enumerate(chunk, start=first):
                row = dict(zip(fields, values, strict=True))
                if self._check is not None:
                    self._check(index, row)
                yield row

    def groups(
        self, group_fields: Sequence[str], name: Callable[[Row], str] | None = None
    ) -> Iterator[str]:
        """The group of every row, in row order: its name, or its fields without case and spacing.

        Args:
            group_fields: the fields.
            name: from these.
        """
        return (name(row) if name else _agreement(row) for row in self.only(group_fields))


def _agreement(row: Row) -> str:
    return "\0".join(" ".join(value.casefold().split()) for value in row.values())


def open_rows(source: Source, pool: str, cache_dir: Path, data_dirs: Sequence[Path]) -> Rows:
    """The rows of a pool of `source.pools`, from Arrow files under `cache_dir`.

    Raises:
        TaskError: the hub or a file cannot be read, or a field is missing or of another shape.
    """
    name = source.pools[pool]
    columns = {field: source.columns.get(field, field) for field in source.fields}
    if source.files is not None:
        return Rows(_read_file(find_file(name, data_dirs), source.fields, columns, cache_dir))
    where = f"{source.hub}{'/' + source.config if source.config else ''} split {name}"

    def check(index: int, row: Row) -> None:
        for field_name, value in row.items():
            place = f"{where}, row {index}: {columns[field_name]}"
            _check_shape(value, source.fields[field_name], place)

    return Rows(_read_hub(source, name, columns, cache_dir, where), check)


def _datasets() -> Any:
    # Imported on use: half a second, and most calls find their split in the cache.
    import datasets

    datasets.disable_progress_bars()
    return datasets


def _read_file(
    path: Path, fields: Mapping[str, Shape], columns: Mapping[str, str], cache_dir: Path
) -> Any:
    datasets = _datasets()
    wanted = json.dumps([_content_hash(path), dict(fields), dict(columns), _READER], sort_keys=True)
    try:
        return datasets.Dataset.from_generator(
            _lines,
            features=datasets.Features({name: _feature(fields[name]) for name in fields}),
            cache_dir=str(cache_dir / "rows"),
            gen_kwargs={"path": path, "fields": fields, "columns": columns},
            fingerprint=hashlib.sha256(wanted.encode()).hexdigest()[:32],
        )
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, TaskError):
            raise error.__cause__ from None
        raise TaskError(f"{path}: {_first_line(error.__cause__ or error)}") from error


def _lines(path: Path, fields: Mapping[str, Shape], columns: Mapping[str, str]) -> Iterator[Row]:
    """Rows of a JSONL file under the task's field names; blank lines are skipped."""
    empty = True
    progress = BuildProgress()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            progress.tell(f"{path}: {number} lines read")
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line.decode())
            except UnicodeDecodeError as error:
                raise TaskError(f"{where}: not UTF-8: {error.reason}") from error
            except json.JSONDecodeError as error:
                what = f"{error.msg} at column {error.colno}"
                raise TaskError(f"{where}: not a line of JSON: {what}") from error
            except RecursionError as error:
                raise TaskError(f"{where}: too deeply nested") from error
            if not isinstance(values, dict):
                raise TaskError(f"{where}: a row is a JSON object, got {_short(values)}")
            _check_columns(columns, list(values), where)
            row = {name: values[column] for name, column in columns.items()}
            for name, value in row.items():
                _check_shape(value, fields[name], f"{where}: {columns[name]}")
            empty = False
            yield row
    if empty:
        raise TaskError(f"{path}: no rows; a row is one JSON object in one line")


def _read_hub(
    source: Source, split: str, columns: Mapping[str, str], cache_dir: Path, where: str
) -> Any:
    dataset = _load_hub(source.hub, source.config, source.revision, split, cache_dir)
    _check_columns(columns, dataset.column_names, where)
    dataset = dataset.select_columns(list(columns.values()))
    renamed = {column: name for name, column in columns.items() if column != name}
    if renamed:
        dataset = dataset.rename_columns(renamed)
    if len(dataset) == 0:
        raise TaskError(f"{where}: no rows")
    return dataset


@lru_cache(maxsize=16)
def _load_hub(hub: str, config: str, revision: str, split: str, cache_dir: Path) -> Any:
    datasets = _datasets()
    # It warns of every attempt to reach the hub; what came of them is told below.
    warning = logging.getLogger("huggingface_hub")
    level = warning.level
    warning.setLevel(logging.ERROR)
    try:
        return datasets.load_dataset(
            hub,
            config or None,
            split=split,
            revision=revision or None,
            cache_dir=str(cache_dir / "rows"),
        )
    # RuntimeError: a data set that is a script.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        advice = "give local JSONL with `files:`"
        if any(word in str(error) for word in ("gated", "private", "cannot be accessed")):
            advice = (
                f"log in with `hf auth login` and, where it is gated, accept its terms, or {advice}"
            )
        raise TaskError(
            f"data set {hub} cannot be read from the hub ({_first_line(error)}): {advice}"
        ) from error
    finally:
        warning.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_columns(columns: Mapping[str, str], present: Sequence[str], where: str) -> None:
    missing = [column for column in columns.values() if column not in present]
    if missing:
        raise TaskError(
            f"{where}: no column {', '.join(missing)}; there are {', '.join(present)}: "
            "name the right ones with `columns:`"
        )


def _check_shape(value: object, shape: Shape, where: str) -> None:
    if isinstance(shape, str):
        wanted = _PYTHON_TYPES[shape]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TaskError(f"{where}: {shape} is wanted, got {_short(value)}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise TaskError(f"{where}: a list is wanted, got {_short(value)}")
        for item in value:
            _check_shape(item, shape[0], where)
    else:
        if not isinstance(value, dict):
            raise TaskError(f"{where}: an object is wanted, got {_short(value)}")
        for name, inner in shape.items():
            if name not in value:
                raise TaskError(f"{where}: no field {name}; there are {', '.join(value)}")
            _check_shape(value[name], inner, f"{where}.{name}")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _feature(shape: Shape) -> Any:
    datasets = _datasets()
    if isinstance(shape, str):
        return datasets.Value(_ARROW_TYPES[shape])
    if isinstance(shape, list):
        return datasets.List(_feature(shape[0]))
    return {name: _feature(inner) for name, inner in shape.items()}


def _content_hash(path: Path) -> str:
    try:
        status = path.stat()
        return _hash_file(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=64)
def _hash_file(path: Path, size: int, changed_ns: int) -> str:
    """SHA-256 of a file; size and time of change are there to notice that it became another."""
    del size, changed_ns
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
