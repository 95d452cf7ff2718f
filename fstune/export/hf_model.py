"""RWKV-7 with mechanisms behind the face of `transformers`: a thin shell around `model.rwkv7`.

`folder` copies this file, and of `model` what it imports. The model's cache is its state.

Letters: B batch, T time, C width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from fstune.export.hf_config import RWKV7Config
from fstune.export.hf_mechanisms import build
from model.mechanisms.acting import Acting
from model.rwkv7 import RWKV7
from model.state import State


@dataclass
class RWKV7Output(ModelOutput):  # type: ignore[misc]  # transformers has no types here
    """What a pass gives."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    """[B, T, V], or of the last positions that were asked for."""
    state: State | None = None
    """What was read; the next pass goes on from it."""


class RWKV7ForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # as above
    """The model and what acts in it; made with zeros, filled by `from_pretrained`."""

    config_class = RWKV7Config
    base_model_prefix = "rwkv7"
    _is_stateful = True
    _keep_in_fp32_modules_strict = frozenset({"acting"})
    _no_split_modules = ("Block",)

    def __init__(self, config: RWKV7Config) -> None:
        super().__init__(config)
        self.rwkv7 = RWKV7(config.model_config())
        self.put_in_place(
            {
                name: build(name, config.model_config(), settings)
                for name, settings in (config.mechanisms or {}).items()
            }
        )
        self.post_init()

    def put_in_place(self, acting: dict[str, Acting]) -> None:
        """Let mechanisms act in the model."""
        self.acting = torch.nn.ModuleDict(acting)
        self.rwkv7.attach(list(acting.values()))

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: a model from scratch is `model.initial`'s affair."""

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.rwkv7.emb

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.rwkv7.head

    def forward(  # noqa: PLR0913, PLR0917 - as transformers has it
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        state: State | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **rest: Any,
    ) -> RWKV7Output | tuple[Any, ...]:
        """Logits, and the state after the last token.

        Over a prompt a mechanism may let each position know the whole prompt, what follows it
        included. So what belongs to the prompt has to be said: without `prompt_mask`, none acts,
        and the logits are those of a model that reads from left to right.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 0 where a position is padding, on either side.
            prompt_mask: [B, T], other than 0 where a token belongs to the prompt, which is read
                first, with the mechanisms; the others are read from the state that it leaves.
            state: what was read before.
            labels: [B, T]; position t is compared with the logits at t - 1. -100 is left out.
            logits_to_keep: so many of the last positions only; 0 is all.
            use_cache: False leaves the state out of the result.
            return_dict: False gives a tuple.
            **rest: what `transformers` hands over to every model; none of it has an effect.

        Raises:
            ValueError: for a `state` or a mask that does not fit, and for `labels` of prompt tokens
                where a mechanism would show them to the model.
        """
        mask_BT = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask_BT = attention_mask.bool()
        prompt_BT = None
        if self.config.mechanisms and prompt_mask is not None:
            prompt_BT = prompt_mask.bool() if mask_BT is None else prompt_mask.bool() & mask_BT
        if prompt_BT is None or not bool(prompt_BT.any()):
            x_BTC, state = self.rwkv7.hidden(input_ids, state, mask_BT)
        else:
            x_BTC, state = self._read(input_ids, state, mask_BT, prompt_BT)
        logits_BTV = self.rwkv7.project(x_BTC[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            if prompt_BT is not None and bool((labels[prompt_BT] != -100).any()):
                raise ValueError(
                    "labels must be -100 where prompt_mask is set: a mechanism has shown the model "
                    "those tokens"
                )
            loss = self.loss_function(
                logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size
            )
        kept = None if use_cache is False else state
        output = RWKV7Output(loss=loss, logits=logits_BTV, state=kept)
        return output.to_tuple() if return_dict is False else output

    def _read(
        self, tokens_BT: Tensor, state: State | None, mask_BT: Tensor | None, prompt_BT: Tensor
    ) -> tuple[Tensor, State]:
        """The prompt with mechanisms, then the rest from the state: hidden values, state."""
        rest_BT = ~prompt_BT if mask_BT is None else mask_BT & ~prompt_BT
        # As they are now: `peft` puts wrappers in their place.
        acting = cast("list[Acting]", list(self.acting.values()))
        if not bool(rest_BT.any()):
            return self.rwkv7.hidden(tokens_BT, state, mask_BT, acting)
        # Each pass leaves out the end in which no row has anything for it.
        length = tokens_BT.shape[1]
        end = int(prompt_BT.any(0).nonzero().max()) + 1
        start = int(rest_BT.any(0).nonzero().min())
        x_BTC, state = self.rwkv7.hidden(tokens_BT[:, :end], state, prompt_BT[:, :end], acting)
        rest_x_BTC, state = self.rwkv7.hidden(tokens_BT[:, start:], state, rest_BT[:, start:])
        x_BTC = pad(x_BTC, (0, 0, 0, length - end))
        return torch.where(rest_BT[:, :, None], pad(rest_x_BTC, (0, 0, start, 0)), x_BTC), state

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        state: State | None = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        prompt_mask: Tensor | None = None,
        **rest: Any,
    ) -> dict[str, Any]:
        """The whole prompt first, with mechanisms unless `prompt_mask` is all 0; then each token.

        The state is carried on under `use_cache=False` too.

        Raises:
            ValueError: for prompts that are padded on the right: what a pad puts out means nothing;
                and where there is no state after the first pass.
        """
        kept = {"logits_to_keep": rest.get("logits_to_keep", 0), "use_cache": True}
        if is_first_iteration:
            if attention_mask is not None:
                attention_mask = attention_mask[:, -input_ids.shape[1] :]
                if not bool(attention_mask[:, -1].all()):
                    raise ValueError(
                        "prompts must be padded on the left: tokenizer.padding_side = 'left'"
                    )
            if prompt_mask is None and state is None:
                prompt_mask = torch.ones_like(input_ids)
            masks = {"attention_mask": attention_mask, "prompt_mask": prompt_mask}
            return {"input_ids": input_ids, "state": state, **masks, **kept}
        if state is None:
            raise ValueError("this model generates from its state, and there is none")
        return {"input_ids": input_ids[:, -1:], "state": state, **kept}

    def _update_model_kwargs_for_generation(
        self, outputs: RWKV7Output, model_kwargs: dict[str, Any], **rest: Any
    ) -> dict[str, Any]:
        """Carry the state on; from 5.24 on `transformers` carries an output `cache` alone."""
        carried: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, **rest
        )
        return carried | {"state": outputs.state}

    def _reorder_cache(self, state: State, rows: Tensor) -> State:
        """The states of a beam's survivors."""
        return state.take(rows)
