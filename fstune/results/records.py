"""The records that a search keeps of its trials, as values. Where they lie is in `folder`."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import Literal

from fstune.arms.arm import Progress
from fstune.files import canonical_json
from fstune.results.deltas import Delta
from fstune.results.sequential import Look
from fstune.results.verdict import Verdict
from fstune.specs.settings import Scalar

BrokeOff = Literal["diverged", "infeasible", "failed"]
"""A loss was not finite; this machine cannot train the arms; something else went wrong."""


EndState = Literal["completed", "stopped"] | BrokeOff
"""How a trial ended: at the last rung, before it, or not at all well."""


class SearchEnd(Enum):
    """How one run of a search, or of its confirmation, ended."""

    FINISHED = auto()
    STOPPED = auto()
    """By a signal or an error; it can be resumed."""
    FAILED = auto()
    """No trial has reached a rung, or too many in a row have failed."""


@dataclass(frozen=True)
class ArmPair:
    """The two arms of one seed."""

    seed: int
    baseline: str
    variant: str


@dataclass(frozen=True)
class CurvePoint:
    """Deltas at one step on the way to a rung, over the rung's seeds."""

    step: int
    ended_at: float
    deltas: dict[str, Delta]


@dataclass(frozen=True)
class Comparison:
    """What the pairs of a candidate say at one step."""

    steps: int
    seeds: int
    deltas: dict[str, Delta]
    verdict: Verdict
    objective: float
    """What the candidate is ranked by at this rung (`verdict.rated`); more is better."""
    largest_gate: float
    """Upper bound of the variant's gates."""
    arms: list[ArmPair]
    flags: list[str] = field(default_factory=list, kw_only=True)
    """What a person should look at before believing the scores."""
    guessed: str = field(default="", kw_only=True)
    """The guess than which neither arm is surely better; empty where one is."""
    untrained: str | None = field(default=None, kw_only=True)
    """The arm whose evaluation at step 0 the guess is, of a likelihood."""


@dataclass(frozen=True)
class RungRecord(Comparison):
    """One rung of one trial."""

    rung: int
    curve: list[CurvePoint]
    """Every common evaluation of the rung's arms since the rung before, this one last."""
    wall_s: float
    """Seconds that the rung took here; whatever was stored already took none."""
    settled: bool = field(default=False, kw_only=True)
    """Whether it is surely no better than the margin, and comes after all that are not."""
    promise: float | None = field(default=None, kw_only=True)
    """What the sampler and Tune are told; the objective, in searches of older rules."""
    reused: int = field(default=0, kw_only=True)
    """How many of its arms had been trained this far before: for another candidate or search, or
    ahead of it by an arm worker (`search.arm_workers`)."""

    @property
    def told(self) -> float:
        """What the sampler and Tune are told of the rung."""
        return self.objective if self.promise is None else self.promise

    def facts(self) -> str:
        """All that a repetition must reproduce exactly, as text; its cost is not part of it."""
        facts = asdict(self)
        facts.pop("wall_s")
        facts.pop("reused")
        for point in facts["curve"]:
            point.pop("ended_at")
        return canonical_json(facts)  # as text, for NaN is no other NaN's equal


@dataclass(frozen=True)
class EndRecord:
    """Why a trial goes no further."""

    state: EndState
    reason: str
    detail: str = ""
    """A traceback, if there is one."""

    @property
    def broke_off(self) -> BrokeOff | None:
        """How it went wrong, if it did."""
        return None if self.state == "completed" or self.state == "stopped" else self.state


@dataclass(frozen=True)
class Confirmation:
    """A finalist on seeds and examples that the search has not seen."""

    comparison: Comparison | None
    """None if the arms broke off."""
    ended_at: float
    failure: str = ""
    broke_off: BrokeOff = "diverged"
    """How, if there is no comparison."""

    @property
    def verdict(self) -> Verdict:
        return self.broke_off if self.comparison is None else self.comparison.verdict


@dataclass(frozen=True)
class LookRecord:
    """One look of a sequential confirmation at its data."""

    at: Look
    ended_at: float
    """When it was taken, in seconds since the epoch."""


@dataclass(frozen=True)
class Finalists:
    """The trials that are confirmed, chosen once."""

    numbers: list[int]


@dataclass(frozen=True)
class Suggestion:
    """A candidate as it was suggested."""

    candidate: dict[str, Scalar]
    equals: int | None = None
    """The trial whose candidate does the same; nothing is trained for this one."""


@dataclass(frozen=True)
class TrialProgress(Progress):
    """Where a trial is: the arm that is at work for it, and where."""

    rung: int = field(kw_only=True)
    pid: int = field(kw_only=True)
    """Process id of the trial's worker."""
    at: float = field(kw_only=True)
    """When this was so, in seconds since the epoch."""


@dataclass(frozen=True)
class TrialRecord:
    """A candidate and how far it has come."""

    number: int
    candidate: dict[str, Scalar]
    rungs: list[RungRecord] = field(default_factory=list)
    end: EndRecord | None = None
    progress: TrialProgress | None = None
    """None while nothing is done for it."""
    confirmation: Confirmation | None = None
    looks: list[LookRecord] = field(default_factory=list)
    """What its confirmation has looked at so far, where that adds seeds look by look."""
    equals: int | None = None
    """The trial that does the same, whose rungs and end these are: this one is its alias."""

    @property
    def is_alias(self) -> bool:
        return self.equals is not None

    @property
    def comparisons(self) -> list[Comparison]:
        """Every rung's, and the confirmation's, if there is one that did not break off."""
        confirmed = self.confirmation and self.confirmation.comparison
        return [*self.rungs, *([confirmed] if confirmed else [])]

    @property
    def verdict(self) -> Verdict:
        """The confirmation's, if there is one; else that of the last rung reached."""
        if self.confirmation is not None:
            return self.confirmation.verdict
        if self.end is not None and self.end.broke_off is not None:
            return self.end.broke_off
        return self.rungs[-1].verdict if self.rungs else "running"


def own_trials(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials that were trained themselves: an alias costs and says nothing of its own."""
    return [trial for trial in trials if not trial.is_alias]
