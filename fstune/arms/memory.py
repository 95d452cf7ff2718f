"""How much memory a training step takes, and an arm's checkpoint on disk, told from shapes alone.

    step(B) = bytes of parameters + B · (a + b · tokens + logits)

A parameter has a weight and a gradient in float32 and what its optimiser keeps of it (AdamW: two
moments, 16 bytes in all), and a mean where that is evaluated; the weight alone where only
mechanisms' parameters are trained. a and b
are measured: what one row more has alive at the most, going forward and backward at two lengths, on
a CPU. Nothing here sees what an allocator wastes: a margin is added for that of a GPU; on a CPU,
measure (`search.probe`).
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fstune.specs.settings import ArmSettings
from model.config import ModelConfig
from model.initial import initialise
from model.mechanisms import registry
from model.mechanisms.acting import Acting
from model.optimizers import registry as optimizers
from model.rwkv7 import RWKV7

BYTES_PER_PARAMETER = 4


BYTES_OF_GRADIENT = 4


MOMENTS_BYTES = 8
"""What AdamW keeps of a mechanism's parameter."""


BYTES_OF_A_MEAN = 4
"""Of a trained parameter, where the mean of the weights is evaluated."""


LENGTHS = (128, 256)
"""Tokens of the rows that are measured."""


SMALL_VOCABULARY = 256
"""Of the model that is measured: the gradient of a large embedding would outweigh short rows."""


ROWS = (1, 3)
"""Batches that are measured: what they have in common is no row's."""


LOGIT_BYTES = 12
"""Of a scored token and vocabulary entry: logits in float32, their softmax, their gradient."""


MEMORY_MARGIN = 1.1
"""What an allocator that works in blocks cannot use."""


@dataclass(frozen=True)
class StepMemory:
    """Terms of the model, in bytes."""

    fixed: float
    per_row: float
    """For one row of the asked length, its logits included."""

    def of(self, batch_size: int) -> float:
        """Bytes of a step."""
        return MEMORY_MARGIN * (self.fixed + batch_size * self.per_row)

    def largest_batch(self, memory_gb: float) -> int:
        """The most rows whose step fits into so many GB (10⁹ bytes)."""
        return max(0, int((memory_gb * 1e9 / MEMORY_MARGIN - self.fixed) // self.per_row))


@dataclass(frozen=True)
class Step:
    """A training step, as far as its memory goes."""

    config: ModelConfig
    mechanisms: Mapping[str, Any]
    """The settings of each by name."""
    bf16: bool
    """Whether the forward pass runs under bf16 autocast."""
    checkpoint_layers: bool
    """Whether layers' inner values are computed again."""
    optimizer: str | None = "adamw"
    """Of the model; None where only mechanisms' parameters are trained."""
    mean: bool = False
    """Whether the mean of the weights is kept beside them."""

    @classmethod
    def of(cls, config: ModelConfig, settings: ArmSettings, checkpoint_layers: bool) -> Self:
        """The step of an arm with a model of these shapes."""
        train = settings.train
        return cls(
            config,
            settings.mechanisms,
            settings.model.precision == "bf16",
            checkpoint_layers,
            train.optimizer if train.parameters == "all" else None,
            settings.evaluation.weights == "mean",
        )


def checkpoint_bytes(step: Step) -> int:
    """Bytes on disk of what an arm goes on from: parameters and what is kept of each."""
    model = _without_values(step)
    total = BYTES_PER_PARAMETER * sum(each.numel() for each in model.parameters())
    mean = BYTES_OF_A_MEAN if step.mean else 0
    if step.optimizer is not None:
        kind = optimizers.get(step.optimizer)
        for name, parameter in model.named_parameters():
            total += (kind.state_bytes(name, parameter.shape) + mean) * parameter.numel()
    return total + (BYTES_PER_PARAMETER + MOMENTS_BYTES + mean) * _of_mechanisms(step, model)


def step_memory(step: Step, tokens: int, scored: int) -> StepMemory:
    """Memory of a step whose rows have `tokens` tokens, `scored` of them with a loss."""
    small = min(step.config.vocab_size, SMALL_VOCABULARY)
    model = initialise(replace(step.config, vocab_size=small), 0)
    model.checkpoint_layers = step.checkpoint_layers
    short, long = (_most_alive(model, step, length) for length in LENGTHS)
    slope = (long - short) / (LENGTHS[1] - LENGTHS[0])
    row = short + slope * (tokens - LENGTHS[0])
    logits = LOGIT_BYTES * scored * step.config.vocab_size
    return StepMemory(_fixed_bytes(step), row + logits)


def _fixed_bytes(step: Step) -> int:
    """Parameters, their gradients and what optimisers keep of them."""
    model = _without_values(step)
    trained = sum(each.numel() for each in model.parameters() if step.optimizer is not None)
    return checkpoint_bytes(step) + BYTES_OF_GRADIENT * (trained + _of_mechanisms(step, model))


def _without_values(step: Step) -> RWKV7:
    """The model as shapes alone: nothing of it is in memory."""
    with torch.device("meta"):
        return RWKV7(step.config)


def _of_mechanisms(step: Step, model: RWKV7) -> int:
    """Parameters of the mechanisms."""
    return sum(each.numel() for acting in _acting(step, model) for each in acting.parameters())


def _acting(step: Step, model: RWKV7) -> list[Acting]:
    return [
        registry.get(name).build(model.config, settings)
        for name, settings in step.mechanisms.items()
    ]


def _most_alive(model: RWKV7, step: Step, length: int) -> float:
    """Bytes that one row more has alive at the most, going forward and backward."""
    fewer, more = (_alive_with(model, step, rows, length) for rows in ROWS)
    return (more - fewer) / (ROWS[1] - ROWS[0])


def _alive_with(model: RWKV7, step: Step, rows: int, length: int) -> int:
    acting = _acting(step, model)
    model.attach(acting)
    model.requires_grad_(step.optimizer is not None)
    for parameter in model.parameters():
        # Made beforehand, they are not counted.
        parameter.grad = torch.zeros_like(parameter)
    with _Alive() as alive, torch.autocast("cpu", torch.bfloat16, enabled=step.bf16):
        tokens_BT = torch.zeros(rows, length, dtype=torch.int64)
        x_BTC, _ = model.hidden(tokens_BT, acting=acting)
        if x_BTC.requires_grad:
            x_BTC.float().mean().backward()  # type: ignore[no-untyped-call]
    most: int = alive.most
    return most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)
