"""Where a mechanism may act, by small ones that each act in one place."""

import copy

import pytest
import torch
from model_cases import SMALL, random_model, random_tokens, state_parts
from torch import nn

from model.mechanisms.acting import Acting
from model.mechanisms.second_pass.passes import Passes
from model.mechanisms.second_pass.settings import SecondPass
from model.state import State

OTHER = random_model(seed=1)
PARTS = [(0, "att"), (2, "att"), (1, "ffn")]


class StandIn(Acting):
    """Another model's time or channel mix in place of a layer's own."""

    def __init__(self, layer, part):
        super().__init__(SMALL, None)
        self.layer, self.part = layer, part
        self.module = copy.deepcopy(getattr(OTHER.blocks[layer], part))

    def replaced(self):
        return {(self.layer, self.part): self.module}


class Added(Acting):
    """A fixed state more for one layer."""

    def __init__(self, layer, wkv_HVK):
        super().__init__(SMALL, None)
        self.layer, self.wkv_HVK = layer, wkv_HVK

    def before_layer(self, layer, carried, last_BC):
        return self.wkv_HVK.expand_as(carried[layer].wkv_BHVK) if layer == self.layer else None


class Prefix(Acting):
    """Trained vectors before the embedded prompt."""

    def __init__(self, vectors_TC):
        super().__init__(SMALL, None)
        self.vectors_TC = nn.Parameter(vectors_TC.clone())

    def prompt(self, x_BTC, mask_BT):
        own_BTC = self.vectors_TC.expand(len(x_BTC), -1, -1)
        if mask_BT is not None:
            mask_BT = nn.functional.pad(mask_BT, (len(self.vectors_TC), 0), value=True)
        return torch.cat([own_BTC, x_BTC], 1), mask_BT


@pytest.mark.parametrize(("layer", "part"), PARTS)
@torch.no_grad()
def test_what_stands_in_for_a_layers_part_does_so_in_prompts_and_answers(layer, part):
    tokens, answer = random_tokens(2, 20), random_tokens(2, 5, seed=1)
    by_hand = random_model()
    setattr(by_hand.blocks[layer], part, getattr(OTHER.blocks[layer], part))
    model, acting = random_model(), StandIn(layer, part)
    plain, _ = model(tokens)
    model.attach([acting])
    for wanted, found in zip(
        _two_passes(by_hand, tokens, answer), _two_passes(model, tokens, answer), strict=True
    ):
        assert torch.equal(found, wanted)
    assert not torch.equal(model(tokens)[0], plain)
    model.attach([])
    assert torch.equal(model(tokens)[0], plain)


def _two_passes(model, tokens, answer):
    prompt, state = model(tokens)
    after, state = model(answer, state)
    return prompt, after, *state_parts(state)


def test_parameters_of_a_stand_in_are_the_mechanisms_and_learn():
    model, acting = random_model(), StandIn(1, "ffn")
    names = list(model.state_dict())
    model.attach([acting])
    assert list(model.state_dict()) == names
    model(random_tokens(2, 20))[0].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in acting.parameters())
    assert all(parameter.grad is None for parameter in model.blocks[1].ffn.parameters())


def test_two_stand_ins_for_one_part_are_refused():
    model = random_model()
    model.attach([StandIn(1, "ffn"), StandIn(1, "att")])
    with pytest.raises(ValueError, match="one mechanism may replace layer 1's ffn, got two"):
        model.attach([StandIn(1, "ffn"), StandIn(1, "ffn")])


@torch.no_grad()
def test_what_several_add_to_a_layers_state_adds_up():
    model, tokens = random_model(), random_tokens(2, 20)
    one, other = (torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    start = State.zeros(SMALL, 2)
    start.wkv_LBHVK[1] = one + other
    wanted, wanted_state = model(tokens, start)
    found, state = model(tokens, acting=[Added(1, one), Added(1, other)])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(state_parts(state), state_parts(wanted_state))


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_what_is_put_before_a_prompt_is_read_before_it(padded):
    model, tokens = random_model(), random_tokens(2, 20)
    before = torch.tensor([3, 1])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    if padded:
        mask[0, :4] = False
    acting = Prefix(model.emb.weight[before])
    wanted, wanted_state = model(
        torch.cat([before.expand(2, -1), tokens], 1),
        mask_BT=torch.cat([torch.ones(2, 2, dtype=torch.bool), mask], 1),
    )
    found, state = model(tokens, mask_BT=mask if padded else None, acting=[acting])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(state_parts(state), state_parts(wanted_state))


@torch.no_grad()
def test_mechanisms_that_read_again_do_so_one_within_the_other():
    model, tokens = random_model(), random_tokens(2, 20)
    read, block = [], model.blocks[0].forward
    model.blocks[0].forward = lambda *given: read.append(1) or block(*given)
    model(tokens, acting=[Passes(SMALL, SecondPass()), Passes(SMALL, SecondPass())])
    assert len(read) == 2 * 2
