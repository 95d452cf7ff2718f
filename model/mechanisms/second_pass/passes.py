"""The second pass: the prompt is read twice, the second time with what the first has left.

Letters: B batch, T time, L layers, H heads, V value channels (rows), K key channels (columns).

With S_0(i) the explicit initial state of layer i, and S_T(i) its state after the whole prompt in
the first pass, which begins from S_0:

    base = S_T(i), without gradient if `detach`
    base = base / max(1e-6, root mean square of base over rows and columns) if `norm`
    the second pass of layer i >= layer_start begins from S_0(i) + σ(alpha_i) · base

(`gate: head`: alpha_{i,h}, one per head.) Token shifts begin as in the first pass. Hidden values
and states are the second pass's. Every prompt token is read twice, so that a pair at equal steps is
one of unequal tokens read: `train.batch_size` or the rungs' steps can even that out.

What tells it from Future-Seed: a layer's start comes from itself, with all of the prompt read
before, at twice the price, instead of from the layer below, for next to nothing.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.mechanisms.acting import Acting, Read, by_layer, layers_from, scaled_to_one
from model.mechanisms.second_pass.settings import SecondPass
from model.state import State


class Passes(Acting):
    """The gates, float32; parameter `alpha` [seeded layers] (scalar) or [seeded layers, H] (head).

    Raises:
        ValueError: where `layer_start` leaves no layer.
    """

    readings = 2

    def __init__(self, config: ModelConfig, settings: SecondPass) -> None:
        super().__init__(config, settings)
        self.settings: SecondPass = settings
        layers = layers_from(config, settings.layer_start)
        shape = (layers, config.num_heads) if settings.gate == "head" else (layers,)
        self.alpha = nn.Parameter(torch.full(shape, settings.alpha, dtype=torch.float32))

    def read(self, once: Read, state: State) -> tuple[Tensor, State]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.settings.detach):
            _, first = once(state)
        start = self.settings.layer_start
        base_LBHVK = first.wkv_LBHVK[start:]
        if self.settings.norm:
            base_LBHVK = scaled_to_one(base_LBHVK)
        gate_LH = self.alpha.to(base_LBHVK).sigmoid().reshape(len(base_LBHVK), 1, -1, 1, 1)
        seed_LBHVK = gate_LH * base_LBHVK
        own_LBHVK = state.wkv_LBHVK
        again_LBHVK = torch.cat([own_LBHVK[:start], own_LBHVK[start:] + seed_LBHVK])
        return once(replace(state, wkv_LBHVK=again_LBHVK))

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """Each layer's gate, and its heads' where they have their own."""
        gates = enumerate(self.alpha.sigmoid(), self.settings.layer_start)
        return by_layer("second_gate", gates)
