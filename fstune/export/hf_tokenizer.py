"""The project's tokenizers behind the face of `transformers`.

`export_folder` copies this file, and `model.tokenizer` with it: ids and texts are made there.
"""

from typing import Any

from transformers import PreTrainedTokenizer

from model.tokenizer import for_vocabulary

_END_OF_TEXT = "<|endoftext|>"
"""Name of World's id 0."""


class RWKVTokenizer(PreTrainedTokenizer):  # type: ignore[misc]  # transformers has no types here
    """World's vocabulary or bytes; a token's name is its bytes read as Latin-1.

    Id 0 pads, and ends a text: World has it for that, and no text has a byte 0.
    """

    model_input_names = ("input_ids", "attention_mask")
    padding_side = "left"

    def __init__(self, ids: int = 256, vocabulary: str | None = None, **rest: Any) -> None:
        """A tokenizer for a model.

        Args:
            ids: the size of its vocabulary; may be more than the tokenizer has.
            vocabulary: `world` or `bytes`; chosen by the size if None.
            **rest: settings of `PreTrainedTokenizer`.
        """
        self._tokenizer = for_vocabulary(ids, vocabulary)
        self._names = [
            self._tokenizer.spelled(token).decode("latin-1") or f"<|unused {token}|>"
            for token in range(ids)
        ]
        if self._tokenizer.name == "world":
            self._names[0] = _END_OF_TEXT
        self._ids = {name: token for token, name in enumerate(self._names)}
        for role in ("eos_token", "pad_token"):
            rest.setdefault(role, self._names[0])
        super().__init__(ids=ids, vocabulary=vocabulary, **rest)

    @property
    def vocab_size(self) -> int:
        return len(self._names)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [self._names[token] for token in self._tokenizer.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens by name."""
        return self._tokenizer.decode(self._ids[token] for token in tokens)

    def save_vocabulary(self, *_: Any, **__: Any) -> tuple[str, ...]:
        """Nothing: the vocabulary comes with the code."""
        return ()
