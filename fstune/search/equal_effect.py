"""Whether two candidates do the same, so that only one of them has to be trained.

Two variants are equal in effect if all but one mechanism's settings is the same in both their arms,
and the mechanism says that these do the same wherever training may take its parameters. Adam moves
a weight by at most lr · max(1, (1 - β1) / √(1 - β2)) in a step (Kingma and Ba 2015, section 2.1).
Where that cannot be shown, candidates count as different.
"""

import math

from fstune.specs.settings import ArmSettings
from model.config import ModelConfig
from model.mechanisms import registry

BothArms = tuple[ArmSettings, ArmSettings]
"""The baseline's settings and the variant's."""


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
    one, other = variant.mechanisms, other_variant.mechanisms
    if one.keys() != other.keys() or variant.without() != other_variant.without():
        return False
    beta1, beta2 = variant.train.betas
    travel = last_step * max(1.0, (1 - beta1) / math.sqrt(1 - beta2))
    return all(registry.get(name).equal(one[name], other[name], config, travel) for name in one)
