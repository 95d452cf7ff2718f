"""The second pass's settings: frozen, free of torch. How they act is in `passes`."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from model.config import require


@dataclass(frozen=True)
class SecondPass:
    """Settings of the second pass; its formula is in `model.mechanisms.second_pass.passes`."""

    layer_start: int = 0
    """First layer (0-based) that begins again from its own last state; those below begin as they
    did."""
    gate: Literal["scalar", "head"] = "scalar"
    """One sigmoid per layer, or one per head."""
    alpha: float = -2.0
    """Initial logit of the gate: σ(-2) = 0.119."""
    alpha_lr: float = 0.0
    """Learning rate of the gates; 0 keeps them where they start."""
    norm: bool = False
    """Scale the state to root mean square 1 per sample and head before the gate."""
    detach: bool = False
    """Stop the gradient from the second pass into the first."""

    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        require(self.layer_start >= 0, "layer_start >= 0", self.layer_start)
        require(math.isfinite(self.alpha), "alpha is finite", self.alpha)
        require(0.0 <= self.alpha_lr < math.inf, "0 <= alpha_lr < inf", self.alpha_lr)
