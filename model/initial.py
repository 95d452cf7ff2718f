"""A model from scratch: the reference initialisation of RWKV-7.

The values are those of BlinkDL/RWKV-LM, RWKV-v7/train_temp, model.py. Letters: C width, D channels
of a head. Everything random comes from one `torch.Generator`, never from the global stream.
"""

import math

import torch
from torch import Tensor

from model.config import ModelConfig
from model.layers import ChannelMix, TimeMix
from model.rwkv7 import RWKV7, Block


@torch.no_grad()
def initialise(config: ModelConfig, seed: int) -> RWKV7:
    """Make a float32 model on the CPU; the same settings and seed give the same bits."""
    generator = torch.Generator().manual_seed(seed)
    model = RWKV7(config)
    model.emb.weight.uniform_(-1e-4, 1e-4, generator=generator)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        depth, height = layer / max(1, config.num_layers - 1), 1.0 - layer / config.num_layers
        _fill_time_mix(block.att, depth, height, generator)
        block.att.ln_x.weight.fill_(((1 + layer) / config.num_layers) ** 0.7)
        _fill_channel_mix(block.ffn, height, generator)
    _fill_orthogonal(model.head.weight, 0.5, generator)
    return model


def _fill_time_mix(att: TimeMix, depth: float, height: float, generator: torch.Generator) -> None:
    """Fill a time mix; `depth` runs from 0 at the first layer to 1, `height` from 1 to 1/L."""
    C, D = att.r_k.numel(), att.r_k.shape[1]
    channel_C = torch.arange(C, dtype=torch.float32)
    part_C = channel_C / C
    ramp_C = channel_C / max(1, C - 1)
    middle = max(1, D - 1) / 2
    zigzag_C = (channel_C % D - (D - 1) / 2) / middle
    zigzag_C = zigzag_C * zigzag_C.abs()
    powers = {"x_r": 0.2, "x_w": 0.9, "x_k": 0.7, "x_v": 0.7, "x_a": 0.9, "x_g": 0.2}
    for name, power in powers.items():
        _set(getattr(att, name), 1.0 - part_C ** (power * height))
    _set(att.w0, -6.0 + 6.0 * ramp_C ** (1.0 + depth**0.3) + 0.5 + 2.5 * zigzag_C)
    _set(att.a0, -0.19 + 0.3 * zigzag_C + 0.4 * (ramp_C - 0.5))
    _set(att.k_k, 0.71 - 0.1 * (ramp_C - 0.5))
    att.k_a.fill_(1.02)
    att.r_k.fill_(-0.04)
    second_factors = [att.w2, att.a2, att.g2]
    if hasattr(att, "v0"):
        _set(att.v0, 0.73 - 0.4 * (ramp_C - 0.5))
        second_factors.append(att.v2)
    for factor in second_factors:
        _fill_orthogonal(factor, 0.1, generator)
    for linear, scale in ((att.receptance, 0.5), (att.key, 0.05), (att.value, 0.5)):
        _fill_uniform(linear.weight, scale / math.sqrt(C), generator)


def _fill_channel_mix(ffn: ChannelMix, height: float, generator: torch.Generator) -> None:
    C = ffn.x_k.numel()
    _set(ffn.x_k, 1.0 - (torch.arange(C, dtype=torch.float32) / C) ** (height**4))
    _fill_uniform(ffn.key.weight, 0.5 / math.sqrt(C), generator)


def _set(parameter: Tensor, values_C: Tensor) -> None:
    parameter.copy_(values_C.view_as(parameter))


def _fill_uniform(weight: Tensor, bound: float, generator: torch.Generator) -> None:
    weight.uniform_(-bound, bound, generator=generator)


def _fill_orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Orthogonal rows or columns, times gain·√(rows / columns) where there are more rows."""
    rows, columns = weight.shape
    scale = gain * math.sqrt(max(1.0, rows / columns))
    torch.nn.init.orthogonal_(weight, gain=scale, generator=generator)
