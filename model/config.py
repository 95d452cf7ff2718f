"""Settings of the model and of Future-Seed: frozen values, free of torch.

The shapes of a model (`ModelConfig`) and the mechanism's settings (`FutureSeed`, `Schedule`). How
they act is in `model.rwkv7` and `model.future_seed`.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{rule} must hold, got {got}")


@dataclass(frozen=True)
class ModelConfig:
    """Shapes of an RWKV-7 ("x070") model; all can be read from a checkpoint's tensors."""

    num_layers: int
    width: int
    """C, channels of the residual stream; num_heads · head_size."""
    vocab_size: int
    head_size: int = 64
    """D, channels per head; the WKV state of a head is D × D."""
    ffn_width: int = 0
    """Channels inside the channel mix; 0 stands for 4 · width."""
    decay_rank: int = 0
    """Rank of w1·w2; 0 stands for the reference formula (see `default_rank`)."""
    in_context_rate_rank: int = 0
    """Rank of a1·a2; 0 stands for the reference formula."""
    value_mix_rank: int = 0
    """Rank of v1·v2; 0 stands for the reference formula."""
    gate_rank: int = 0
    """Rank of g1·g2; 0 stands for the reference formula."""

    # Read by pydantic where a spec is checked; nothing here imports it.
    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        for name in ("num_layers", "width", "vocab_size", "head_size"):
            _require(getattr(self, name) >= 1, f"{name} >= 1", getattr(self, name))
        _require(
            self.width % self.head_size == 0,
            "width is a multiple of head_size",
            f"width={self.width}, head_size={self.head_size}",
        )
        defaults = {
            "ffn_width": 4 * self.width,
            "decay_rank": default_rank(2.5, self.width),
            "in_context_rate_rank": default_rank(2.5, self.width),
            "value_mix_rank": default_rank(1.7, self.width),
            "gate_rank": default_rank(5.0, self.width),
        }
        for name, value in defaults.items():
            _require(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
            if getattr(self, name) == 0:
                object.__setattr__(self, name, value)

    @property
    def num_heads(self) -> int:
        return self.width // self.head_size


def sigmoid(logit: float) -> float:
    """σ(logit), whatever its size; below -709, where the exponential would overflow, it is 0."""
    return 0.0 if logit < -709 else 1 / (1 + math.exp(-logit))


def default_rank(factor: float, width: int) -> int:
    """Low-rank width max(32, 32·round(factor·√C / 32)) (RWKV-LM, RWKV-v7/train_temp model.py)."""
    return max(32, 32 * round(factor * math.sqrt(width) / 32))


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
        _require(0.0 <= self.min <= self.max, "0 <= min <= max", f"min={self.min}, max={self.max}")

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
        _require(self.layer_start >= 1, "layer_start >= 1", self.layer_start)
        _require(math.isfinite(self.alpha), "alpha is finite", self.alpha)
        _require(0.0 <= self.alpha_lr < math.inf, "0 <= alpha_lr < inf", self.alpha_lr)
        _require(0.0 <= self.clip < math.inf, "0 <= clip < inf", self.clip)
        _require(0.0 <= self.seed_scale < math.inf, "0 <= seed_scale < inf", self.seed_scale)

    def strength(self, layer: int, num_layers: int) -> float:
        """Constant part of the gate at `layer`: seed_scale · schedule; 0 where it is not seeded."""
        if layer < self.layer_start:
            return 0.0
        span = num_layers - 1 - self.layer_start
        position = (layer - self.layer_start) / span if span > 0 else 0.0
        return self.seed_scale * self.schedule.strength(position)

    def largest_gate(self, num_layers: int) -> float:
        """Upper bound of the gate over layers and time: its start if frozen, σ = 1 if it learns."""
        opening = 1.0 if self.alpha_lr > 0 else sigmoid(self.alpha)
        return opening * max(self.strength(layer, num_layers) for layer in range(num_layers))
