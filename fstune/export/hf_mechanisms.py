"""What acts in an exported model, by its mechanism's name.

In a folder for `transformers`, `folder` puts a file of its own in this one's place: it imports the
model's own mechanisms alone, since no registry goes along.
"""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.mechanisms.acting import Acting
from model.mechanisms.registry import get


def build(name: str, config: ModelConfig, settings: Mapping[str, Any]) -> Acting:
    """What acts in a model of these shapes, by the fields of its settings."""
    mechanism = get(name)
    return mechanism.build(config, mechanism.settings_of(settings))
