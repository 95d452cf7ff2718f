"""What a model remembers of the tokens it has read, and what one of its layers does.

Letters: B batch, C width, L layers, H heads, V value channels (rows), K key channels (columns).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig


@dataclass(frozen=True)
class State:
    """What the model remembers of the tokens it has read."""

    wkv_LBHVK: Tensor
    """WKV states, row = value, column = key; float32 (float64 in a float64 model)."""
    att_shift_LBC: Tensor
    """Last valid input of each time mix."""
    ffn_shift_LBC: Tensor
    """Last valid input of each channel mix."""

    @staticmethod
    def zeros(
        config: ModelConfig,
        batch_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "State":
        """The state before the first token; `dtype` is that of the activations."""
        L, B, C, H, D = (
            config.num_layers,
            batch_size,
            config.width,
            config.num_heads,
            config.head_size,
        )
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return State(
            torch.zeros(L, B, H, D, D, device=device, dtype=wide),
            torch.zeros(L, B, C, device=device, dtype=dtype),
            torch.zeros(L, B, C, device=device, dtype=dtype),
        )

    def take(self, rows_N: Tensor) -> "State":
        """The states of these rows of the batch, in this order; a row may come several times."""
        return State(
            self.wkv_LBHVK[:, rows_N], self.att_shift_LBC[:, rows_N], self.ffn_shift_LBC[:, rows_N]
        )

    def where(self, rows_B: Tensor, other: "State") -> "State":
        """These states in the rows that are True, those of `other` in the rest."""
        return State(
            torch.where(rows_B[:, None, None, None], self.wkv_LBHVK, other.wkv_LBHVK),
            torch.where(rows_B[:, None], self.att_shift_LBC, other.att_shift_LBC),
            torch.where(rows_B[:, None], self.ffn_shift_LBC, other.ffn_shift_LBC),
        )

    def require(self, config: ModelConfig, batch_size: int) -> None:
        """Raise a ValueError where this state does not fit the model or the batch."""
        L, B, H, D = config.num_layers, batch_size, config.num_heads, config.head_size
        for name, wanted in (
            ("wkv_LBHVK", (L, B, H, D, D)),
            ("att_shift_LBC", (L, B, config.width)),
            ("ffn_shift_LBC", (L, B, config.width)),
        ):
            found = tuple(getattr(self, name).shape)
            if found != wanted:
                raise ValueError(f"state.{name} has shape {found}, {wanted} is wanted")


class LayerState(NamedTuple):
    """One layer's part of a `State`, without the axis L."""

    wkv_BHVK: Tensor
    att_shift_BC: Tensor
    ffn_shift_BC: Tensor
