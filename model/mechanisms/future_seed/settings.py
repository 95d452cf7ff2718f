"""Future-Seed's settings: frozen, free of torch. How they act is in `gates`."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from model.config import require


@dataclass(frozen=True)
class Schedule:
    """How the seed's strength varies over depth.

    From p = 0 at `layer_start` to p = 1 at the last layer; linear: min + (max - min)·p;
    cosine: min + (max - min)·(1 - cos πp)/2; none: 1 at every layer.
    """

    kind: Literal["none", "linear", "cosine"] = "none"
    min: float = 1.0
    max: float = 1.0

    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        require(0.0 <= self.min <= self.max, "0 <= min <= max", f"min={self.min}, max={self.max}")

    def strength(self, position: float) -> float:
        """Multiplier at relative depth `position` in [0, 1]."""
        if self.kind == "none":
            return 1.0
        ramp = position if self.kind == "linear" else 0.5 - 0.5 * math.cos(math.pi * position)
        return self.min + (self.max - self.min) * ramp


@dataclass(frozen=True)
class FutureSeed:
    """Settings of the mechanism; its formulae are in `model.future_seed`."""

    layer_start: int = 1
    """First layer (0-based) that is seeded; layer 0 has none below it and is never seeded."""
    gate: Literal["scalar", "head", "input"] = "scalar"
    """One sigmoid per layer, one per head (not a product of two), or one driven by the input."""
    alpha: float = -2.0
    """Initial logit of the gate: σ(-2) = 0.119."""
    alpha_lr: float = 0.0
    """Learning rate of the gates; 0 keeps them where they start."""
    schedule: Schedule = field(default_factory=Schedule)
    """Strength over depth."""
    norm: bool = False
    """Scale the state to root mean square 1 per sample and head before the gate."""
    clip: float = 0.0
    """Bound on every entry of the seed; 0 is none."""
    detach: bool = False
    """Stop the gradient from the seed into the layer below."""
    seed_scale: float = 1.0
    """Plain multiplier of the gate."""

    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        require(self.layer_start >= 1, "layer_start >= 1", self.layer_start)
        require(math.isfinite(self.alpha), "alpha is finite", self.alpha)
        require(0.0 <= self.alpha_lr < math.inf, "0 <= alpha_lr < inf", self.alpha_lr)
        require(0.0 <= self.clip < math.inf, "0 <= clip < inf", self.clip)
        require(0.0 <= self.seed_scale < math.inf, "0 <= seed_scale < inf", self.seed_scale)

    def strength(self, layer: int, num_layers: int) -> float:
        """Constant part of the gate at `layer`: seed_scale · schedule; 0 where it is not seeded."""
        if layer < self.layer_start:
            return 0.0
        span = num_layers - 1 - self.layer_start
        position = (layer - self.layer_start) / span if span > 0 else 0.0
        return self.seed_scale * self.schedule.strength(position)
