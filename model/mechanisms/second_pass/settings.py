"""The second pass's settings, and what they come to; free of torch. How it acts is in `passes`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config import ModelConfig, require, sigmoid
from model.mechanisms.mechanism import Context, Idle, Mechanism, Profile

if TYPE_CHECKING:
    from model.mechanisms.second_pass.passes import Passes


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


class SecondPassMechanism(Mechanism[SecondPass]):
    """The prompt read twice, each layer beginning again from its own last state, gated."""

    name = "second_pass"
    title = "a second pass"
    summary = "the prompt is read twice; each layer begins again from its own last state, gated"
    Settings = SecondPass
    rate = "alpha_lr"
    parameters = "second_pass"

    def build(self, config: ModelConfig, settings: SecondPass) -> "Passes":
        from model.mechanisms.second_pass.passes import Passes

        return Passes(config, settings)

    def idle(self, settings: SecondPass, context: Context) -> Iterator[Idle]:
        layers = context.num_layers
        if layers is not None and settings.layer_start >= layers:
            text = f"must be under {layers}, the number of layers, got {settings.layer_start}"
            yield Idle("layer_start", text, "mechanism", sure=True)
        elif settings.gate != "scalar" and settings.alpha_lr == 0:
            text = "has no effect while alpha_lr is 0: it starts as the scalar gate and stays it"
            yield Idle("gate", text)

    def reach(self, settings: SecondPass, num_layers: int, steps: int) -> float:
        """The largest gate: its start if frozen, σ = 1 if it learns."""
        del num_layers, steps
        return 1.0 if settings.alpha_lr > 0 else sigmoid(settings.alpha)

    def weight(self, settings: SecondPass) -> tuple[float, ...]:
        return (not settings.detach, -settings.layer_start, settings.alpha_lr > 0)

    def profile(self, settings: SecondPass, num_layers: int) -> Profile:
        return Profile(
            title="Gates of the second pass per layer",
            caption=(
                "How much of its own last state each layer of candidate {number} begins again with,"
                " before training (hollow) and at its last rung, for every seed and head "
                "(σ(alpha), before norm)."
            ),
            quantity="second_gate",
            before=dict.fromkeys(range(settings.layer_start, num_layers), sigmoid(settings.alpha)),
            learns=settings.alpha_lr > 0,
        )

    def first_space(self, num_layers: int, new: bool) -> dict[str, dict[str, Any]]:
        del num_layers
        return {
            "alpha": {"uniform": [-4.0, 2.0] if new else [-4.0, 0.0]},
            "alpha_lr": {"choice": [0.0, 0.02 if new else 5e-4]},
            "norm": {"choice": [True, False]},
        }
