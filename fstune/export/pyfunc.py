"""A confirmed winner as MLflow's pyfunc loads it: texts in, what the model writes after them out.

MLflow keeps a copy of this file and of the package `model` with the weights, and runs both when the
model is loaded: beside MLflow that takes PyTorch, safetensors and RWKV's tokenizer, and not fstune.
"""

import json
from pathlib import Path
from typing import Any

import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from torch import Tensor

from model.checkpoint import load, load_mechanism
from model.generation import Decoding, generate
from model.tokenizer import for_vocabulary

MAX_NEW_TOKENS = 64
"""Where the task does not say how much to write."""


class Winner(PythonModel):
    """Mechanisms act on the prompt, as they did in training; answers come from the state."""

    def load_context(self, context: Any) -> None:
        description = Path(context.artifacts["description"])
        self.description: dict[str, Any] = json.loads(description.read_text())
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load(context.artifacts["weights"], device=str(self.device)).eval()
        config = self.model.config
        self.tokenizer = for_vocabulary(config.vocab_size, self.description["tokenizer"])
        self.acting = [
            load_mechanism(context.artifacts[name], config, str(self.device))[1]
            for name in self.description["mechanisms"]
        ]
        self.model.attach(self.acting)

    def predict(
        self, context: Any, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """What the model writes after each text, the most likely token each time.

        It ends as the task's answers do, or after `max_new_tokens`.

        Raises:
            ValueError: for an empty text.
        """
        stop = tuple(map(tuple, self.description["stop"]))
        decoding = Decoding(self.description["max_new_tokens"] or MAX_NEW_TOKENS, stop)
        answers = []
        for text in model_input:
            with torch.inference_mode(), self._compute():
                x_1TC, state = self._read(text)
                (answer,) = generate(self.model, x_1TC[:, -1], state, decoding)
            answers.append(self.tokenizer.decode(answer))
        return answers

    def logits(self, text: str) -> Tensor:
        """Logits [T, V] at each token of a text that is read as a prompt, in float32.

        What a task with its targets inside the prompt scores. Reached by
        `loaded.unwrap_python_model().logits(text)`.
        """
        with torch.inference_mode(), self._compute():
            x_1TC, _ = self._read(text)
            return self.model.project(x_1TC[0]).float()

    def _compute(self) -> Any:
        enabled = self.description["precision"] == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _read(self, text: str) -> Any:
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ValueError("a text has at least one character, got an empty one")
        tokens_1T = torch.tensor([tokens], device=self.device)
        return self.model.hidden(tokens_1T, acting=self.acting)


set_model(Winner())
