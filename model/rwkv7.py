"""RWKV-7 ("x070") with carried state, masks and mechanisms, under the official parameter names.

Letters: B batch, T time, C width, V vocabulary (of logits) or value channels (of a state), K key
channels, L layers, H heads.

A masked position (mask False) is an identity step: it changes no state and both token shifts look
through it, wherever it stands. What the model puts out there is finite and means nothing.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import ModelConfig
from model.layers import ChannelMix, Embedding, Linear, Norm, Positions, TimeMix, shift, take
from model.mechanisms.acting import Acting, Part
from model.state import LayerState, State


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
        carried: LayerState,
        positions: Positions | None,
        backend: str,
        replaced: Mapping[Part, nn.Module] | None = None,
    ) -> tuple[Tensor, Tensor, LayerState]:
        """Mix over time and channels; gives the stream, layer 0's values and what to carry on."""
        instead = replaced or {}
        att, ffn = instead.get("att", self.att), instead.get("ffn", self.ffn)
        mask_BT = None if positions is None else positions.mask_BT
        if self.ln0 is not None:
            x_BTC = self.ln0(x_BTC)
        h_BTC = self.ln1(x_BTC)
        previous_BTC, att_shift_BC = shift(h_BTC, carried.att_shift_BC, positions)
        out_BTC, v_first_BTC, wkv_BHVK = att(
            h_BTC, previous_BTC, v_first_BTC, carried.wkv_BHVK, mask_BT, backend
        )
        x_BTC = x_BTC + out_BTC
        h_BTC = self.ln2(x_BTC)
        previous_BTC, ffn_shift_BC = shift(h_BTC, carried.ffn_shift_BC, positions)
        x_BTC = x_BTC + ffn(h_BTC, previous_BTC)
        return x_BTC, v_first_BTC, LayerState(wkv_BHVK, att_shift_BC, ffn_shift_BC)


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
        self._replaced: dict[int, dict[Part, nn.Module]] = {}
        self.emb = Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.ln_out = Norm(config.width)
        self.head = Linear(config.width, config.vocab_size)

    def attach(self, acting: Sequence[Acting]) -> None:
        """Let mechanisms' own time or channel mixes stand in for the layers', in every pass.

        Their parameters stay theirs: they are none of this model's.

        Raises:
            ValueError: where two stand in for one part, or one was made for another model.
        """
        replaced: dict[int, dict[Part, nn.Module]] = {}
        for each in acting:
            each.require(self.config)
            for (layer, part), module in each.replaced().items():
                if part in replaced.setdefault(layer, {}):
                    raise ValueError(f"one mechanism may replace layer {layer}'s {part}, got two")
                replaced[layer][part] = module
        self._replaced = replaced

    def forward(
        self,
        tokens_BT: Tensor,
        state: State | None = None,
        mask_BT: Tensor | None = None,
        acting: Sequence[Acting] = (),
    ) -> tuple[Tensor, State]:
        """Logits at every position, and the state after the last: `project(hidden(...))`.

        Args:
            tokens_BT: token ids.
            state: what was read before; None is nothing.
            mask_BT: bool, False where a position is padding; None is all valid.
            acting: mechanisms that act on this pass, which then is the whole prompt.

        Returns:
            logits_BTV, and the state to carry on from.

        Raises:
            ValueError: for a state, a mask or a mechanism that does not fit.
        """
        x_BTC, state = self.hidden(tokens_BT, state, mask_BT, acting)
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
        acting: Sequence[Acting] = (),
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
        for each in acting:
            each.require(self.config)
        if tokens_BT.shape[1] == 0:
            acting = ()
        x_BTC = self.emb(tokens_BT)
        for each in acting:
            x_BTC, mask_BT = each.prompt(x_BTC, mask_BT)
        positions = None if mask_BT is None else Positions.of(mask_BT)
        once = partial(self._read, x_BTC, positions, acting, state)
        for each in reversed(acting):
            once = partial(each.read, once)
        return once(state)

    def _read(
        self,
        x_BTC: Tensor,
        positions: Positions | None,
        acting: Sequence[Acting],
        given: State,
        state: State,
    ) -> tuple[Tensor, State]:
        """Read embedded tokens once, from `state`; rows with nothing to read keep `given`."""
        for each in acting:
            state = each.initial_state(state)
        if state is not given and positions is not None:
            state = given.where(positions.last_B == 0, state)
        v_first_BTC = None
        carried = list(map(LayerState, *(part.unbind() for part in vars(state).values())))
        for layer, block in enumerate(self.blocks):
            last_BC = partial(_last_valid, x_BTC, positions)
            for each in acting:
                added_BHVK = each.before_layer(layer, carried, last_BC)
                carried[layer] = _seeded(carried[layer], added_BHVK, positions)
            replaced = self._replaced.get(layer)
            inputs = (x_BTC, v_first_BTC, carried[layer], positions, self.wkv_backend, replaced)
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
    carried: LayerState, seed_BHVK: Tensor | None, positions: Positions | None
) -> LayerState:
    """Add the seed; a row with nothing to read keeps its state as it is."""
    if seed_BHVK is None:
        return carried
    if positions is not None:
        empty_B111 = (positions.last_B == 0)[:, None, None, None]
        seed_BHVK = seed_BHVK.masked_fill(empty_B111, 0.0)
    return carried._replace(wkv_BHVK=carried.wkv_BHVK + seed_BHVK)
