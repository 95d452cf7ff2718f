"""The learned state as a mechanism: what its settings come to; free of torch until it is built."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from model.config import ModelConfig
from model.mechanisms.learned_state.settings import LearnedState
from model.mechanisms.mechanism import Context, Idle, Mechanism, past_the_model

if TYPE_CHECKING:
    from model.mechanisms.learned_state.states import States


class LearnedStateMechanism(Mechanism[LearnedState]):
    """A trained initial WKV state per layer ("state tuning")."""

    name = "learned_state"
    title = "a learned state"
    summary = "each layer starts from a trained state, the same for every prompt (state tuning)"
    Settings = LearnedState
    rate = "lr"
    parameters = "learned_state"

    def build(self, config: ModelConfig, settings: LearnedState) -> "States":
        from model.mechanisms.learned_state.states import States

        return States(config, settings)

    def idle(self, settings: LearnedState, context: Context) -> Iterator[Idle]:
        nothing = past_the_model(settings.layer_start, context)
        if nothing is not None:
            yield nothing
        elif settings.lr == 0:
            text = "must be over 0: the states start at 0 and would stay there, got 0"
            yield Idle("lr", text, "mechanism", sure=True)

    def weight(self, settings: LearnedState) -> tuple[float, ...]:
        return (-settings.layer_start,)

    def first_space(self, num_layers: int, new: bool) -> dict[str, dict[str, Any]]:
        del num_layers
        return {"lr": {"log_uniform": [1e-3, 1e-1] if new else [1e-4, 1e-2]}}
