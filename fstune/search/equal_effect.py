"""Whether two candidates do the same, so that only one of them has to be trained.

Two variants are equal in effect if all but the mechanism is the same in both their arms, and the
mechanism has the same clip that can bind, at every layer effective gates (strength · σ(logit)) that
stay within `SAME_GATE` of each other wherever training may take them, and all else the same
(`norm`, `detach`). Adam moves a weight by at most lr · max(1, (1 - β1) / √(1 - β2)) in a step
(Kingma and Ba 2015, section 2.1). Where that cannot be shown, candidates count as different.
"""

import math

from fstune.results.verdict import OFF_IN_EFFECT
from fstune.specs.settings import ArmSettings
from model.config import FutureSeed, ModelConfig, sigmoid

SAME_GATE = 1.01
"""Ratio up to which two gates are one."""


_IN_GATES_AND_CLIP = (
    *("layer_start", "gate", "alpha", "alpha_lr", "schedule", "seed_scale"),
    "clip",
)


BothArms = tuple[ArmSettings, ArmSettings]
"""The baseline's settings and the variant's."""


Gates = list[tuple[float, float]]
"""By layer, the least and the greatest value that the effective gate can have."""


def equal_in_effect(first: BothArms, second: BothArms, last_step: int, config: ModelConfig) -> bool:
    """Whether the arms of two candidates do the same.

    Args:
        first: baseline's and variant's settings of a candidate (`SearchSpec.settings`).
        second: those of another one.
        last_step: how long they may be trained.
        config: shapes of the model.
    """
    (baseline, variant), (other_baseline, other_variant) = first, second
    if baseline != other_baseline or variant == other_variant:
        return baseline == other_baseline
    one, other = variant.future_seed, other_variant.future_seed
    if (
        one is None
        or other is None
        or variant != other_variant.model_copy(update={"future_seed": one})
    ):
        return False
    if "input" in (one.gate, other.gate) and one.alpha_lr + other.alpha_lr > 0:
        return False  # how far its input can drive such a gate is not bounded
    beta1, beta2 = variant.train.betas
    travel = last_step * max(1.0, (1 - beta1) / math.sqrt(1 - beta2))
    gates, others = (_gates(seed, config, travel) for seed in (one, other))
    if not all(_close(mine, theirs) for mine, theirs in zip(gates, others, strict=True)):
        return False
    if all(greatest == 0.0 for _, greatest in (*gates, *others)):
        return True  # neither hands anything on
    clips = _binding_clip(one, gates, config), _binding_clip(other, others, config)
    return clips[0] == clips[1] and _rest(one) == _rest(other)


def _rest(seed: FutureSeed) -> dict[str, object]:
    """All that gates and clip do not tell; a setting that is not known here tells them apart."""
    return {name: value for name, value in vars(seed).items() if name not in _IN_GATES_AND_CLIP}


def _gates(seed: FutureSeed, config: ModelConfig, travel: float) -> Gates:
    reach = seed.alpha_lr * travel
    gates = []
    for layer in range(config.num_layers):
        strength = seed.strength(layer, config.num_layers)
        bounds = [strength * sigmoid(seed.alpha + way * reach) for way in (-1, 1)]
        # What float32 rounds away beside the state that it is added to is nothing.
        low, high = (0.0 if gate < OFF_IN_EFFECT else gate for gate in bounds)
        gates.append((low, high))
    return gates


def _close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    least, greatest = min(one[0], other[0]), max(one[1], other[1])
    return greatest <= SAME_GATE * least


def _binding_clip(seed: FutureSeed, gates: Gates, config: ModelConfig) -> float:
    """The clip, or 0 where it cannot bind: of D × D entries with mean square 1, none is over D."""
    greatest = config.head_size * max(high for _, high in gates)
    return 0.0 if seed.norm and seed.clip >= greatest else seed.clip
