"""Scores against a second way to compute them: full logits, one example at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arm_cases import CPU, SHAPES, settings

from fstune.arms import loss
from fstune.arms.evaluation import evaluate
from fstune.arms.inputs import gather
from fstune.arms.loss import Subject, token_scores
from model.config import ModelConfig
from model.future_seed import FutureSeed, Gates
from model.rwkv7 import RWKV7
from model.tokenizer import for_vocabulary
from tasks.batch import collate
from tasks.example import Example, Split
from tasks.metrics import Measures
from tasks.scoring import Generation, Prediction, Scoring

# Rounding of float32 over sums of a few dozen terms, in nats of an example.
TOLERANCE = 2e-5

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord"]


def subject(future_seed: FutureSeed | None = None, seed: int = 0, **shapes: Any) -> Subject:
    """A model in which every tensor is random, so that argmaxes differ from place to place."""
    config = ModelConfig(**SHAPES | shapes)
    model = RWKV7(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    acting = {} if future_seed is None else {"future_seed": Gates(config, future_seed)}
    return Subject(model, acting, CPU, "float32")


def measures(tested: Subject, split: Split, padded_tokens: int = 16_384) -> Measures:
    scoring, tokenizer = Scoring(), for_vocabulary(256)
    return evaluate(tested, split, tokenizer, scoring, 0, padded_tokens).measures


def rows(first: int, count: int) -> str:
    """Rows like HotpotQA's, of different lengths."""
    lines = []
    for n in range(first, first + count):
        titles = [f"{WORDS[(n + p) % 6]} {n}.{p}" for p in range(1 + n % 4)]
        row = {
            "question": f"How old is number {n}?",
            "answer": "x" * (1 + n % 5) + " years",
            "context": {"title": titles, "sentences": [[f"It is {n} years old."]] * len(titles)},
            "supporting_facts": {"title": titles[:1]},
        }
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


def hotpot(folder: Path) -> Split:
    (folder / "train.jsonl").write_text(rows(0, 8))
    (folder / "validation.jsonl").write_text(rows(100, 12))
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "validation")}
    task = {"name": "hotpot", "train_size": 4, "validation_size": 9, "files": files}
    return gather(settings(task=task), folder / "cache").evaluated


def rightcopy(folder: Path) -> Split:
    task = {"name": "rightcopy", "length": 5, "train_size": 4, "validation_size": 9}
    return gather(settings(task=task), folder / "cache").evaluated


def both(_: Path) -> Split:
    """Examples of every form in one split: an answer, targets inside, both; lengths 1 to 40."""
    generator = torch.Generator().manual_seed(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(256, (count,), generator=generator).tolist())

    return Split.from_examples(
        [
            Example(tokens(1), answer=tokens(1)),
            Example(tokens(40), answer=tokens(6)),
            Example(tokens(7), (), (0, 3, 6), tokens(3)),
            Example(tokens(12), tokens(2), (11,), tokens(1)),
            Example(tokens(2), answer=tokens(3)),
        ]
    )


SPLITS = [hotpot, rightcopy, both]
MECHANISMS = [
    None,
    FutureSeed(alpha=1.0),
    FutureSeed(alpha=2.0, gate="head", norm=True, clip=0.5),
]


def by_hand(tested: Subject, example: Example) -> tuple[float, int, int]:
    """NLL, hits and targets of one example, from logits at every position of two plain passes."""
    prompt = torch.tensor([example.prompt])
    with torch.no_grad():
        logits_TV, state = tested.model(prompt, acting=list(tested.acting.values()))
        wanted = list(zip(example.target_positions, example.target_tokens, strict=True))
        scored = [(logits_TV[0, place], token) for place, token in wanted]
        last_V = logits_TV[0, -1]
        for token in example.answer:
            scored.append((last_V, token))
            after_TV, state = tested.model(torch.tensor([[token]]), state=state)
            last_V = after_TV[0, -1]
    nll = -sum(float(logits_V.double().log_softmax(0)[token]) for logits_V, token in scored)
    hits = sum(int(logits_V.argmax()) == token for logits_V, token in scored)
    return nll, hits, len(scored)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=["off", "scalar", "head"])
