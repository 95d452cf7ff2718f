"""protein_contact: which residues of a protein are close in space, by pairs.

The pairs stand after the chain (queries_last) or before it (queries_first, the control); both
orders have the same pieces. An answer is one digit a pair: how many of the `bounds` its distance
does not exceed. With one bound that is 1 for a contact and 0 for none; with several it is a bin of
distance, the hard form, which wants a larger `min_separation` too (24 or more is long range in
CASP's assessments). Pairs are drawn alike from all (random: nearly all are 0), or from all classes
alike (balanced: every answer is any class with equal probability, whatever the others are, so that
neither a constant nor a count of the answers so far helps). No two splits share a chain's sequence,
or 40 residues of it.

A residue whose coordinates are all 0 is missing: so ProteinNet writes it (AlQuraishi, BMC
Bioinformatics 20, 2019), from which the hub's rows come. So is one without finite coordinates.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tasks.example import Example, Split, Tokenizer
from tasks.guesses import commonest
from tasks.metrics import NLL, TOKEN_ACCURACY, Float64Array, Metric
from tasks.parts.chains import MATERIAL, ORDERS, Asked, AskedSettings, ChainTask, unfit, window
from tasks.parts.classes import balanced_accuracy, class_measures, matthews
from tasks.parts.symbols import DIGITS, Symbols
from tasks.scoring import Prediction, Scorer
from tasks.sources import Row, Shape
from tasks.streams import stream_of
from tasks.task import Builder, Dropped, Guess, Material, require

_SAMPLINGS = ("random", "balanced")
_MOST_BOUNDS = len(DIGITS) - 1
# Residues from one kind of separation to the next, for the guess that sees nothing else.
_SEPARATION_WIDTH = 8

_Pair: TypeAlias = tuple[int, int]
_Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ProteinContactSettings(AskedSettings):
    """Settings of protein_contact."""

    name: Literal["protein_contact"] = "protein_contact"
    """Which task it is."""
    max_residues: int = 384
    """Of a longer chain a window of this many residues is taken."""
    pairs: int = 32
    """Pairs that a prompt asks for."""
    sampling: Literal["random", "balanced"] = "balanced"
    """Whether all pairs are alike, or all classes."""
    min_separation: int = 8
    """Residues from the first to the second of a pair, at the least."""
    bounds: tuple[float, ...] = (8.0,)
    """Distances in angstrom, ascending; one more class than there are."""
    hub: str = "heya5/protein_contact_map"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pairs >= 1, "pairs >= 1", self.pairs)
        rule = f"sampling is one of {', '.join(_SAMPLINGS)}"
        require(self.sampling in _SAMPLINGS, rule, repr(self.sampling))
        require(
            1 <= self.min_separation < self.min_residues,
            f"1 <= min_separation < min_residues = {self.min_residues}",
            self.min_separation,
        )
        require(
            1 <= len(self.bounds) <= _MOST_BOUNDS
            and list(self.bounds) == sorted({bound for bound in self.bounds if bound > 0}),
            f"bounds are 1 to {_MOST_BOUNDS} distances above 0, ascending",
            list(self.bounds),
        )
        ProteinContact.check_columns(self.columns)


class ProteinContact(ChainTask[ProteinContactSettings]):
    """Says of pairs of residues how close they are."""

    name = "protein_contact"
    version = 1
    summary = "tell which pairs of residues of a protein are close in space, or how close"
    licence = "structures of the PDB: CC0; the hub's collection: BSD 3-Clause"
    origin = "PDB chains by ProteinNet: hub heya5/protein_contact_map, or local JSONL by `files`"
    orders = ORDERS
    needs_future = False
    metrics = (balanced_accuracy(2), matthews(2), TOKEN_ACCURACY, NLL)
    primary_metric = "balanced_accuracy"
    Settings = ProteinContactSettings
    fields: ClassVar[Mapping[str, Shape]] = {"seq": "text", "tertiary": [["number"]]}
    group_fields = ("seq",)
    hub_splits: ClassVar[Mapping[str, str]] = {
        "train": "train",
        "validation": "valid",
        "test": "test",
    }

    def material(self, settings: ProteinContactSettings) -> int:
        return MATERIAL if settings.fill_to else 0

    def measured(self, settings: ProteinContactSettings) -> tuple[Metric, ...]:
        classes = len(settings.bounds) + 1
        return (balanced_accuracy(classes), matthews(classes), TOKEN_ACCURACY, NLL)

    def alphabet(self, settings: ProteinContactSettings, tokenizer: Tokenizer) -> tuple[int, ...]:
        classes = DIGITS[: len(settings.bounds) + 1]
        return Symbols(self.name, classes, tokenizer).tokens(classes)

    def scorer(self, settings: ProteinContactSettings, tokenizer: Tokenizer) -> Scorer:
        tokens = self.alphabet(settings, tokenizer)
        classes = {token: each for each, token in enumerate(tokens)}

        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            return class_measures(
                [classes[token] for token in example.answer],
                [classes.get(token) for token in prediction.tokens],
                len(classes),
            )

        return measure

    def trivial(
        self, settings: ProteinContactSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for index in range(len(train)):
            example = train.example(index)
            for kind, token in zip(_separations(example), example.answer, strict=True):
                counts[kind][token] += 1
        overall = commonest(sum(counts.values(), Counter()))
        usual = {kind: commonest(answers) for kind, answers in counts.items()}

        def guess(example: Example) -> Prediction:
            kinds = _separations(example)
            return Prediction(tokens=tuple(usual.get(kind, overall) for kind in kinds))

        return {"usual answer at the separation": guess}

    def builder(
        self, settings: ProteinContactSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        bounds = ", ".join(f"{bound:g}" for bound in settings.bounds)
        instruction = (
            "Task: for each pair of residues, how many of these bounds, in angstrom, their "
            f"distance does not exceed: {bounds}."
        )
        others = [row["seq"] for row in material]
        asked = Asked(self.name, instruction, settings, tokenizer, others)
        symbols = Symbols(self.name, DIGITS, tokenizer)

        def build(row: Row) -> Example | Dropped:
            residues, places = row["seq"], row["tertiary"]
            reason = _unfit(residues, places, settings)
            if reason:
                return Dropped(reason)
            stream = stream_of(residues)
            shown = window(len(residues), settings, stream)
            residues, places = residues[shown], places[shown]
            drawn = _drawn(np.array(places, dtype=np.float64), settings, stream)
            if isinstance(drawn, Dropped):
                return drawn
            queries = ",".join(f"{first + 1}-{second + 1}" for first, second in drawn)
            prompt = asked.prompt(residues, queries, stream)
            if isinstance(prompt, Dropped):
                return prompt
            return Example(
                prompt=prompt,
                answer=symbols.tokens([DIGITS[each] for each in drawn.values()]),
                reference=",".join(str(second - first) for first, second in drawn),
            )

        return build


def _drawn(
    place_N3: Float64Array, settings: ProteinContactSettings, stream: Random
) -> dict[_Pair, int] | Dropped:
    """The pairs that are asked for, in the order of their draw, and the class of each."""
    pairs_P2, class_P = _classified(place_N3, settings)
    if settings.sampling == "random":
        if len(class_P) < settings.pairs:
            return Dropped(f"chains with under {settings.pairs} pairs far enough apart")
        chosen = stream.sample(range(len(class_P)), settings.pairs)
    else:
        members = [np.flatnonzero(class_P == each) for each in range(len(settings.bounds) + 1)]
        # With fewer, a class could run out, and the answers would no longer be independent.
        if min(map(len, members)) < settings.pairs:
            return Dropped(f"chains with under {settings.pairs} pairs of a class")
        orders = [stream.sample(range(len(each)), settings.pairs) for each in members]
        classes = stream.choices(range(len(members)), k=settings.pairs)
        chosen = [int(members[each][orders[each].pop()]) for each in classes]
    return {(int(pairs_P2[p, 0]), int(pairs_P2[p, 1])): int(class_P[p]) for p in chosen}


def _classified(
    place_N3: Float64Array, settings: ProteinContactSettings
) -> tuple[_Integers, _Integers]:
    """All pairs of residues that are there and far enough apart in the chain, and their classes."""
    there_N = np.isfinite(place_N3).all(axis=1) & (place_N3 != 0).any(axis=1)
    first_P, second_P = np.triu_indices(len(place_N3), settings.min_separation)
    both_P = there_N[first_P] & there_N[second_P]
    first_P, second_P = first_P[both_P], second_P[both_P]
    distance_P = np.linalg.norm(place_N3[first_P] - place_N3[second_P], axis=1)
    class_P = (distance_P[:, None] <= np.array(settings.bounds)).sum(axis=1)
    return np.stack([first_P, second_P], axis=1), class_P


def _separations(example: Example) -> list[int]:
    """The kind of separation of each pair."""
    return [int(apart) // _SEPARATION_WIDTH for apart in example.reference.split(",")]


def _unfit(
    residues: str, places: Sequence[Sequence[float]], settings: ProteinContactSettings
) -> str:
    """Why a row gives no example; empty if it does."""
    if len(residues) != len(places):
        return "rows whose residues and places differ in number"
    if any(len(place) != 3 for place in places):
        return "rows with places of other than three coordinates"
    return unfit(residues, settings)
