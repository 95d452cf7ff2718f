"""The learned state against explicit states."""

import math

import pytest
import torch
from model_cases import SMALL, random_model, random_tokens

from model.mechanisms.learned_state.settings import LearnedState
from model.mechanisms.learned_state.states import States
from model.state import State


def moved_states(layer_start):
    states = States(SMALL, LearnedState(layer_start))
    with torch.no_grad():
        states.state.normal_(generator=torch.Generator().manual_seed(1))
    return states


@torch.no_grad()
def test_it_is_added_to_the_explicit_state_of_its_layers_in_every_row():
    states, tokens = moved_states(layer_start=1), random_tokens(2, 20)
    model = random_model(dtype=torch.float64)
    _, explicit = model(random_tokens(2, 5, seed=1))
    wkv_LBHVK = explicit.wkv_LBHVK.clone()
    for row in range(2):
        wkv_LBHVK[1, row] += states.state[0].double()
        wkv_LBHVK[2, row] += states.state[1].double()
    by_hand = State(wkv_LBHVK, explicit.att_shift_LBC, explicit.ffn_shift_LBC)
    wanted, wanted_state = model(tokens, by_hand)
    logits, state = model(tokens, explicit, acting=[states])
    assert torch.equal(logits, wanted)
    assert torch.equal(state.wkv_LBHVK, wanted_state.wkv_LBHVK)


@torch.no_grad()
def test_before_training_it_is_nothing():
    model, tokens = random_model(), random_tokens(2, 20)
    logits, _ = model(tokens, acting=[States(SMALL, LearnedState())])
    assert torch.equal(logits, model(tokens)[0])


def test_its_values_are_the_norms_by_layer():
    states = moved_states(layer_start=2)
    norm = math.sqrt(sum(entry**2 for entry in states.state.flatten().tolist()))
    assert states.values() == {"learned_state/L02": pytest.approx(norm, rel=1e-6)}
