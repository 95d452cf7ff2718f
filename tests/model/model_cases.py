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

    def normal(like, scale, shift=0.0):
        return shift + scale * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            last = name.split(".")[-1]
            if last.startswith("x_"):
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
            elif ".ln" in name or name.startswith("ln"):
                parameter.copy_(normal(parameter, 0.2, 1.0 if last == "weight" else 0.0))
            elif last == "w0":
                parameter.copy_(normal(parameter, 2.0, -2.0))
            elif last in {"a0", "v0", "r_k"}:
                parameter.copy_(normal(parameter, 0.5))
            elif last in {"k_k", "k_a"}:
                parameter.copy_(normal(parameter, 0.2, 0.9))
            elif last[-1] in "12":
                parameter.copy_(normal(parameter, 1.0 / math.sqrt(parameter.shape[0])))
            elif name.endswith(("output.weight", "ffn.value.weight")):
                scale = 1.0 / math.sqrt(config.num_layers * parameter.shape[1])
                parameter.copy_(normal(parameter, scale))
            elif name == "emb.weight":
                parameter.copy_(normal(parameter, 1.0))
            else:
                parameter.copy_(normal(parameter, 1.0 / math.sqrt(parameter.shape[1])))
    return model.to(dtype)


def random_tokens(batch_size, length, seed=0, vocab_size=SMALL.vocab_size):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch_size, length), generator=generator)


def relative_error(found, wanted):
    """‖found - wanted‖ / ‖wanted‖, in float64."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


def state_parts(state):
    return state.wkv_LBHVK, state.att_shift_LBC, state.ffn_shift_LBC
