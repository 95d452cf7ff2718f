"""Models, operands and errors that several test modules share."""

import math

import torch

from model.config import ModelConfig
from model.rwkv7 import RWKV7

SMALL = ModelConfig(
    num_layers=3,
    width=16,
    vocab_size=23,
    head_size=8,
    ffn_width=24,
    decay_rank=5,
    in_context_rate_rank=6,
    value_mix_rank=7,
    gate_rank=9,
)


def random_model(config=SMALL, seed=0, dtype=torch.float32):
    """A model in which every tensor is random and takes part.

    What a layer adds to the stream is scaled down with depth: otherwise 12 random layers amplify
    float32's rounding to 1e-4 of the logits, in anybody's implementation.
    """
    model = RWKV7(config)
    generator = torch.Generator().manual_seed(seed)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shift, scale = _spread(name, parameter, config.num_layers)
            parameter.copy_(shift + scale * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def _spread(name, parameter, num_layers):
    """Mean and standard deviation of a parameter's values."""
    last = name.split(".")[-1]
    if ".ln" in name or name.startswith("ln"):
        return (1.0 if last == "weight" else 0.0), 0.2
    if name.endswith(("output.weight", "ffn.value.weight")):
        return 0.0, 1.0 / math.sqrt(num_layers * parameter.shape[1])
    by_name = {"w0": (-2.0, 2.0), "k_k": (0.9, 0.2), "k_a": (0.9, 0.2)}
    by_name |= dict.fromkeys(("a0", "v0", "r_k"), (0.0, 0.5))
    by_name |= {f"x_{i}": (0.5, 0.3) for i in "rwkvag"}
    if last in by_name:
        return by_name[last]
    if name == "emb.weight":
        return 0.0, 1.0
    return 0.0, 1.0 / math.sqrt(parameter.shape[0 if last[-1] in "12" else 1])


def random_tokens(batch_size, length, seed=0, vocab_size=SMALL.vocab_size):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch_size, length), generator=generator)


def relative_error(found, wanted):
    """‖found - wanted‖ / ‖wanted‖, in float64."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


def state_parts(state):
    return state.wkv_LBHVK, state.att_shift_LBC, state.ffn_shift_LBC
