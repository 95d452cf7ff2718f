"""What is looked at in every arm beside its scores: is anything moving, is anything constant.

Cheap enough to be always on: gates are read, seeds are compared on a few examples, moved weights on
a sample. Values are kept with each evaluation under the names that are documented here; nothing is
decided from them but flags for people.

    gate/L07, gate/L07.H3       strength · σ(logit) of a seeded layer, and of each of its heads
    seed_ratio/L07              norm of the seed over that of the layer's own state after the prompt
                                (without the input gate's part), mean over examples and heads
    grad_norm/model, /gates     mean over all steps, before clipping
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
from model.future_seed import Gates, seed_state
from tasks.batch import collate
from tasks.example import Split

EXAMPLES_LOOKED_AT = 4
"""Examples on which seeds are compared with the states they meet."""


WEIGHTS_PER_TENSOR = 1024
"""Weights of each tensor whose movement is followed."""


FLAG_SHARE = 0.9
"""One prediction for more of the examples than this is called constant, where fewer want it."""


def gate_values(gates: Gates | None) -> dict[str, float]:
    """The effective gate of each seeded layer and head."""
    if gates is None:
        return {}
    found: dict[str, float] = {}
    for layer, gate in gates.effective().items():
        name = f"gate/L{layer:02d}"
        found[name] = float(gate.mean())
        if gate.ndim == 1:
            found |= {f"{name}.H{head}": float(value) for head, value in enumerate(gate)}
    return found


def seed_ratios(
    subject: Subject, split: Split, padded_tokens: int = PADDED_TOKENS_PER_BATCH
) -> dict[str, float]:
    """How large each layer's seed is beside the state that the layer ends up with.

    Args:
        subject: the model.
        split: the first of its examples are looked at.
        padded_tokens: how many tokens are read at a time, as of an evaluation.
    """
    settings, gates = subject.future_seed, subject.gates
    if settings is None or gates is None:
        return {}
    count = min(EXAMPLES_LOOKED_AT, len(split))
    at_once = max(1, padded_tokens // int(split.prompt_lengths[:count].max()))
    found: dict[str, list[Tensor]] = {}
    with torch.inference_mode(), subject.compute():
        for first in range(0, count, at_once):
            batch = collate(split, range(first, min(first + at_once, count)))
            prompt = batch.to(subject.device).prompt
            _, state = subject.model.hidden(
                prompt.tokens_BT, mask_BT=prompt.mask_BT, future_seed=settings, gates=gates
            )
            for layer in range(settings.layer_start, subject.model.config.num_layers):
                below_BHVK, own_BHVK = state.wkv_LBHVK[layer - 1], state.wkv_LBHVK[layer]
                seed_BHVK = seed_state(gates, settings, layer, below_BHVK, None)
                if seed_BHVK is not None:
                    ratio_BH = seed_BHVK.norm(dim=(-2, -1)) / own_BHVK.norm(dim=(-2, -1))
                    found.setdefault(f"seed_ratio/L{layer:02d}", []).append(ratio_BH)
    return {name: float(torch.cat(ratios).mean()) for name, ratios in found.items()}


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
