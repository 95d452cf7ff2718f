"""Written answers against full forward passes over everything written so far."""

import numpy as np
import pytest
import torch
from model_cases import random_model, random_tokens

from model.future_seed import FutureSeed, Gates
from model.generation import Decoding, generate

MODEL = random_model(dtype=torch.float64)
SEED = FutureSeed(alpha=1.0, norm=True)
PROMPTS = [random_tokens(1, length, seed=length) for length in (3, 17, 40)]


def read(prompts, future_seed=None, model=MODEL):
    """Last hidden values and states of right-padded prompts."""
    longest = max(prompt.shape[1] for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : prompt.shape[1]] = prompt
        mask[row, : prompt.shape[1]] = True
    acting = [Gates(model.config, future_seed)] if future_seed else []
    with torch.no_grad():
        x, state = model.hidden(tokens, mask_BT=mask, acting=acting)
    last = torch.stack([x[row, prompt.shape[1] - 1] for row, prompt in enumerate(prompts)])
    return last, state


def by_hand(prompt, future_seed, length):
    """The most likely token after the prompt and all tokens so far, again and again."""
    acting = [Gates(MODEL.config, future_seed)] if future_seed else []
    written = []
    with torch.no_grad():
        logits, state = MODEL(prompt, acting=acting)
        best = int(logits[0, -1].argmax())
        while len(written) < length:
            written.append(best)
            logits, _ = MODEL(torch.tensor([written]), state=state)
            best = int(logits[0, -1].argmax())
    return tuple(written)


@pytest.mark.parametrize("future_seed", [None, SEED], ids=["off", "on"])
def test_greedy_is_the_argmax_of_teacher_forcing(future_seed):
    last, state = read(PROMPTS, future_seed)
    found = generate(MODEL, last, state, Decoding(12))
    assert found == [by_hand(prompt, future_seed, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_row_does_not_depend_on_the_rows_beside_it(temperature):
    decoding = Decoding(9, temperature=temperature, top_p=0.9)
    seeds = [(5, row) for row in range(len(PROMPTS))]
    together = generate(MODEL, *read(PROMPTS), decoding, seeds)
    alone = [
        generate(MODEL, *read([prompt]), decoding, [seed])[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone


def test_an_answer_ends_at_its_first_stop_and_the_others_go_on():
    whole = generate(MODEL, *read(PROMPTS), Decoding(10))
    stop = whole[1][3:5]
    found = generate(MODEL, *read(PROMPTS), Decoding(10, stop=(stop, (10**6,))))
    for answer, without in zip(found, whole, strict=True):
        places = [i for i in range(9) if without[i : i + 2] == stop]
        assert answer == (without[: places[0]] if places else without)
    assert len(found[1]) <= 3


def test_a_single_token_may_end_an_answer_before_it_begins():
    first = generate(MODEL, *read(PROMPTS[:1]), Decoding(1))[0]
    assert generate(MODEL, *read(PROMPTS[:1]), Decoding(5, stop=(first,))) == [()]


def test_drawn_tokens_have_the_probabilities_of_the_softmax():
    last, state = read(PROMPTS[:1])
    draws, temperature = 4000, 0.7
    rows = torch.zeros(draws, dtype=torch.int64)
    decoding = Decoding(1, temperature=temperature)
    found = generate(MODEL, last[rows], state.take(rows), decoding, [(n,) for n in range(draws)])
    probability = torch.softmax(MODEL.project(last[0]).double() / temperature, 0).detach().numpy()
    count = np.bincount([answer[0] for answer in found], minlength=len(probability))
    expected = draws * probability
    likely = expected >= 5
    chi_square = ((count - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = likely.sum()
    # Mean and variance of chi-square; five standard deviations.
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)
    assert likely.sum() >= 5


def test_only_the_nucleus_is_drawn():
    last, state = read(PROMPTS[:1])
    rows = torch.zeros(300, dtype=torch.int64)
    probability = torch.softmax(MODEL.project(last[0]).double(), 0).detach()
    order = probability.argsort(descending=True)
    top_p = float(probability[order[:3]].sum()) - 1e-9
    decoding = Decoding(1, temperature=1.0, top_p=top_p)
    found = generate(MODEL, last[rows], state.take(rows), decoding, [(n,) for n in range(300)])
    assert {answer[0] for answer in found} == set(order[:3].tolist())


def test_seeds_decide_what_is_drawn():
    decoding = Decoding(8, temperature=1.0)
    one, again, other = (
        generate(MODEL, *read(PROMPTS[:1]), decoding, [seed]) for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens >= 1"),
        ({"stop": ((),)}, "a stop has at least one token"),
        ({"temperature": -1.0}, "temperature >= 0"),
        ({"top_p": 0.0}, "0 < top_p <= 1"),
    ],
)
def test_impossible_settings_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        Decoding(**{"max_new_tokens": 4, **changes})


def test_drawing_needs_a_seed_for_each_row():
    with pytest.raises(ValueError, match="each of 3 rows is needed to draw, got none"):
        generate(MODEL, *read(PROMPTS), Decoding(1, temperature=1.0))
