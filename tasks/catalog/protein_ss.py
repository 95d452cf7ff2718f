"""protein_ss and protein_ss_inplace: the secondary structure of residues, in eight states.

protein_ss shows a chain and asks for some of its residues by number; the queries stand after the
chain (queries_last) or before it (queries_first, the control), and both orders have the same
pieces. Any residues are asked for in the order of their draw: a state is scored after the true
ones before it, and those of neighbours would give it away. protein_ss_inplace wants the state of a
residue where it stands: its neighbours to the right, and the strand that it pairs with, are still
to come. Every residue and every state is one token. No two splits share a chain's sequence, or 40
residues of it, whatever its name.

States are those of DSSP (Kabsch and Sander, Biopolymers 22, 1983); where data write loops in
another way than C (a blank, `~`, `-`, `L`, or P, the polyproline helix that DSSP 4 takes out of the
loops), they are read as C. Three states are the usual reduction of the eight: H, G and I are
helices, E and B are strands, the rest is coil (Rost and Sander, J. Mol. Biol. 232, 1993).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from tasks.example import Example, Split, Tokenizer
from tasks.guesses import commonest
from tasks.metrics import CORRECT, NLL, TOKEN_ACCURACY, TOTAL, Metric, ratio
from tasks.parts.chains import (
    MATERIAL,
    ORDERS,
    RESIDUES,
    Asked,
    AskedSettings,
    ChainSettings,
    ChainTask,
    unfit,
    window,
)
from tasks.parts.symbols import Symbols
from tasks.scoring import Prediction, Scorer
from tasks.sources import Row, Shape
from tasks.streams import stream_of
from tasks.task import Builder, Dropped, Guess, Material, require

STATES = "HGIEBTSC"
"""The eight states, in the order of the three that they reduce to."""
_COILS = str.maketrans(dict.fromkeys(" ~-LP", "C"))
_REDUCED = dict(zip(STATES, "HHHEECCC", strict=True))
_INSTRUCTION = "Task: secondary structure of residues, by DSSP: H G I E B T S C."
_REGIONS = ("random", "prefix", "suffix")

_Q3_CORRECT = "q3_correct"
Q8_ACCURACY = Metric(
    "q8_accuracy",
    True,
    "share of all residues whose state, of eight, is right",
    (CORRECT, TOTAL),
    ratio,
    pooled=True,
    worst=0.0,
)
Q3_ACCURACY = Metric(
    "q3_accuracy",
    True,
    "share of all residues whose state is right once eight are reduced to three",
    (_Q3_CORRECT, TOTAL),
    ratio,
    pooled=True,
    worst=0.0,
)

_C = TypeVar("_C", bound=ChainSettings)


class _StateTask(ChainTask[_C]):
    """What both forms have: rows, states and scores."""

    licence = "structures of the PDB: CC0; the collection's own terms apply"
    origin = "PDB chains: hub lamm-mit/protein_secondary_structure_from_PDB, or JSONL by `files`"
    metrics = (Q8_ACCURACY, Q3_ACCURACY, TOKEN_ACCURACY, NLL)
    primary_metric = Q8_ACCURACY.name
    fields: ClassVar[Mapping[str, Shape]] = {"Sequence": "text", "Secondary_structure": "text"}
    group_fields = ("Sequence",)
    hub_splits: ClassVar[Mapping[str, str]] = {
        "train": "train",
        "validation": "train",
        "test": "train",
    }

    def alphabet(self, settings: _C, tokenizer: Tokenizer) -> tuple[int, ...]:
        return Symbols(self.name, STATES, tokenizer).tokens(STATES)

    def scorer(self, settings: _C, tokenizer: Tokenizer) -> Scorer:
        tokens = self.alphabet(settings, tokenizer)
        reduced = {token: _REDUCED[state] for token, state in zip(tokens, STATES, strict=True)}

        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            pairs = zip(prediction.tokens, _wanted(example), strict=True)
            right = sum(reduced.get(said) == reduced[wanted] for said, wanted in pairs)
            return {_Q3_CORRECT: float(right)}

        return measure

    def trivial(self, settings: _C, tokenizer: Tokenizer, train: Split) -> Mapping[str, Guess]:
        counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for index in range(len(train)):
            example = train.example(index)
            for residue, token in zip(example.reference, _wanted(example), strict=True):
                counts[residue][token] += 1
        overall = commonest(sum(counts.values(), Counter()))
        usual = {residue: commonest(states) for residue, states in counts.items()}

        def guess(example: Example) -> Prediction:
            return Prediction(
                tokens=tuple(usual.get(residue, overall) for residue in example.reference)
            )

        return {"usual state of the residue": guess}


@dataclass(frozen=True, kw_only=True)
class ProteinSsSettings(AskedSettings):
    """Settings of protein_ss."""

    name: Literal["protein_ss"] = "protein_ss"
    """Which task it is."""
    queries: int = 48
    """Residues that a prompt asks for."""
    region: Literal["random", "prefix", "suffix"] = "random"
    """Which residues are asked for: any, in the order of their draw, or a run of neighbours at the
    start or at the end. In a run the state before is a good guess, see the trivial strategies."""
    hub: str = "lamm-mit/protein_secondary_structure_from_PDB"

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"1 <= queries <= min_residues = {self.min_residues}"
        require(1 <= self.queries <= self.min_residues, rule, self.queries)
        rule = f"region is one of {', '.join(_REGIONS)}"
        require(self.region in _REGIONS, rule, repr(self.region))
        ProteinSs.check_columns(self.columns)


class ProteinSs(_StateTask[ProteinSsSettings]):
    """Names the states of residues that are asked for."""

    name = "protein_ss"
    version = 1
    summary = "name the secondary structure of residues of a protein that are asked for by number"
    orders = ORDERS
    needs_future = False
    Settings = ProteinSsSettings

    def material(self, settings: ProteinSsSettings) -> int:
        return MATERIAL if settings.fill_to else 0

    def trivial(
        self, settings: ProteinSsSettings, tokenizer: Tokenizer, train: Split
    ) -> Mapping[str, Guess]:
        first = commonest(Counter(train.answer_tokens.tolist()))

        def again(example: Example) -> Prediction:
            return Prediction(tokens=(first, *example.answer[:-1]))

        return {**super().trivial(settings, tokenizer, train), "the state before": again}

    def builder(
        self, settings: ProteinSsSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        others = [row["Sequence"] for row in material]
        asked = Asked(self.name, _INSTRUCTION, settings, tokenizer, others)
        symbols = Symbols(self.name, STATES, tokenizer)

        def build(row: Row) -> Example | Dropped:
            residues, states = row["Sequence"], _eight(row["Secondary_structure"])
            reason = _unfit(residues, states, settings)
            if reason:
                return Dropped(reason)
            stream = stream_of(residues)
            shown = window(len(residues), settings, stream)
            residues, states = residues[shown], states[shown]
            places = range(len(residues))
            if settings.region == "random":
                chosen = stream.sample(places, settings.queries)
            elif settings.region == "prefix":
                chosen = list(places[: settings.queries])
            else:
                chosen = list(places[-settings.queries :])
            prompt = asked.prompt(residues, ",".join(str(place + 1) for place in chosen), stream)
            if isinstance(prompt, Dropped):
                return prompt
            return Example(
                prompt=prompt,
                answer=symbols.tokens([states[place] for place in chosen]),
                reference="".join(residues[place] for place in chosen),
            )

        return build


@dataclass(frozen=True, kw_only=True)
class ProteinSsInplaceSettings(ChainSettings):
    """Settings of protein_ss_inplace."""

    name: Literal["protein_ss_inplace"] = "protein_ss_inplace"
    """Which task it is."""
    stride: int = 1
    """Residues from one that is labelled to the next; 1 labels all of them. With more, the others
    stand around it as evidence, which the control shuffled_future can permute."""
    hub: str = "lamm-mit/protein_secondary_structure_from_PDB"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.stride < self.min_residues,
            f"1 <= stride < min_residues = {self.min_residues}",
            self.stride,
        )
        require(
            self.stride > 1 or self.control != "shuffled_future",
            "stride > 1 with control shuffled_future, which leaves labelled residues in place,",
            self.stride,
        )
        ProteinSsInplace.check_columns(self.columns)


class ProteinSsInplace(_StateTask[ProteinSsInplaceSettings]):
    """Labels residues where they stand."""

    name = "protein_ss_inplace"
    version = 1
    summary = "label every residue of a protein with its secondary structure, where it stands"
    needs_future = True
    Settings = ProteinSsInplaceSettings

    def builder(
        self, settings: ProteinSsInplaceSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        before = tuple(tokenizer.encode(f"{_INSTRUCTION}\n\nSequence:\n"))
        symbols = Symbols(self.name, RESIDUES, tokenizer)

        def build(row: Row) -> Example | Dropped:
            residues, states = row["Sequence"], _eight(row["Secondary_structure"])
            reason = _unfit(residues, states, settings)
            if reason:
                return Dropped(reason)
            shown = window(len(residues), settings, stream_of(residues))
            residues, states = residues[shown], states[shown]
            prompt = before + symbols.tokens(residues)
            if len(prompt) > settings.max_prompt_tokens:
                return Dropped(f"prompts over {settings.max_prompt_tokens} tokens")
            return Example(
                prompt=prompt,
                target_positions=tuple(range(len(before), len(prompt), settings.stride)),
                target_tokens=symbols.tokens(states[:: settings.stride]),
                reference=residues[:: settings.stride],
            )

        return build


def reduced(states: str) -> str:
    """Eight states as three: H helix, E strand, C coil."""
    return "".join(_REDUCED[state] for state in states)


def _eight(states: str) -> str:
    """States with C for every sign of a loop."""
    return states.translate(_COILS)


def _unfit(residues: str, states: str, settings: ChainSettings) -> str:
    """Why a row gives no example; empty if it does."""
    if len(residues) != len(states):
        return "rows whose residues and states differ in number"
    if not set(states) <= set(STATES):
        return "rows with states that DSSP does not have"
    return unfit(residues, settings)


def _wanted(example: Example) -> tuple[int, ...]:
    return (*example.target_tokens, *example.answer)
