"""The learned state: each layer starts the prompt from a trained state, the same for every prompt.

For layer i >= layer_start, with P_i a parameter [H, V, K] that starts at 0:

    S_0(i) = explicit initial state(i) + P_i

Known as state tuning of RWKV models (BlinkDL/RWKV-LM, RWKV-PEFT). It reads no token twice and says
nothing of the prompt at hand: what it gains, a second look need not have.

Letters: L layers, H heads, V value channels (rows), K key channels (columns).
"""

from dataclasses import replace

import torch
from torch import nn

from model.config import ModelConfig
from model.mechanisms.acting import Acting, by_layer, layers_from
from model.mechanisms.learned_state.settings import LearnedState
from model.state import State


class States(Acting):
    """The trained states, float32; parameter `state` [seeded layers, H, V, K].

    Raises:
        ValueError: where `layer_start` leaves no layer.
    """

    def __init__(self, config: ModelConfig, settings: LearnedState) -> None:
        super().__init__(config, settings)
        L, H, D = layers_from(config, settings.layer_start), config.num_heads, config.head_size
        self.state = nn.Parameter(torch.zeros(L, H, D, D))

    def initial_state(self, state: State) -> State:
        above = self.settings.layer_start
        added_LBHVK = nn.functional.pad(
            self.state.to(state.wkv_LBHVK).unsqueeze(1), (0, 0, 0, 0, 0, 0, 0, 0, above, 0)
        )
        return replace(state, wkv_LBHVK=state.wkv_LBHVK + added_LBHVK)

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """The norm of each layer's state."""
        norms = (state_HVK.norm() for state_HVK in self.state)
        return by_layer("learned_state", enumerate(norms, self.settings.layer_start))
