"""The shapes of a model, as a frozen value free of torch, and what settings are checked by.

What the shapes hold is in `model.rwkv7`; the settings of a mechanism are in its own folder.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

WkvBackend = Literal["auto", "reference", "chunked", "triton", "fla"]
"""How the recurrence is computed: one of `model.wkv.BACKENDS`, or as `model.wkv.choice` finds."""


def require(holds: bool, rule: str, got: object) -> None:
    """Raise a ValueError that names the rule and what was given, where it does not hold."""
    if not holds:
        raise ValueError(f"{rule} must hold, got {got}")


MOST = {
    "num_layers": 1024,
    "width": 2**17,
    "vocab_size": 2**24,
    "ffn_width": 2**20,
    "decay_rank": 2**17,
    "in_context_rate_rank": 2**17,
    "value_mix_rank": 2**17,
    "gate_rank": 2**17,
}
"""Bounds ten times and more beyond any RWKV-7 that there is (61 layers, width 4096): a slip of the
keyboard is to be told, not tried, for what it names would take a machine's memory before it
fails."""


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
            require(getattr(self, name) >= 1, f"{name} >= 1", getattr(self, name))
        require(
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
            require(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
            if getattr(self, name) == 0:
                object.__setattr__(self, name, value)
        for name, most in MOST.items():
            value = getattr(self, name)
            require(value <= most, f"{name} <= {most}, beyond any RWKV-7,", value)

    @property
    def num_heads(self) -> int:
        return self.width // self.head_size


def sigmoid(logit: float) -> float:
    """σ(logit), whatever its size; below -709, where the exponential would overflow, it is 0."""
    return 0.0 if logit < -709 else 1 / (1 + math.exp(-logit))


def default_rank(factor: float, width: int) -> int:
    """Low-rank width max(32, 32·round(factor·√C / 32)) (RWKV-LM, RWKV-v7/train_temp model.py)."""
    return max(32, 32 * round(factor * math.sqrt(width) / 32))
