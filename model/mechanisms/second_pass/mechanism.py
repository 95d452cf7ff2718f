"""The second pass as a mechanism: what its settings come to; free of torch until it is built."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from model.config import ModelConfig, sigmoid
from model.mechanisms.mechanism import Context, Idle, Mechanism, Profile, past_the_model
from model.mechanisms.second_pass.settings import SecondPass

if TYPE_CHECKING:
    from model.mechanisms.second_pass.passes import Passes


class SecondPassMechanism(Mechanism[SecondPass]):
    """The prompt read twice, each layer beginning again from its own last state, gated."""

    name = "second_pass"
    title = "a second pass"
    summary = "the prompt is read twice; each layer begins again from its own last state, gated"
    Settings = SecondPass
    rate = "alpha_lr"
    parameters = "second_pass"

    def build(self, config: ModelConfig, settings: SecondPass) -> "Passes":
        from model.mechanisms.second_pass.passes import Passes

        return Passes(config, settings)

    def idle(self, settings: SecondPass, context: Context) -> Iterator[Idle]:
        nothing = past_the_model(settings.layer_start, context)
        if nothing is not None:
            yield nothing
        elif settings.gate != "scalar" and settings.alpha_lr == 0:
            text = "has no effect while alpha_lr is 0: it starts as the scalar gate and stays it"
            yield Idle("gate", text)

    def reach(self, settings: SecondPass, num_layers: int, steps: int) -> float:
        """The largest gate: its start if frozen, σ = 1 if it learns."""
        del num_layers, steps
        return 1.0 if settings.alpha_lr > 0 else sigmoid(settings.alpha)

    def weight(self, settings: SecondPass) -> tuple[float, ...]:
        return (not settings.detach, -settings.layer_start, settings.alpha_lr > 0)

    def profile(self, settings: SecondPass, num_layers: int) -> Profile:
        return Profile(
            title="Gates of the second pass per layer",
            caption=(
                "How much of its own last state each layer of candidate {number} begins again with,"
                " before training (hollow) and at its last rung, for every seed and head "
                "(σ(alpha), before norm)."
            ),
            quantity="second_gate",
            before=dict.fromkeys(range(settings.layer_start, num_layers), sigmoid(settings.alpha)),
            learns=settings.alpha_lr > 0,
        )

    def first_space(self, num_layers: int, new: bool) -> dict[str, dict[str, Any]]:
        del num_layers
        return {
            "alpha": {"uniform": [-4.0, 2.0] if new else [-4.0, 0.0]},
            "alpha_lr": {"choice": [0.0, 0.02 if new else 5e-4]},
            "norm": {"choice": [True, False]},
        }
