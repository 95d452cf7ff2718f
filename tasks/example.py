"""Examples and splits: what every task hands to the trainer.

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

_FORMAT = 2
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
class Example:
    """A prompt and what is wanted after it, inside it, or both."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()
    """Tokens after the prompt; empty where all targets are inside the prompt."""
    target_positions: tuple[int, ...] = ()
    """Prompt positions whose own hidden state must predict a token (not shifted), ascending."""
    target_tokens: tuple[int, ...] = ()
    """The tokens wanted at `target_positions`."""
    choices: tuple[tuple[int, ...], ...] = ()
    """Answers whose likelihoods are compared, the right one among them; empty for none."""
    reference: str = ""
    """What the task's scorer needs to know beside the tokens, in the task's own format."""

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
        if not all(self.choices):
            raise ValueError(f"a choice has at least one token, got {self.choices}")
        if self.choices and self.answer not in self.choices:
            raise ValueError(f"the answer {self.answer} is one of the choices, got {self.choices}")


Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

_COLUMNS = (
    "prompt_tokens",
    "prompt_offsets",
    "answer_tokens",
    "answer_offsets",
    "target_positions",
    "target_tokens",
    "target_offsets",
    "choice_tokens",
    "choice_ends",
    "choice_offsets",
    "reference_bytes",
    "reference_offsets",
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
    choice_tokens: Int32Array
    choice_ends: Int64Array
    """Where each choice ends in `choice_tokens`; example i has those from choice_offsets[i] on."""
    choice_offsets: Int64Array
    reference_bytes: UInt8Array
    """UTF-8."""
    reference_offsets: Int64Array
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows that were left out while it was built, by reason; not part of the digest."""
    rows_read: int = 0
    """Rows that were looked at while it was built, dropped ones included."""

    @classmethod
    def from_examples(cls, examples: Iterable[Example]) -> "Split":
        """Stores examples in their order; reads the iterable once, at 4 bytes a token."""
        prompts, answers, positions, targets, choices = (array("i") for _ in range(5))
        prompt_ends, answer_ends, target_ends, choice_offsets, reference_ends = (
            array("q", [0]) for _ in range(5)
        )
        choice_ends, references = array("q"), bytearray()
        for example in examples:
            prompts.extend(example.prompt)
            answers.extend(example.answer)
            positions.extend(example.target_positions)
            targets.extend(example.target_tokens)
            prompt_ends.append(len(prompts))
            answer_ends.append(len(answers))
            target_ends.append(len(targets))
            for choice in example.choices:
                choices.extend(choice)
                choice_ends.append(len(choices))
            choice_offsets.append(len(choice_ends))
            references += example.reference.encode()
            reference_ends.append(len(references))
        return cls(
            prompt_tokens=np.array(prompts, dtype=np.int32),
            prompt_offsets=np.array(prompt_ends, dtype=np.int64),
            answer_tokens=np.array(answers, dtype=np.int32),
            answer_offsets=np.array(answer_ends, dtype=np.int64),
            target_positions=np.array(positions, dtype=np.int32),
            target_tokens=np.array(targets, dtype=np.int32),
            target_offsets=np.array(target_ends, dtype=np.int64),
            choice_tokens=np.array(choices, dtype=np.int32),
            choice_ends=np.array(choice_ends, dtype=np.int64),
            choice_offsets=np.array(choice_offsets, dtype=np.int64),
            reference_bytes=np.frombuffer(bytes(references), dtype=np.uint8),
            reference_offsets=np.array(reference_ends, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.prompt_offsets) - 1

    def example(self, index: int) -> Example:
        """The example at `index`, 0 <= index < len(self)."""
        if not 0 <= index < len(self):
            raise IndexError(f"0 <= index < {len(self)} must hold, got {index}")

        def cut(values: Int32Array | UInt8Array, offsets: Int64Array) -> tuple[int, ...]:
            return tuple(values[offsets[index] : offsets[index + 1]].tolist())

        return Example(
            prompt=cut(self.prompt_tokens, self.prompt_offsets),
            answer=cut(self.answer_tokens, self.answer_offsets),
            target_positions=cut(self.target_positions, self.target_offsets),
            target_tokens=cut(self.target_tokens, self.target_offsets),
            choices=self._choices(index),
            reference=bytes(cut(self.reference_bytes, self.reference_offsets)).decode(),
        )

    def _choices(self, index: int) -> tuple[tuple[int, ...], ...]:
        first, last = self.choice_offsets[index : index + 2]
        if first == last:
            return ()
        begin = self.choice_ends[first - 1] if first else 0
        bounds = (begin, *self.choice_ends[first:last])
        return tuple(tuple(self.choice_tokens[low:high].tolist()) for low, high in pairwise(bounds))

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