@pytest.mark.parametrize("make", SPLITS)
def test_every_example_is_scored_as_by_hand(tmp_path, make, mechanism):
    split, tested = make(tmp_path), subject(mechanism)
    found = measures(tested, split)
    wanted = [by_hand(tested, split.example(index)) for index in range(len(split))]
    np.testing.assert_allclose(found["nll_sum"], [nll for nll, _, _ in wanted], rtol=TOLERANCE)
    np.testing.assert_array_equal(found["correct"], [hits for _, hits, _ in wanted])
    np.testing.assert_array_equal(found["total"], [total for _, _, total in wanted])
    np.testing.assert_array_equal(found["total"], split.target_counts)


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 200])
def test_batching_changes_results_by_rounding_alone(tmp_path, tokens_per_batch):
    tested = subject(FutureSeed(alpha=1.0))
    for make in SPLITS:
        split = make(tmp_path)
        whole = measures(tested, split)
        parts = measures(tested, split, tokens_per_batch)
        np.testing.assert_allclose(parts["nll_sum"], whole["nll_sum"], rtol=TOLERANCE)
        np.testing.assert_array_equal(parts["correct"], whole["correct"])
        np.testing.assert_array_equal(parts["total"], whole["total"])


def test_the_most_likely_token_counts_as_correct():
    tested = subject()
    prompts = [(1, 2, 3), (4, 5), (6,)]
    with torch.no_grad():
        best = [int(tested.model(torch.tensor([prompt]))[0][0, -1].argmax()) for prompt in prompts]
    # The last example asks for another token than the best.
    wanted = [best[0], best[1], (best[2] + 1) % 256]
    split = Split.from_examples(
        Example(prompt, answer=(token,)) for prompt, token in zip(prompts, wanted, strict=True)
    )
    assert measures(tested, split)["correct"].tolist() == [1, 1, 0]


def test_future_seed_changes_scores_after_and_inside_the_prompt():
    # That it acts in the prompt pass alone is what `by_hand` holds it to.
    split, on = both(Path()), subject(FutureSeed(alpha=3.0))
    off = Subject(on.model, {}, CPU, "float32")
    assert (measures(on, split)["nll_sum"] != measures(off, split)["nll_sum"]).all()


def test_logits_are_computed_at_targets_alone():
    split, tested = both(Path()), subject()
    scored: list[int] = []
    tested.model.head.register_forward_hook(lambda _, inputs, __: scored.append(len(inputs[0])))
    measures(tested, split)
    assert sum(scored) == split.target_counts.sum()


def test_evaluation_leaves_model_and_random_stream_alone():
    split, tested = both(Path()), subject(FutureSeed())
    before = {name: value.clone() for name, value in tested.model.state_dict().items()}
    stream = torch.get_rng_state()
    measures(tested, split)
    for name, value in tested.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(parameter.grad is None for parameter in tested.model.parameters())


def test_the_first_token_of_an_answer_is_told_apart():
    scores = token_scores(subject(), collate(both(Path()), [1, 2]))
    first = scores.first_N.nonzero().flatten().tolist()
    assert [int(scores.example_N[n]) for n in first] == [0]
    assert scores.nll_N.dtype == torch.float32
    assert len(scores.nll_N) == 6 + 3


def test_bf16_computes_scores_near_those_of_float32():
    split, tested = both(Path()), subject(FutureSeed())
    half = Subject(tested.model, tested.acting, CPU, "bf16")
    fine, coarse = measures(tested, split)["nll_sum"], measures(half, split)["nll_sum"]
    assert (fine != coarse).all()
    np.testing.assert_allclose(coarse, fine, rtol=0.1)
    assert {parameter.dtype for parameter in tested.model.parameters()} == {torch.float32}


def test_each_choice_has_the_likelihood_that_it_has_as_the_answer():
    tested = subject(FutureSeed(alpha=1.0))
    choices = ((7, 8), (9,), (7, 9, 1))
    prompts = [(1, 2, 3), (4, 5), (6,)]
    offered = [choices, choices[:2], ()]
    split = Split.from_examples(
        Example(prompt, answer=(9,), choices=some)
        for prompt, some in zip(prompts, offered, strict=True)
    )
    seen: dict[tuple[int, ...], tuple[float, ...]] = {}

    def scorer(example: Example, prediction: Prediction) -> dict[str, float]:
        seen[example.prompt] = prediction.choice_nll
        return {"chosen": float(len(prediction.choice_nll))}

    found = evaluate(tested, split, for_vocabulary(256), Scoring(scorer), 0)
    assert found.measures["chosen"].tolist() == [3, 2, 0]
    for prompt, some in zip(prompts, offered, strict=True):
        alone = [
            measures(tested, Split.from_examples([Example(prompt, answer=choice)]))["nll_sum"][0]
            for choice in some
        ]
        np.testing.assert_allclose(seen[prompt], alone, rtol=TOLERANCE)


