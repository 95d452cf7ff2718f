"""RWKV-7 ("x070") with carried state, masks and Future-Seed, under the official parameter names.

Letters: B batch, T time, C width, V vocabulary (of logits) or value channels (of a state), K key
channels, L layers, H heads.

A masked position (mask False) is an identity step: it changes no state and both token shifts look
through it, wherever it stands. What the model puts out there is finite and means nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import FutureSeed, ModelConfig
from model.future_seed import Gates, seed_state
from model.layers import ChannelMix, Embedding, Linear, Norm, Positions, TimeMix, shift, take


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


class _LayerState(NamedTuple):
    wkv_BHVK: Tensor
    att_shift_BC: Tensor
    ffn_shift_BC: Tensor


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln0 = Norm(config.width) if layer == 0 else None
        self.ln1 = Norm(config.width)
        self.ln2 = Norm(config.width)
        self.att = TimeMix(config, layer)
        self.ffn = ChannelMix(config)

    def forward(
        self,
        x_BTC: Tensor,
        v_first_BTC: Tensor | None,
        carried: _LayerState,
        positions: Positions | None,
        backend: str,
    ) -> tuple[Tensor, Tensor, _LayerState]:
        """Mix over time and channels; gives the stream, layer 0's values and what to carry on."""
        mask_BT = None if positions is None else positions.mask_BT
        if self.ln0 is not None:
            x_BTC = self.ln0(x_BTC)
        h_BTC = self.ln1(x_BTC)
        previous_BTC, att_shift_BC = shift(h_BTC, carried.att_shift_BC, positions)
        out_BTC, v_first_BTC, wkv_BHVK = self.att(
            h_BTC, previous_BTC, v_first_BTC, carried.wkv_BHVK, mask_BT, backend
        )
        x_BTC = x_BTC + out_BTC
        h_BTC = self.ln2(x_BTC)
        previous_BTC, ffn_shift_BC = shift(h_BTC, carried.ffn_shift_BC, positions)
        x_BTC = x_BTC + self.ffn(h_BTC, previous_BTC)
        return x_BTC, v_first_BTC, _LayerState(wkv_BHVK, att_shift_BC, ffn_shift_BC)


class RWKV7(nn.Module):
    """The model; made with zeros, filled by `model.checkpoint.load` or `model.initial.initialise`.

    Attributes:
        config: its shapes.
        wkv_backend: how the recurrence is computed, see `model.wkv.wkv7`.
        checkpoint_layers: whether a layer's inner values are computed again for its gradients
            instead of kept: less memory for about a third more time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wkv_backend = "auto"
        self.checkpoint_layers = False
        self.emb = Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.ln_out = Norm(config.width)
        self.head = Linear(config.width, config.vocab_size)

    def forward(
        self,
        tokens_BT: Tensor,
        state: State | None = None,
        mask_BT: Tensor | None = None,
        future_seed: FutureSeed | None = None,
        gates: Gates | None = None,
    ) -> tuple[Tensor, State]:
        """Logits at every position, and the state after the last: `project(hidden(...))`.

        Args:
            tokens_BT: token ids.
            state: what was read before; None is nothing.
            mask_BT: bool, False where a position is padding; None is all valid.
            future_seed: settings of Future-Seed, where this pass is the whole prompt; None is off.
            gates: logits of its gates; None gives them their initial values.

        Returns:
            logits_BTV, and the state to carry on from.

        Raises:
            ValueError: for a state, mask or gates that do not fit.
        """
        x_BTC, state = self.hidden(tokens_BT, state, mask_BT, future_seed, gates)
        return self.project(x_BTC), state

    def project(self, x_C: Tensor) -> Tensor:
        """Logits [..., V] of the final hidden values [..., C]."""
        logits_V: Tensor = self.head(x_C)
        return logits_V

    def hidden(
        self,
        tokens_BT: Tensor,
        state: State | None = None,
        mask_BT: Tensor | None = None,
        future_seed: FutureSeed | None = None,
        gates: Gates | None = None,
    ) -> tuple[Tensor, State]:
        """Final hidden values [B, T, C], after ln_out; arguments as of `forward`."""
        batch_size = tokens_BT.shape[0]
        if state is None:
            weight = self.emb.weight
            state = State.zeros(self.config, batch_size, weight.device, weight.dtype)
        state.require(self.config, batch_size)
        if mask_BT is not None and (mask_BT.dtype, mask_BT.shape) != (torch.bool, tokens_BT.shape):
            raise ValueError(
                f"mask_BT must be bool of shape {tuple(tokens_BT.shape)}, "
                f"got {mask_BT.dtype} of shape {tuple(mask_BT.shape)}"
            )
        positions = None if mask_BT is None else Positions.of(mask_BT)
        if future_seed is not None:
            gates = gates if gates is not None else Gates(self.config, future_seed)
            gates.require(self.config, future_seed)
        if tokens_BT.shape[1] == 0:
            future_seed = None

        x_BTC = self.emb(tokens_BT)
        v_first_BTC = None
        carried = list(map(_LayerState, *(part.unbind() for part in vars(state).values())))
        for layer, block in enumerate(self.blocks):
            if future_seed is not None and gates is not None and layer >= future_seed.layer_start:
                below_BHVK = carried[layer - 1].wkv_BHVK
                x_last_BC = _last_valid(x_BTC, positions)
                seed_BHVK = seed_state(gates, future_seed, layer, below_BHVK, x_last_BC)
                carried[layer] = _seeded(carried[layer], seed_BHVK, positions)
            inputs = (x_BTC, v_first_BTC, carried[layer], positions, self.wkv_backend)
            if self.checkpoint_layers and torch.is_grad_enabled():
                outputs = checkpoint(block, *inputs, use_reentrant=False)
            else:
                outputs = block(*inputs)
            x_BTC, v_first_BTC, carried[layer] = outputs
        parts = (torch.stack(part) for part in zip(*carried, strict=True))
        return self.ln_out(x_BTC), State(*parts)


def _last_valid(x_BTC: Tensor, positions: Positions | None) -> Tensor:
    """Input at each row's last valid position; at the first of a row that has none."""
    if positions is None:
        return x_BTC[:, -1]
    return take(x_BTC, (positions.last_B[:, None] - 1).clamp_min(0)).squeeze(1)


def _seeded(
    carried: _LayerState, seed_BHVK: Tensor | None, positions: Positions | None
) -> _LayerState:
    """Add the seed; a row with nothing to read keeps its state as it is."""
    if seed_BHVK is None:
        return carried
    if positions is not None:
        empty_B111 = (positions.last_B == 0)[:, None, None, None]
        seed_BHVK = seed_BHVK.masked_fill(empty_B111, 0.0)
    return carried._replace(wkv_BHVK=carried.wkv_BHVK + seed_BHVK)
