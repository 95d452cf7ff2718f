"""Muon for the matrices inside the layers, torch's; AdamW for all else.

Momentum whose every update is made orthogonal by a few Newton-Schulz iterations (Jordan et al.,
"Muon: An optimizer for hidden layers in neural networks", 2024). Embedding, head, vectors and r_k
are no matrices between hidden layers, and stay AdamW's, at `train.lr`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from model.config import require
from model.optimizers.adamw import adamw
from model.optimizers.optimizer import Optimizer, Shared, is_matrix

if TYPE_CHECKING:
    import torch

    from model.rwkv7 import RWKV7


@dataclass(frozen=True)
class MuonSettings:
    """Muon's own settings; weight decay is `train.weight_decay`."""

    lr: float = 0.02
    """Learning rate of the matrices inside the layers; all else has `train.lr`."""
    momentum: float = 0.95
    """Decay rate of the gradient's running mean."""
    nesterov: bool = True
    """Look ahead along the momentum."""
    steps: int = 5
    """Newton-Schulz iterations."""
    scale: Literal["original", "match_rms_adamw"] = "original"
    """How a matrix's shape enters its rate: original, √max(1, rows/columns); match_rms_adamw,
    0.2·√max(rows, columns), so that AdamW's rates carry over (arXiv 2502.16982)."""

    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        require(0.0 < self.lr < math.inf, "0 < lr < inf", self.lr)
        require(0.0 <= self.momentum < 1.0, "0 <= momentum < 1", self.momentum)
        require(1 <= self.steps < 100, "1 <= steps < 100", self.steps)  # torch's own bound


class Muon(Optimizer[MuonSettings]):
    name = "muon"
    Settings = MuonSettings

    def build(
        self, model: "RWKV7", shared: Shared, settings: MuonSettings
    ) -> "Sequence[torch.optim.Optimizer]":
        import torch

        named = list(model.named_parameters())
        hidden = [parameter for name, parameter in named if _is_hidden(name, parameter.shape)]
        rest = [(name, each) for name, each in named if not _is_hidden(name, each.shape)]
        muon = torch.optim.Muon(
            hidden,
            settings.lr,
            shared.weight_decay,
            settings.momentum,
            settings.nesterov,
            ns_steps=settings.steps,
            adjust_lr_fn=settings.scale,
        )
        return [muon, adamw(rest, shared)]

    def state_bytes(self, name: str, shape: Sequence[int]) -> int:
        """One moment in float32 of a matrix inside the layers; AdamW's two of all else."""
        return 4 if _is_hidden(name, shape) else 8


def _is_hidden(name: str, shape: Sequence[int]) -> bool:
    return name.startswith("blocks.") and is_matrix(name, shape)
