"""The parts of an RWKV-7 block: norms, token shift, time mix and channel mix.

Letters: B batch, T time, C width, H heads, D channels of a head (D = V = K), p positions with the
carried one in front (T + 1).

Formulae of RWKV-7 "Goose" (arXiv 2503.14456; BlinkDL/RWKV-LM, RWKV-v7), parameter names of the
official checkpoints. With x' the input of the previous valid position and x_i = x + (x' - x)·mix_i:

    r, k, v = x_r Wr, x_k Wk, x_v Wv          v += (v_first - v)·σ(v0 + (x_v v1) v2)   above layer 0
    log_decay = -e^(-1/2)·σ(w0 + tanh(x_w w1) w2)
    a = σ(a0 + (x_a a1) a2)                   g = σ(x_g g1) g2
    kk = k·k_k, to unit length per head       k *= 1 + (a - 1)·k_a
    y = WKV-7(r, log_decay, k, v, -kk, kk·a)
    time mix = (ln_x(y) + (Σ r·k·r_k per head)·v)·g Wo
    channel mix = relu(x_k Wkey)² Wvalue

Parameters are made as zeros, norms as identity: values come from `model.checkpoint` or
`model.initial`, and nothing here draws a random number.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.wkv.dispatch import wkv7

HEAD_NORM_EPS = 64e-5
"""Epsilon of ln_x (RWKV-LM); the other norms have 1e-5."""


def widen(x: Tensor) -> Tensor:
    """The tensor in at least float32."""
    return x if x.dtype == torch.float64 else x.float()


class Linear(nn.Linear):
    """x Wᵀ; W is [out, in]. Torch's own, so that tools which look for it (`peft`) find it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Zeros, where torch would draw."""
        nn.init.zeros_(self.weight)


class Embedding(nn.Module):
    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocab_size, width))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return nn.functional.embedding(tokens_BT, self.weight)


class Norm(nn.Module):
    """Layer norm over the width, or over each head's channels; computed in at least float32."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTC: Tensor) -> Tensor:
        weight, bias = widen(self.weight), widen(self.bias)
        y_BTC = nn.functional.layer_norm(widen(x_BTC), weight.shape, weight, bias, self.eps)
        return y_BTC.to(x_BTC.dtype)

    def per_head(self, x_BTHD: Tensor) -> Tensor:
        """Normalise every head by itself; [B, T, C]."""
        unit_BTHD = nn.functional.layer_norm(widen(x_BTHD), x_BTHD.shape[-1:], eps=self.eps)
        y_BTC = torch.addcmul(widen(self.bias), unit_BTHD.flatten(2), widen(self.weight))
        return y_BTC.to(x_BTHD.dtype)


@dataclass(frozen=True)
class Positions:
    """Where the valid positions of a batch are; indices count the carried input as 0."""

    mask_BT: Tensor
    previous_BT: Tensor
    """Index of the valid position before each position."""
    last_B: Tensor
    """Index of the last valid position; 0 in a row that has none."""

    @staticmethod
    def of(mask_BT: Tensor) -> "Positions":
        length = mask_BT.shape[1]
        index_T = torch.arange(1, length + 1, device=mask_BT.device)
        valid_BT = torch.where(mask_BT, index_T, 0)
        latest_Bp = nn.functional.pad(valid_BT, (1, 0)).cummax(dim=1).values
        return Positions(mask_BT, latest_Bp[:, :-1], latest_Bp[:, -1])


def shift(x_BTC: Tensor, carried_BC: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
    """Each position's previous valid input, and the last valid input of each row to carry on."""
    x_BpC = torch.cat([carried_BC.to(x_BTC.dtype).unsqueeze(1), x_BTC], dim=1)
    if positions is None:
        return x_BpC[:, :-1], x_BpC[:, -1]
    return take(x_BpC, positions.previous_BT), take(x_BpC, positions.last_B[:, None]).squeeze(1)


def take(x_BpC: Tensor, index_BT: Tensor) -> Tensor:
    """x[b, index[b, t]]."""
    return x_BpC.gather(1, index_BT.unsqueeze(-1).expand(-1, -1, x_BpC.shape[-1]))


