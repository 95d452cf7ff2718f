"""Future-Seed: each layer starts the prompt from a gated copy of the layer below's last state.

Letters: B batch, H heads, V value channels (rows), K key channels (columns), C width, G seeded
layers.

For layer i >= layer_start, with S_T(i-1) the state of layer i-1 after the whole prompt:

    base = S_T(i-1), without gradient if `detach`
    base = base / max(1e-6, root mean square of base over rows and columns) if `norm`
    gate = seed_scale · schedule(i) · σ(logit)
        scalar  logit = alpha_i
        head    logit = alpha_{i,h}: one sigmoid per head, not a product of two
        input   logit = alpha_i + ⟨w_i, x_last⟩/√C + b_i, x_last the layer's input (the residual
                stream) at the last valid position of the prompt
    seed = gate · base, clamped to ±clip if `clip` > 0

and the layer starts from its explicit initial state + seed. `detach` cuts the seed's gradient into
S_T(i-1) only; the gate learns either way.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.mechanisms.acting import Acting, by_layer, layers_from, scaled_to_one
from model.mechanisms.future_seed.settings import FutureSeed
from model.state import LayerState, State


class Gates(Acting):
    """The learnt logits, for the seeded layers only; float32 parameters beside the model's own.

    Parameters: `alpha` [G] (scalar, input) or [G, H] (head); for the input gate also `w` [G, C] and
    `b` [G], which start at zero.

    Raises:
        ValueError: where `layer_start` leaves no layer to seed.
    """

    def __init__(self, config: ModelConfig, settings: FutureSeed) -> None:
        super().__init__(config, settings)
        self.settings: FutureSeed = settings
        seeded = layers_from(config, settings.layer_start)
        shape = (seeded, config.num_heads) if settings.gate == "head" else (seeded,)
        self.alpha = nn.Parameter(torch.full(shape, settings.alpha, dtype=torch.float32))
        if settings.gate == "input":
            self.w = nn.Parameter(torch.zeros(seeded, config.width, dtype=torch.float32))
            self.b = nn.Parameter(torch.zeros(seeded, dtype=torch.float32))

    def before_layer(
        self, layer: int, carried: Sequence[LayerState], last_BC: Callable[[], Tensor]
    ) -> Tensor | None:
        if layer < self.settings.layer_start:
            return None
        driven = self.settings.gate == "input"
        x_last_BC = last_BC() if driven else None
        return seed_state(self, layer, carried[layer - 1].wkv_BHVK, x_last_BC)

    def logit(self, layer: int, x_last_BC: Tensor | None, like: Tensor) -> Tensor:
        """The logit at a seeded layer, to be broadcast over [B, H, V, K].

        Args:
            layer: 0-based index of the layer that receives the seed.
            x_last_BC: its input at the last valid position; None leaves the input's part out.
            like: tensor whose dtype (float32 or wider) and device the logit gets.
        """
        index = layer - self.settings.layer_start
        alpha = self.alpha[index].to(like)
        if self.settings.gate == "head":
            return alpha[:, None, None]
        if self.settings.gate == "input":
            alpha = alpha + self.b[index].to(like)
            if x_last_BC is not None:
                scale = 1.0 / math.sqrt(self.config.width)
                drive_B = (x_last_BC.to(like) * self.w[index].to(like)).sum(-1) * scale
                return (alpha + drive_B)[:, None, None, None]
        return alpha

    @torch.no_grad()
    def effective(self) -> dict[int, Tensor]:
        """seed_scale · schedule · σ(logit) by seeded layer, before norm and clip, for the record.

        Returns:
            Float32 tensors of shape [] (scalar; input, without the input's part) or [H] (head).
        """
        gates = {}
        for layer in range(self.settings.layer_start, self.config.num_layers):
            strength = self.settings.strength(layer, self.config.num_layers)
            gate = strength * self.logit(layer, None, self.alpha.float()).sigmoid()
            gates[layer] = gate.flatten() if self.settings.gate == "head" else gate
        return gates

    def values(self) -> dict[str, float]:
        """The effective gate of each seeded layer, and of its heads where they have their own."""
        return by_layer("gate", self.effective().items())

    def observed(self, state: State) -> Iterator[tuple[str, Tensor]]:
        """How large each layer's seed is beside the state that the layer ends up with [B, H]."""
        for layer in range(self.settings.layer_start, self.config.num_layers):
            below_BHVK, own_BHVK = state.wkv_LBHVK[layer - 1], state.wkv_LBHVK[layer]
            seed_BHVK = seed_state(self, layer, below_BHVK, None)
            if seed_BHVK is not None:
                ratio_BH = seed_BHVK.norm(dim=(-2, -1)) / own_BHVK.norm(dim=(-2, -1))
                yield f"seed_ratio/L{layer:02d}", ratio_BH


def seed_state(
    gates: Gates, layer: int, below_BHVK: Tensor, x_last_BC: Tensor | None
) -> Tensor | None:
    """What is added to the initial state of `layer`; None where its strength is exactly 0.

    Args:
        gates: logits of the gates, and all settings.
        layer: 0-based index of the layer that receives the seed.
        below_BHVK: state of layer - 1 after the prompt.
        x_last_BC: the layer's input at the last valid position of each row; None leaves the input
            gate's part out.
    """
    settings = gates.settings
    strength = settings.strength(layer, gates.config.num_layers)
    if strength == 0.0:
        return None
    base_BHVK = below_BHVK.detach() if settings.detach else below_BHVK
    if settings.norm:
        base_BHVK = scaled_to_one(base_BHVK)
    seed_BHVK = (strength * gates.logit(layer, x_last_BC, base_BHVK).sigmoid()) * base_BHVK
    return seed_BHVK.clamp(-settings.clip, settings.clip) if settings.clip > 0 else seed_BHVK
