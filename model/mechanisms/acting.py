"""What acts in a model: a mechanism's parameters, and what it does while a prompt is read.

`RWKV7.hidden` asks in this order; each of several mechanisms in turn. Where nothing acts, nothing
is asked, so that a model without mechanisms is the official one to the bit.

    prompt          the embedded prompt, before anything is read
    read            how often, and from which state, the prompt is read
    initial_state   the state that a reading begins from
    before_layer    what a layer's WKV state has added before the layer reads the prompt
    replaced        a time mix or channel mix that stands in for the layer's own, in every pass

A row of a batch with nothing to read keeps its state whatever these do.

Letters: B batch, T time, C width, H heads, V value channels (rows), K key channels (columns).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from model.config import ModelConfig
from model.state import LayerState, State

Read: TypeAlias = Callable[[State], tuple[Tensor, State]]
"""Reads the prompt from a state: final hidden values [B, T, C], and the state after it."""

Part: TypeAlias = Literal["att", "ffn"]
"""A layer's time mix or channel mix, by its official name."""


_LEAST_MEAN_SQUARE = 1e-12


class Acting(nn.Module):
    """A mechanism in a model; its parameters are float32 and beside the model's own.

    Attributes:
        config: shapes of the model.
        settings: the mechanism's.
        readings: how often the prompt's tokens are read; for counting tokens.
    """

    readings = 1

    def __init__(self, config: ModelConfig, settings: Any) -> None:
        super().__init__()
        self.config = config
        self.settings = settings

    def require(self, config: ModelConfig) -> None:
        """Raise a ValueError where this was made for other shapes than the model's."""
        for name in ("num_layers", "num_heads", "width"):
            ours, wanted = getattr(self.config, name), getattr(config, name)
            if ours != wanted:
                raise ValueError(
                    f"what acts in the model must have its {name}, {wanted}, got {ours}"
                )

    def read(self, once: Read, state: State) -> tuple[Tensor, State]:
        """Read the prompt, by one call of `once` or several."""
        return once(state)

    def initial_state(self, state: State) -> State:
        """The state that a reading begins from, given the explicit one."""
        return state

    def prompt(self, x_BTC: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The embedded prompt and its mask; of another length only if nothing is scored in it."""
        return x_BTC, mask_BT

    def before_layer(
        self,
        layer: int,
        carried: Sequence[LayerState],
        last_BC: Callable[[], Tensor],
    ) -> Tensor | None:
        """What is added to a layer's WKV state [B, H, V, K] before it reads; None for nothing.

        Args:
            layer: 0-based; the layers below have read the prompt.
            carried: what each layer begins from, or has come to.
            last_BC: gives the layer's input at each row's last valid position.
        """
        return None

    def replaced(self) -> Mapping[tuple[int, Part], nn.Module]:
        """What stands in for a layer's own time or channel mix, with the same `forward`.

        Modules of this one's, so that their parameters are the mechanism's. They act in every pass
        of the model that this was attached to (`RWKV7.attach`), answers included.
        """
        return {}

    def values(self) -> dict[str, float]:
        """Quantities to look at as they are now, by name: `gate/L07`, `gate/L07.H3`."""
        return {}

    def observed(self, state: State) -> Iterable[tuple[str, Tensor]]:
        """Quantities by name to look at beside the state after some prompts; means are kept."""
        return ()


def layers_from(config: ModelConfig, layer_start: int) -> int:
    """How many layers a model has from `layer_start` on.

    Raises:
        ValueError: where it has none.
    """
    if layer_start >= config.num_layers:
        raise ValueError(
            "layer_start < num_layers must hold, "
            f"got layer_start={layer_start}, num_layers={config.num_layers}"
        )
    return config.num_layers - layer_start


def scaled_to_one(state_HVK: Tensor) -> Tensor:
    """States [..., V, K] scaled to root mean square 1 over rows and columns; an empty one stays."""
    # Clamped under the root: the root's slope at an empty state is infinite.
    mean_square_H11 = state_HVK.square().mean((-2, -1), keepdim=True)
    return state_HVK / mean_square_H11.clamp_min(_LEAST_MEAN_SQUARE).sqrt()


def by_layer(quantity: str, values: Iterable[tuple[int, Tensor]]) -> dict[str, float]:
    """A quantity of each layer by name, and of each head where there is one for each.

    Args:
        quantity: its name.
        values: layers with a number each, or one for each head [H].
    """
    found: dict[str, float] = {}
    for layer, value in values:
        name = f"{quantity}/L{layer:02d}"
        found[name] = float(value.mean())
        if value.ndim == 1:
            found |= {f"{name}.H{head}": float(each) for head, each in enumerate(value)}
    return found