class TimeMix(nn.Module):
    x_r: Tensor
    x_w: Tensor
    x_k: Tensor
    x_v: Tensor
    x_a: Tensor
    x_g: Tensor
    w0: Tensor
    w1: Tensor
    w2: Tensor
    a0: Tensor
    a1: Tensor
    a2: Tensor
    v0: Tensor
    v1: Tensor
    v2: Tensor
    g1: Tensor
    g2: Tensor
    k_k: Tensor
    k_a: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        C, H, D = config.width, config.num_heads, config.head_size
        vectors = ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a"]
        ranks = {"w": config.decay_rank, "a": config.in_context_rate_rank, "g": config.gate_rank}
        if layer > 0:
            vectors.append("v0")
            ranks["v"] = config.value_mix_rank
        for name in vectors:
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, C)))
        for name, rank in ranks.items():
            self.register_parameter(f"{name}1", nn.Parameter(torch.zeros(C, rank)))
            self.register_parameter(f"{name}2", nn.Parameter(torch.zeros(rank, C)))
        self.r_k = nn.Parameter(torch.zeros(H, D))
        self.receptance = Linear(C, C)
        self.key = Linear(C, C)
        self.value = Linear(C, C)
        self.output = Linear(C, C)
        self.ln_x = Norm(C, HEAD_NORM_EPS)

    def forward(
        self,
        x_BTC: Tensor,
        previous_BTC: Tensor,
        v_first_BTC: Tensor | None,
        s0_BHVK: Tensor,
        mask_BT: Tensor | None,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix over time.

        Returns:
            The layer's contribution [B, T, C], layer 0's values [B, T, C], the state [B, H, V, K].
        """
        delta_BTC = previous_BTC - x_BTC
        mixes = (self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        x_r, x_w, x_k, x_v, x_a, x_g = (torch.addcmul(x_BTC, delta_BTC, mix) for mix in mixes)
        r_BTC, k_BTC, v_BTC = self.receptance(x_r), self.key(x_k), self.value(x_v)
        decay_BTC = widen(self.w0) + torch.tanh(x_w @ self.w1) @ self.w2
        log_decay_BTC = -math.exp(-0.5) * decay_BTC.sigmoid()
        rate_BTC = torch.sigmoid(self.a0 + (x_a @ self.a1) @ self.a2)
        gate_BTC = torch.sigmoid(x_g @ self.g1) @ self.g2
        if v_first_BTC is None:
            v_first_BTC = v_BTC
        else:
            mix_BTC = torch.sigmoid(self.v0 + (x_v @ self.v1) @ self.v2)
            v_BTC = torch.lerp(v_BTC.to(mix_BTC), v_first_BTC.to(mix_BTC), mix_BTC)

        by_head = (*x_BTC.shape[:2], *self.r_k.shape)
        kk_BTHD = widen(k_BTC * self.k_k).view(by_head)
        kk_BTHD = nn.functional.normalize(kk_BTHD, dim=-1, eps=1e-12)
        k_BTC = k_BTC * (1.0 + (rate_BTC - 1.0) * self.k_a)
        r_BTHD, k_BTHD, v_BTHD = (x.view(by_head) for x in (r_BTC, k_BTC, v_BTC))
        y_BTHD, sT_BHVK = wkv7(
            r_BTHD,
            log_decay_BTC.view(by_head),
            k_BTHD,
            v_BTHD,
            -kk_BTHD,
            kk_BTHD * rate_BTC.view(by_head),
            s0_BHVK,
            mask_BT,
            backend,
        )
        bonus_BTHD = (r_BTHD * k_BTHD * self.r_k).sum(-1, keepdim=True) * v_BTHD
        y_BTC = self.ln_x.per_head(y_BTHD) + bonus_BTHD.flatten(2)
        return self.output(y_BTC * gate_BTC), v_first_BTC, sT_BHVK


class ChannelMix(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.x_k = nn.Parameter(torch.zeros(1, 1, config.width))
        self.key = Linear(config.width, config.ffn_width)
        self.value = Linear(config.ffn_width, config.width)

    def forward(self, x_BTC: Tensor, previous_BTC: Tensor) -> Tensor:
        x_k = torch.addcmul(x_BTC, previous_BTC - x_BTC, self.x_k)
        out_BTC: Tensor = self.value(self.key(x_k).relu().square())
        return out_BTC
