"""What gained and what lost: the examples on which a candidate's arms differ most.

Scores come from the stored outcomes, texts from the cached split; where either is missing there is
less to show, never a guess. No torch, no Ray.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fstune.arms.arm import Outcome
from fstune.arms.store import ArmStore
from fstune.report.series import Sheet
from fstune.results.folder import SearchFolder
from fstune.results.outcomes import stored_pairs
from fstune.results.records import Comparison
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ModelSettings
from model.tokenizer import Tokenizer, for_vocabulary
from tasks import registry
from tasks.example import Split, TaskError
from tasks.metrics import CORRECT, NLL, TOTAL, Metric

MOST_EXAMPLES = 5
"""Examples shown of each kind."""


PIECE = 90
"""Characters kept of a stretch of text between two wanted spans, half at either end."""


LONGEST_TEXT = 700
"""Characters shown of an example."""


WORLD_VOCABULARY = 65536
"""Ids of every official RWKV-7 checkpoint."""


@dataclass(frozen=True)
class ExampleDelta:
    """One example under both arms, means over the seeds."""

    index: int
    """Its place in the split."""
    text: str
    """The prompt, abridged, with what is wanted in ⟦ ⟧; empty where the split is not cached."""
    tokens: int
    """Target tokens."""
    baseline_right: float
    variant_right: float
    """Target tokens that are the argmax."""
    baseline: float
    variant: float
    """The objective's metric."""
    baseline_answer: str
    variant_answer: str
    """What the first seed's arms predicted; empty where that was not kept, as for most examples."""


@dataclass(frozen=True)
class ExampleDeltas:
    """The ends of the distribution of deltas over examples."""

    number: int
    metric: str
    seeds: int
    better: int
    worse: int
    equal: int
    gained: list[ExampleDelta]
    lost: list[ExampleDelta]

    def sheet(self) -> Sheet:
        header = ("example", "target tokens", "right: baseline", "right: variant")
        rows = [
            (
                *(at.index, at.tokens, at.baseline_right, at.variant_right),
                *(at.baseline, at.variant, at.baseline_answer, at.variant_answer, at.text),
            )
            for at in (*self.gained, *self.lost)
        ]
        names = (f"{self.metric}: baseline", f"{self.metric}: variant")
        return Sheet((*header, *names, "answer: baseline", "answer: variant", "text"), rows)


def example_deltas(
    records: SearchFolder, spec: SearchSpec, number: int, at: Comparison
) -> ExampleDeltas | None:
    """The examples that differ most between a candidate's arms; None if no outcome is stored.

    Ties in the objective's metric are broken by the negative log-likelihood.
    """
    store = records.store
    pairs = stored_pairs(store, at.arms, at.steps)
    if not pairs:
        return None
    # A score of the whole split has no examples of its own to show.
    metric = NLL if spec.metric().pooled else spec.metric()
    baselines, variants = [pair.baseline for pair in pairs], [pair.variant for pair in pairs]
    baseline_N, variant_N = _mean(metric, baselines), _mean(metric, variants)
    gain_N = (variant_N - baseline_N) * (1.0 if metric.higher_is_better else -1.0)
    order = np.lexsort((_mean(NLL, baselines) - _mean(NLL, variants), gain_N)).tolist()
    right_N, right_variant_N = (
        np.mean([outcome.measures[CORRECT] for outcome in outcomes], axis=0)
        for outcomes in (baselines, variants)
    )
    texts = _Texts.find(records, spec, at.arms[0].variant, store)

    def told(index: int) -> ExampleDelta:
        return ExampleDelta(
            index=index,
            text=texts.text(index) if texts else "",
            tokens=int(variants[0].measures[TOTAL][index]),
            baseline_right=float(right_N[index]),
            variant_right=float(right_variant_N[index]),
            baseline=float(baseline_N[index]),
            variant=float(variant_N[index]),
            baseline_answer=_answer(baselines[0], index),
            variant_answer=_answer(variants[0], index),
        )

    return ExampleDeltas(
        number=number,
        metric=metric.name,
        seeds=len(pairs),
        better=int((gain_N > 0).sum()),
        worse=int((gain_N < 0).sum()),
        equal=int((gain_N == 0).sum()),
        gained=[told(i) for i in order[::-1][:MOST_EXAMPLES] if gain_N[i] > 0],
        lost=[told(i) for i in order[:MOST_EXAMPLES] if gain_N[i] < 0],
    )


def _mean(metric: Metric, outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """A metric of every example, mean over the seeds."""
    values_SN = np.stack([metric.per_example(outcome.measures) for outcome in outcomes])
    return np.asarray(values_SN.mean(axis=0))


def _answer(outcome: Outcome, index: int) -> str:
    kept = outcome.predictions
    return _cut(kept[index], PIECE) if index < len(kept) else ""


@dataclass(frozen=True)
class _Texts:
    """The evaluated split as people read it."""

    split: Split
    task: "registry.AnyTask"
    tokenizer: Tokenizer

    @classmethod
    def find(
        cls, records: SearchFolder, spec: SearchSpec, arm: str, store: ArmStore
    ) -> "_Texts | None":
        digest = (store.described(arm) or {}).get("evaluated_digest")
        split = None if digest is None else _cached(records.cache, digest)
        tokenizer = _tokenizer(spec.model)
        if split is None or tokenizer is None:
            return None
        return cls(split, registry.get(spec.task_name), tokenizer)

    def text(self, index: int) -> str:
        try:
            return abridged(self.task.render(self.split.example(index), self.tokenizer))
        except (ValueError, LookupError):
            return ""  # ids that the tokenizer does not know: another one made them


def _cached(cache: Path, digest: str) -> Split | None:
    """The cached split with that digest."""
    for manifest in sorted(cache.glob("*/manifest.json")):
        if f'"{digest}"' in manifest.read_text(encoding="utf-8"):
            try:
                return Split.load(manifest.parent)
            except (OSError, TaskError):
                continue
    return None


def _tokenizer(model: ModelSettings) -> Tokenizer | None:
    # A checkpoint's vocabulary is known only to torch; the official ones have the World vocabulary.
    size = WORLD_VOCABULARY if model.init is None else model.init.vocab_size
    name = model.tokenizer
    try:
        return for_vocabulary(size, name)
    except ValueError:
        return None


def abridged(text: str) -> str:
    """A rendered example with its long stretches cut, what is wanted kept: `… ⟦seen → wanted⟧ …`.

    Args:
        text: as `Task.render` gives it.
    """
    pieces = re.split(r"(⟦[^⟧]*⟧)", text)
    short = [piece if piece.startswith("⟦") else _cut(piece, PIECE) for piece in pieces]
    return _cut("".join(short), LONGEST_TEXT)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … {text[-half:]}"
