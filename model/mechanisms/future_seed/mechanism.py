"""Future-Seed as a mechanism: what its settings come to; free of torch until it is built.

Two settings are equal in effect if they have the same clip that can bind, at every layer effective
gates (strength · σ(logit)) that stay within `SAME_GATE` of each other wherever training may take
them, and all else the same (`norm`, `detach`). Where that cannot be shown, they count as different.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from model.config import ModelConfig, sigmoid
from model.mechanisms.future_seed.settings import FutureSeed, Schedule
from model.mechanisms.mechanism import (
    OFF_IN_EFFECT,
    Context,
    Idle,
    Mechanism,
    Profile,
    past_the_model,
)

if TYPE_CHECKING:
    from model.mechanisms.future_seed.gates import Gates

SAME_GATE = 1.01
"""Ratio up to which two gates are one."""

_IN_GATES_AND_CLIP = (
    *("layer_start", "gate", "alpha", "alpha_lr", "schedule", "seed_scale"),
    "clip",
)

_Bounds = list[tuple[float, float]]
"""By layer, the least and the greatest value that the effective gate can have."""


class FutureSeedMechanism(Mechanism[FutureSeed]):
    """Each layer starts the prompt from a gated copy of the layer below's last state."""

    name = "future_seed"
    title = "Future-Seed"
    summary = "each layer starts from a gated copy of the layer below's last state over the prompt"
    Settings = FutureSeed
    rate = "alpha_lr"
    parameters = "gates"
    written_when_off = True

    def build(self, config: ModelConfig, settings: FutureSeed) -> "Gates":
        from model.mechanisms.future_seed.gates import Gates

        return Gates(config, settings)

    def settings_of(self, values: Mapping[str, Any]) -> FutureSeed:
        return FutureSeed(**{**values, "schedule": Schedule(**values["schedule"])})

    def idle(self, settings: FutureSeed, context: Context) -> Iterator[Idle]:
        layers = context.num_layers
        nothing = past_the_model(settings.layer_start, context) or _nothing(settings, layers)
        if nothing is not None:
            yield nothing
            return
        schedule = settings.schedule
        for end in ("schedule.min", "schedule.max"):
            if schedule.kind == "none":
                text = "has no effect while schedule.kind is none"
                yield Idle(end, text, "here", unless=("schedule.kind", ("linear", "cosine")))
        if schedule.kind != "none" and schedule.min == schedule.max == 1:
            text = "has no effect while schedule.min and schedule.max are both 1"
            yield Idle("schedule.kind", text)
        if schedule.kind != "none" and settings.layer_start + 1 == layers:
            text = "has no effect while only the last layer is seeded: its strength is schedule.min"
            yield Idle("schedule.max", text)
        if settings.gate != "scalar" and settings.alpha_lr == 0:
            # Per-head logits start equal and an input gate's weights start at 0 (`gates`).
            text = "has no effect while alpha_lr is 0: it starts as the scalar gate and stays it"
            yield Idle("gate", text)

    def reach(self, settings: FutureSeed, num_layers: int, steps: int) -> float:
        """The largest gate over layers and time: its start if frozen, σ = 1 if it learns."""
        del steps
        opening = 1.0 if settings.alpha_lr > 0 else sigmoid(settings.alpha)
        return opening * max(settings.strength(layer, num_layers) for layer in range(num_layers))

    def equal(
        self, first: FutureSeed, second: FutureSeed, config: ModelConfig, travel: float
    ) -> bool:
        if first == second:
            return True
        if "input" in (first.gate, second.gate) and first.alpha_lr + second.alpha_lr > 0:
            return False  # how far its input can drive such a gate is not bounded
        one, other = (_bounds(each, config, travel) for each in (first, second))
        if not all(_close(mine, theirs) for mine, theirs in zip(one, other, strict=True)):
            return False
        if all(greatest == 0.0 for _, greatest in (*one, *other)):
            return True  # neither hands anything on
        clips = _binding_clip(first, one, config), _binding_clip(second, other, config)
        return clips[0] == clips[1] and _rest(first) == _rest(second)

    def weight(self, settings: FutureSeed) -> tuple[float, ...]:
        """The lowest seeded layer first; then gradients through gates and states."""
        return (
            -settings.layer_start,
            settings.alpha_lr > 0,
            not settings.detach,
            settings.gate == "input",
        )

    def profile(self, settings: FutureSeed, num_layers: int) -> Profile:
        opening = sigmoid(settings.alpha)
        return Profile(
            title="Gates per layer",
            caption=(
                "How far each layer's gate of candidate {number} is open before training (hollow) "
                "and at its last rung, for every seed and head (seed_scale · schedule · σ(alpha), "
                "before norm and clip)."
            ),
            quantity="gate",
            before={
                layer: settings.strength(layer, num_layers) * opening
                for layer in range(settings.layer_start, num_layers)
            },
            learns=settings.alpha_lr > 0,
        )

    def depth(self, diagnostics: Mapping[str, float]) -> int | None:
        """The last layer is always seeded, and has a gate."""
        seen = (re.match(r"gate/L(\d+)", name) for name in diagnostics)
        layers = [int(found[1]) for found in seen if found]
        return 1 + max(layers) if layers else None

    def first_space(self, num_layers: int, new: bool) -> dict[str, dict[str, Any]]:
        rate = 0.02 if new else 5e-4
        layers = sorted({1, num_layers // 2, num_layers - 2} - {0, num_layers})
        several = len(layers) > 1 and layers[0] > 0
        return {
            **({"layer_start": {"choice": layers}} if several else {}),
            "alpha": {"uniform": [-4.0, 2.0] if new else [-4.0, 0.0]},
            "alpha_lr": {"choice": [0.0, rate]},
            # Without a learning rate, every kind of gate stays the scalar one.
            "gate": {"choice": ["scalar", "head"], "when": {"alpha_lr": rate}},
            "norm": {"choice": [True, False]},
        }


def _nothing(settings: FutureSeed, layers: int | None) -> Idle | None:
    """Why the mechanism is as good as off."""
    if settings.seed_scale == 0:
        text = "must be over 0: at 0 nothing is handed on, got 0"
        return Idle("seed_scale", text, "mechanism", sure=True)
    # Without the number of layers, a depth that has all positions between first and last.
    depth = layers or settings.layer_start + 2
    if all(settings.strength(layer, depth) == 0 for layer in range(settings.layer_start, depth)):
        end = "max" if settings.schedule.max == 0 else "min"
        text = "must be over 0: the strength is 0 at every layer that is seeded, got 0"
        return Idle(f"schedule.{end}", text, "mechanism")
    return None


def _rest(settings: FutureSeed) -> dict[str, object]:
    """All that gates and clip do not tell; a setting that is not known here tells them apart."""
    return {name: value for name, value in vars(settings).items() if name not in _IN_GATES_AND_CLIP}


def _bounds(settings: FutureSeed, config: ModelConfig, travel: float) -> _Bounds:
    reach = settings.alpha_lr * travel
    gates = []
    for layer in range(config.num_layers):
        strength = settings.strength(layer, config.num_layers)
        bounds = [strength * sigmoid(settings.alpha + way * reach) for way in (-1, 1)]
        # What float32 rounds away beside the state that it is added to is nothing.
        low, high = (0.0 if gate < OFF_IN_EFFECT else gate for gate in bounds)
        gates.append((low, high))
    return gates


def _close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    least, greatest = min(one[0], other[0]), max(one[1], other[1])
    return greatest <= SAME_GATE * least


def _binding_clip(settings: FutureSeed, gates: _Bounds, config: ModelConfig) -> float:
    """The clip, or 0 where it cannot bind: of D × D entries with mean square 1, none is over D."""
    greatest = config.head_size * max(high for _, high in gates)
    return 0.0 if settings.norm and settings.clip >= greatest else settings.clip
