"""What is looked at in every arm beside its scores: is anything moving, is anything constant.

Cheap enough to be always on: gates are read, seeds are compared on a few examples, moved weights on
a sample. Values are kept with each evaluation under the names that are documented here; nothing is
decided from them but flags for people.

    gate/L07, gate/L07.H3       what a mechanism has of each layer, and of its heads; which is told
                                by the mechanism (`Acting.values`)
    seed_ratio/L07              what it does to each layer's state after a few prompts, mean over
                                examples and heads (`Acting.observed`)
    grad_norm/model, /gates     mean over all steps, before clipping; of the mechanism's parameters
                                by the name that it has for them
    unmoved_share               share of sampled weights that are what they were at step 0
    tokens_per_s                trained on, since step 0
    peak_memory_gb              of the device; of the whole process on a CPU
    answers/most_common         share of examples that got the most frequent prediction
    answers/most_common_wanted  share of examples that want the most frequent answer
    answers/empty               share of examples whose written answer is empty
"""

import resource
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fstune.arms.evaluation import PADDED_TOKENS_PER_BATCH
from fstune.arms.loss import Subject
from tasks.batch import collate
from tasks.example import Split

EXAMPLES_LOOKED_AT = 4
"""Examples on which mechanisms are observed."""


WEIGHTS_PER_TENSOR = 1024
"""Weights of each tensor whose movement is followed."""


FLAG_SHARE = 0.9
"""One prediction for more of the examples than this is called constant, where fewer want it."""


def mechanism_values(subject: Subject) -> dict[str, float]:
    """What each mechanism has to say of its parameters."""
    return {name: x for each in subject.acting.values() for name, x in each.values().items()}


def observed(
    subject: Subject, split: Split, padded_tokens: int = PADDED_TOKENS_PER_BATCH
) -> dict[str, float]:
    """What each mechanism has to say of the states after some prompts, in the mean.

    Args:
        subject: the model.
        split: the first of its examples are looked at.
        padded_tokens: how many tokens are read at a time, as of an evaluation.
    """
    acting = list(subject.acting.values())
    if not acting:
        return {}
    count = min(EXAMPLES_LOOKED_AT, len(split))
    at_once = max(1, padded_tokens // int(split.prompt_lengths[:count].max()))
    found: dict[str, list[Tensor]] = {}
    with torch.inference_mode(), subject.compute():
        for first in range(0, count, at_once):
            batch = collate(split, range(first, min(first + at_once, count)))
            prompt = batch.to(subject.device).prompt
            _, state = subject.model.hidden(prompt.tokens_BT, mask_BT=prompt.mask_BT, acting=acting)
            for each in acting:
                for name, values in each.observed(state):
                    found.setdefault(name, []).append(values)
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


def sample_of(model: torch.nn.Module) -> Tensor:
    """A fixed sample of a model's weights, float32: evenly spaced ones of every tensor."""
    parts = []
    for parameter in model.parameters():
        flat = parameter.detach().flatten()
        parts.append(flat[:: max(1, -(-flat.numel() // WEIGHTS_PER_TENSOR))].float().cpu())
    return torch.cat(parts)


def memory_gb(device: torch.device) -> float:
    """The most that was ever in use, in GB (10⁹ bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # In KiB, on macOS in bytes (getrusage(2) of either).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def flags(diagnostics: Mapping[str, float]) -> Sequence[str]:
    """What a person should look at before believing an arm's scores."""
    found = []
    said = diagnostics.get("answers/most_common", 0.0)
    wanted = diagnostics.get("answers/most_common_wanted", 1.0)
    if said > FLAG_SHARE > wanted:
        found.append("one answer for nearly all examples")
    if diagnostics.get("answers/empty", 0.0) > 1 - FLAG_SHARE:
        found.append("nearly all answers are empty")
    return found
