"""Examples, splits and metrics: what every task hands to the trainer.

Tokens only: an example is a prompt with an answer after it, with targets inside it, or with both.
A split holds its examples as a few flat arrays, so that it can be mapped from disk and hashed.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_FORMAT = 1
_MANIFEST = "manifest.json"


class TaskError(ValueError):
    """Data that does not suffice or cannot be had: one line that says what to do."""


class Tokenizer(Protocol):
    """What a task needs of a tokenizer."""

    @property
    def name(self) -> str:
        """Names the vocabulary; part of a cached split's key."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, tokens: Sequence[int], /) -> str: ...


@dataclass(frozen=True)
class Metric:
    """A score of one example."""

    name: str
    higher_is_better: bool
    summary: str


TOKEN_ACCURACY = Metric("token_accuracy", True, "share of target tokens that are the argmax")
NLL = Metric("nll", False, "negative log-likelihood per target token, in nats")
EXACT_MATCH = Metric("exact_match", True, "1 where every target token is the argmax, else 0")


def metric_values(
    name: str, nll_sum: npt.ArrayLike, correct: npt.ArrayLike, total: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Values of a metric, one per example.

    Args:
        name: token_accuracy = correct/total, nll = nll_sum/total, exact_match = [correct == total].
        nll_sum: negative log-likelihood summed over the example's targets, in nats.
        correct: targets that are the argmax.
        total: targets of the example, at least 1.
    """
    nll_E, correct_E, total_E = (
        np.asarray(values, dtype=np.float64) for values in (nll_sum, correct, total)
    )
    if (total_E < 1).any():
        raise ValueError(f"total >= 1 must hold, got {total_E.min():g}")
    if name == TOKEN_ACCURACY.name:
        return np.divide(correct_E, total_E)
    if name == NLL.name:
        return np.divide(nll_E, total_E)
    if name == EXACT_MATCH.name:
        return np.equal(correct_E, total_E).astype(np.float64)
    known = ", ".join(metric.name for metric in (TOKEN_ACCURACY, NLL, EXACT_MATCH))
    raise ValueError(f"a metric is one of {known}, got {name!r}")


@dataclass(frozen=True)
class Example:
    """A prompt and what is wanted after it, inside it, or both."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()
    """Tokens after the prompt; empty where all targets are inside the prompt."""
    target_positions: tuple[int, ...] = ()
    """Prompt positions whose own hidden state must predict a token (not shifted), ascending."""
    target_tokens: tuple[int, ...] = ()
    """The tokens wanted at `target_positions`."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a prompt has at least one token, got none")
        if not self.answer and not self.target_positions:
            raise ValueError("an example has an answer or targets in its prompt, got neither")
        if len(self.target_positions) != len(self.target_tokens):
            raise ValueError(
                "target_positions and target_tokens are equally long, got "
                f"{len(self.target_positions)} and {len(self.target_tokens)}"
            )
        bounds = (-1, *self.target_positions, len(self.prompt))
        if any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(
                f"target_positions ascend within 0..{len(self.prompt) - 1}, "
                f"got {self.target_positions}"
            )


Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

_COLUMNS = (
    "prompt_tokens",
    "prompt_offsets",
    "answer_tokens",
    "answer_offsets",
    "target_positions",
    "target_tokens",
    "target_offsets",
)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples as flat arrays: example i holds tokens[offsets[i]:offsets[i + 1]] of each column."""

    prompt_tokens: Int32Array
    prompt_offsets: Int64Array
    answer_tokens: Int32Array
    answer_offsets: Int64Array
    target_positions: Int32Array
    target_tokens: Int32Array
    target_offsets: Int64Array
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows that were left out while it was built, by reason; not part of the digest."""
    rows_read: int = 0
    """Rows that were looked at while it was built, dropped ones included."""

    @classmethod
    def from_examples(cls, examples: Iterable[Example]) -> "Split":
        """Stores examples in their order; reads the iterable once, at 4 bytes a token."""
        prompts, answers, positions, targets = (array("i") for _ in range(4))
        prompt_ends, answer_ends, target_ends = (array("q", [0]) for _ in range(3))
        for example in examples:
            prompts.extend(example.prompt)
            answers.extend(example.answer)
            positions.extend(example.target_positions)
            targets.extend(example.target_tokens)
            prompt_ends.append(len(prompts))
            answer_ends.append(len(answers))
            target_ends.append(len(targets))
        return cls(
            prompt_tokens=np.array(prompts, dtype=np.int32),
            prompt_offsets=np.array(prompt_ends, dtype=np.int64),
            answer_tokens=np.array(answers, dtype=np.int32),
            answer_offsets=np.array(answer_ends, dtype=np.int64),
            target_positions=np.array(positions, dtype=np.int32),
            target_tokens=np.array(targets, dtype=np.int32),
            target_offsets=np.array(target_ends, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.prompt_offsets) - 1

    def example(self, index: int) -> Example:
        """The example at `index`, 0 <= index < len(self)."""
        if not 0 <= index < len(self):
            raise IndexError(f"0 <= index < {len(self)} must hold, got {index}")

        def cut(values: Int32Array, offsets: Int64Array) -> tuple[int, ...]:
            return tuple(values[offsets[index] : offsets[index + 1]].tolist())

        return Example(
            prompt=cut(self.prompt_tokens, self.prompt_offsets),
            answer=cut(self.answer_tokens, self.answer_offsets),
            target_positions=cut(self.target_positions, self.target_offsets),
            target_tokens=cut(self.target_tokens, self.target_offsets),
        )

    @property
    def prompt_lengths(self) -> Int64Array:
        """Tokens of each prompt."""
        return np.diff(self.prompt_offsets)

    @property
    def target_counts(self) -> Int64Array:
        """Scored tokens of each example: its answer's and those inside its prompt."""
        return np.diff(self.answer_offsets) + np.diff(self.target_offsets)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, types, lengths and bytes of all columns."""
        digest = hashlib.sha256()
        for name in _COLUMNS:
            values = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {values.dtype.str} {len(values)};".encode())
            digest.update(values.data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes one .npy per column, then the manifest, which makes the folder valid."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)
        for name in _COLUMNS:
            with (folder / f"{name}.npy").open("wb") as file:
                np.save(file, getattr(self, name))
                file.flush()
                os.fsync(file.fileno())
        manifest = {
            "format": _FORMAT,
            "digest": self.digest,
            "examples": len(self),
            "dropped": dict(self.dropped),
            "rows_read": self.rows_read,
        }
        with (folder / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, folder: Path) -> "Split":
        """Maps a saved split and checks it against its manifest.

        Raises:
            FileNotFoundError: there is no manifest, so nothing was ever completed here.
            TaskError: what is there is not what was saved.
        """
        text = (folder / _MANIFEST).read_text(encoding="utf-8")
        try:
            manifest: dict[str, Any] = json.loads(text)
            if manifest["format"] != _FORMAT:
                raise ValueError(f"format {_FORMAT} is wanted, got {manifest['format']}")
            columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS}
            split = cls(**columns, dropped=manifest["dropped"], rows_read=manifest["rows_read"])
            if split.digest != manifest["digest"]:
                raise ValueError("its bytes differ from the digest in its manifest")
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise TaskError(f"{folder}: a damaged split, delete the folder: {error}") from error
        return split
