"""The learned state's settings: frozen, free of torch. How they act is in `states`."""

import math
from dataclasses import dataclass
from typing import ClassVar

from model.config import require


@dataclass(frozen=True)
class LearnedState:
    """Settings of the learned state; its formula is in `model.mechanisms.learned_state.states`."""

    layer_start: int = 0
    """First layer (0-based) that has one."""
    lr: float = 1e-2
    """Learning rate of the states; they start at 0, so that 0 would be no mechanism."""

    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        require(self.layer_start >= 0, "layer_start >= 0", self.layer_start)
        require(0.0 <= self.lr < math.inf, "0 <= lr < inf", self.lr)