def test_predictions_are_given_to_the_scorer_and_the_first_are_kept_as_text():
    tested, split = subject(), both(Path())
    seen: dict[int, tuple[int, ...]] = {}

    def scorer(example: Example, prediction: Prediction) -> dict[str, float]:
        seen[len(seen)] = prediction.tokens
        wanted = (*example.target_tokens, *example.answer)
        return {"again": sum(a == b for a, b in zip(prediction.tokens, wanted, strict=True))}

    found = evaluate(tested, split, for_vocabulary(256), Scoring(scorer), 0)
    np.testing.assert_array_equal(found.measures["again"], found.measures["correct"])
    assert sorted(map(len, seen.values())) == sorted(split.target_counts.tolist())
    said = {for_vocabulary(256).decode(tokens) for tokens in seen.values()}
    assert set(found.predictions) <= said
    assert len(found.predictions) == min(12, len(split))


def test_a_model_may_have_more_ids_than_its_tokenizer():
    tested = subject(vocab_size=1024)
    found = evaluate(tested, both(Path()), for_vocabulary(1024, "bytes"), Scoring(), 0)
    assert "\ufffd" in "".join(found.predictions)


@pytest.mark.parametrize("logits_at_once", [1, 256 * 2, 256 * 5])
def test_losses_and_gradients_are_the_same_whatever_logits_exist_at_a_time(
    monkeypatch, logits_at_once
):
    tested, batch = subject(FutureSeed(alpha=1.0)), collate(both(Path()), [0, 1, 2])

    def computed() -> list[torch.Tensor]:
        tested.model.zero_grad(set_to_none=True)
        scores = token_scores(tested, batch)
        scores.nll_N.sum().backward()
        gradients = [each.grad for each in tested.model.parameters() if each.grad is not None]
        return [scores.nll_N.detach(), scores.predicted_N, *gradients]

    whole = computed()
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", logits_at_once)
    for found, wanted in zip(computed(), whole, strict=True):
        # Sums of a few hundred terms in another order.
        error = (found.double() - wanted.double()).norm()
        assert float(error) <= 2e-5 * float(wanted.double().norm())


def test_answers_are_written_out_for_the_scorer_whatever_the_batches():
    tested, split = subject(FutureSeed(alpha=1.0)), both(Path())
    wanted = Generation(max_new_tokens=6, stop=((10,),), samples=2, temperature=1.0)

    def written(seed: int, padded_tokens: int) -> tuple[list[Any], Any]:
        seen: dict[tuple[int, ...], Any] = {}

        def scorer(example: Example, prediction: Prediction) -> dict[str, float]:
            seen[example.prompt] = prediction.generated
            return {"answers": len(prediction.generated)}

        scoring = Scoring(scorer, wanted)
        found = evaluate(tested, split, for_vocabulary(256), scoring, seed, padded_tokens)
        assert set(found.measures["answers"]) == {3}
        return [seen[split.example(i).prompt] for i in range(len(split))], found.predictions

    one, shown = written(3, 16_384)
    assert one == written(3, 1)[0]
    other, _ = written(4, 16_384)
    assert [answers[0] for answers in one] == [answers[0] for answers in other]
    assert [answers[1:] for answers in one] != [answers[1:] for answers in other]
    assert list(shown) == [for_vocabulary(256).decode(answers[0]) for answers in one][:12]
    # The greedy answer begins with the argmax after the prompt.
    for index, answers in enumerate(one):
        example = split.example(index)
        alone = Split.from_examples([Example(example.prompt, answer=(1,))])
        scores = token_scores(tested, collate(alone, [0]))
        first = int(scores.predicted_N[-1])
        assert answers[0][:1] == ((first,) if first != 10 else ())
