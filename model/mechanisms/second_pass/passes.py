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
from model.mechanisms.acting import Acting, Read
from model.mechanisms.second_pass.settings import SecondPass
from model.state import State

_LEAST_MEAN_SQUARE = 1e-12


class Passes(Acting):
    """The gates, float32; parameter `alpha` [seeded layers] (scalar) or [seeded layers, H] (head).

    Raises:
        ValueError: where `layer_start` leaves no layer.
    """

    readings = 2

    def __init__(self, config: ModelConfig, settings: SecondPass) -> None:
        super().__init__(config, settings)
        self.settings: SecondPass = settings
        if settings.layer_start >= config.num_layers:
            raise ValueError(
                "layer_start < num_layers must hold, "
                f"got layer_start={settings.layer_start}, num_layers={config.num_layers}"
            )
        layers = config.num_layers - settings.layer_start
        shape = (layers, config.num_heads) if settings.gate == "head" else (layers,)
        self.alpha = nn.Parameter(torch.full(shape, settings.alpha, dtype=torch.float32))

    def read(self, once: Read, state: State) -> tuple[Tensor, State]:
        if self.settings.detach:
            with torch.no_grad():
                _, first = once(state)
        else:
            _, first = once(state)
        start = self.settings.layer_start
        base_LBHVK = first.wkv_LBHVK[start:]
        if self.settings.norm:
            # Clamped under the root: the root's slope at an empty state is infinite.
            mean_square = base_LBHVK.square().mean((-2, -1), keepdim=True)
            base_LBHVK = base_LBHVK / mean_square.clamp_min(_LEAST_MEAN_SQUARE).sqrt()
        gate_LH = self.alpha.to(base_LBHVK).sigmoid().reshape(len(base_LBHVK), 1, -1, 1, 1)
        seed_LBHVK = gate_LH * base_LBHVK
        own_LBHVK = state.wkv_LBHVK
        again_LBHVK = torch.cat([own_LBHVK[:start], own_LBHVK[start:] + seed_LBHVK])
        return once(replace(state, wkv_LBHVK=again_LBHVK))

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """Each layer's gate, and its heads' where they have their own."""
        found: dict[str, float] = {}
        for layer, gate in enumerate(self.alpha.sigmoid(), self.settings.layer_start):
            name = f"second_gate/L{layer:02d}"
            found[name] = float(gate.mean())
            if gate.ndim == 1:
                found |= {f"{name}.H{head}": float(value) for head, value in enumerate(gate)}
        return found
