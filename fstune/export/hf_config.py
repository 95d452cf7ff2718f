"""The settings of an exported model as `transformers` keeps them; no torch.

`folder` copies this file beside the model. It imports `model` and `transformers` alone.
"""

from typing import Any

from transformers import PreTrainedConfig

from model.config import ModelConfig


class RWKV7Config(PreTrainedConfig):  # type: ignore[misc]  # transformers has no types here
    """Shapes of the model, and the settings of what acts in it."""

    model_type = "rwkv7_fstune"

    shapes: dict[str, int] | None = None
    """Fields of `ModelConfig`."""
    mechanisms: dict[str, dict[str, Any]] | None = None
    """Fields of each mechanism's settings, by its name; None for a model without any."""
    use_cache: bool = True
    tie_word_embeddings: bool = False

    def model_config(self) -> ModelConfig:
        """The shapes; those of a model of one layer where none are given."""
        return ModelConfig(**(self.shapes or {"num_layers": 1, "width": 64, "vocab_size": 256}))

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
