"""AdamW (Loshchilov and Hutter, arXiv 1711.05101), torch's: weight decay on matrices only."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model.optimizers.optimizer import Optimizer, Shared, is_matrix

if TYPE_CHECKING:
    import torch

    from model.rwkv7 import RWKV7


class AdamW(Optimizer[None]):
    name = "adamw"

    def build(
        self, model: "RWKV7", shared: Shared, settings: None
    ) -> "Sequence[torch.optim.Optimizer]":
        del settings
        return [adamw(model.named_parameters(), shared)]

    def state_bytes(self, name: str, shape: Sequence[int]) -> int:
        """Two moments in float32."""
        del name, shape
        return 8


def adamw(parameters: Any, shared: Shared) -> "torch.optim.Optimizer":
    """AdamW over named parameters."""
    import torch

    matrices: list[torch.Tensor] = []
    vectors: list[torch.Tensor] = []
    for name, parameter in parameters:
        (matrices if is_matrix(name, parameter.shape) else vectors).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": shared.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, shared.lr, shared.betas, fused=True)
