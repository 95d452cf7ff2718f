"""The settings of an exported model as `transformers` keeps them; no torch.

`export_folder` copies this file beside the model. It imports `model` and `transformers` alone.
"""

from typing import Any

from transformers import PreTrainedConfig

from model.config import FutureSeed, ModelConfig, Schedule


class RWKV7Config(PreTrainedConfig):  # type: ignore[misc]  # transformers has no types here
    """Shapes of the model, and Future-Seed's settings, as in `model.config`."""

    model_type = "rwkv7_future_seed"

    shapes: dict[str, int] | None = None
    """Fields of `ModelConfig`."""
    future_seed: dict[str, Any] | None = None
    """Fields of `FutureSeed`; None for a model without."""
    use_cache: bool = True
    tie_word_embeddings: bool = False

    def model_config(self) -> ModelConfig:
        """The shapes; those of a model of one layer where none are given."""
        return ModelConfig(**(self.shapes or {"num_layers": 1, "width": 64, "vocab_size": 256}))

    def mechanism(self) -> FutureSeed | None:
        """Future-Seed's settings, if the model has it."""
        if self.future_seed is None:
            return None
        schedule = Schedule(**self.future_seed["schedule"])
        return FutureSeed(**{**self.future_seed, "schedule": schedule})

    @property
    def vocab_size(self) -> int:
        return self.model_config().vocab_size

    @property
    def hidden_size(self) -> int:
        return self.model_config().width

    @property
    def num_hidden_layers(self) -> int:
        return self.model_config().num_layers

    @property
    def num_attention_heads(self) -> int:
        return self.model_config().num_heads
