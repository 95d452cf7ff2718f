"""What an optimiser declares: its settings, what it keeps in memory, and how it is made.

A spec names it in `train.optimizer`; its own settings are the section `train.<name>`. What all of
them share (`train.lr`, `betas`, `weight_decay`) is AdamW's, which trains whatever an optimiser
leaves to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    import torch

    from model.rwkv7 import RWKV7

S = TypeVar("S")
"""The optimiser's own settings; None where it has none."""

AnyOptimizer: TypeAlias = "Optimizer[Any]"


@dataclass(frozen=True)
class Shared:
    """What every optimiser is given: `train.lr`, `train.betas` and `train.weight_decay`."""

    lr: float
    betas: tuple[float, float]
    weight_decay: float


class Optimizer(ABC, Generic[S]):
    """An optimiser by name."""

    name: ClassVar[str]
    Settings: ClassVar[type | None] = None
    """A frozen dataclass with a default for every field, the section `train.<name>`; or none."""

    @abstractmethod
    def build(
        self, model: "RWKV7", shared: Shared, settings: S
    ) -> "Sequence[torch.optim.Optimizer]":
        """Torch's optimisers that together train all of the model, always in the same order.

        Their `state_dict` holds all that they go on from.
        """

    @abstractmethod
    def state_bytes(self, name: str, shape: Sequence[int]) -> int:
        """What it keeps of a parameter beside weight and gradient, in bytes an entry.

        Args:
            name: of the parameter in the model.
            shape: its shape.
        """


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a parameter is a matrix; r_k is a vector per head that is stored as [H, D]."""
    return len(shape) == 2 and not name.endswith("r_k")
