"""What a mechanism declares of itself, free of torch: all that its users ask without a model.

A mechanism is a section of a spec, of the same name. Its settings are a frozen dataclass, whose
`__post_init__` refuses single values; the class here says what the settings come to. What acts in a
model is made by `build` and described in `model.mechanisms.acting`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from model.config import ModelConfig
    from model.mechanisms.acting import Acting

S = TypeVar("S")
"""The settings of a mechanism."""

OFF_IN_EFFECT = 2.0**-24
"""Rounding of float32: what is so much smaller than the state it is added to is lost beside it."""

AnyMechanism: TypeAlias = "Mechanism[Any]"
"""Which settings it has is known only once its name is."""


@dataclass(frozen=True)
class Context:
    """What is known of the arm that settings stand in."""

    num_layers: int | None = None
    """Layers of the model; None where its checkpoint has not been read yet."""


@dataclass(frozen=True)
class Idle:
    """A setting that changes nothing, or a mechanism that does nothing for its sake."""

    setting: str
    """Its name below the mechanism's section, as `schedule.min`."""
    text: str
    """The rule, as `has no effect while schedule.kind is none` or `must be over 0: …, got 0`."""
    extent: Literal["mechanism", "here", "where given"] = "where given"
    """mechanism: nothing at all is done, whatever the other settings are; here: this value is
    wasted at this point of a space; where given: it is wasted only if it is so at every point of
    the space that has it."""
    sure: bool = False
    """Of a whole mechanism: whether this setting does it alone, so that it may be told even where
    other parts of a spec are broken."""
    unless: tuple[str, tuple[str, ...]] | None = None
    """The setting that could give it an effect, and the values that do: what `when` should name."""


def past_the_model(layer_start: int, context: Context) -> Idle | None:
    """What is told of a mechanism that begins after the last layer; None where it does not."""
    if context.num_layers is None or layer_start < context.num_layers:
        return None
    text = f"must be under {context.num_layers}, the number of layers, got {layer_start}"
    return Idle("layer_start", text, "mechanism", sure=True)


@dataclass(frozen=True)
class Profile:
    """A quantity of a mechanism over the model's layers, for a report's figure."""

    title: str
    caption: str
    """What is seen, in a sentence; `{number}` stands for the candidate's."""
    quantity: str
    """Its name, also that of its diagnostics: `gate` for `gate/L07` and `gate/L07.H3`."""
    before: Mapping[int, float]
    """Its value at each layer as the settings have it, before training."""
    learns: bool
    """Whether training moves it."""


class Mechanism(ABC, Generic[S]):
    """What a mechanism is called, and what its settings come to."""

    name: ClassVar[str]
    """Of the section in a spec; a lower-case word or words joined by _."""
    title: ClassVar[str]
    """As sentences name it."""
    summary: ClassVar[str]
    """What it does, in a line."""
    Settings: ClassVar[type]
    """A frozen dataclass with a default for every field."""
    rate: ClassVar[str]
    """The setting that is the learning rate of its parameters."""
    parameters: ClassVar[str]
    """What its parameters are called in diagnostics (`grad_norm/<parameters>`)."""
    written_when_off: ClassVar[bool] = False
    """Whether specs and arms without it say so (`name: null`). Only for what stood in every arm
    before there were several: the digests of stored arms cover it."""

    @abstractmethod
    def build(self, config: "ModelConfig", settings: S) -> "Acting":
        """What acts in a model of these shapes, its parameters where they start.

        Raises:
            ValueError: for settings that do not fit the model.
        """

    def settings_of(self, values: Mapping[str, Any]) -> S:
        """The settings whose `dataclasses.asdict` this is.

        Raises:
            TypeError: a field is unknown.
            ValueError: a field is refused.
        """
        settings: S = self.Settings(**values)
        return settings

    def learning_rate(self, settings: S) -> float:
        """Of its parameters; 0 keeps them where they start."""
        return float(getattr(settings, self.rate))

    def idle(self, settings: S, context: Context) -> Iterable[Idle]:
        """Settings that can do nothing, and why; a spec that gives them is refused.

        What does nothing as a whole comes alone, since no other setting matters then.
        """
        return ()

    def reach(self, settings: S, num_layers: int, steps: int) -> float | None:
        """An upper bound of what it can change, as a share of the state that it acts on.

        Below 2⁻²⁴ float32 rounds it away, and whatever is measured is `no effect`.

        Args:
            settings: the mechanism's.
            num_layers: of the model.
            steps: the most optimiser steps that it is trained.

        Returns:
            None where no bound is known.
        """
        return None

    def equal(self, first: S, second: S, config: "ModelConfig", travel: float) -> bool:
        """Whether two settings do the same but for rounding, all else in the arms being equal.

        Args:
            first: the settings of one candidate.
            second: those of another.
            config: shapes of the model.
            travel: how far training can move a parameter, as a multiple of its learning rate.
        """
        del config, travel
        return first == second

    def weight(self, settings: S) -> tuple[float, ...]:
        """Orders settings by what they add to a step's memory; compared entry by entry."""
        return ()

    def profile(self, settings: S, num_layers: int) -> Profile | None:
        """What a report draws of it over the layers; None for nothing."""
        return None

    def depth(self, diagnostics: Mapping[str, float]) -> int | None:
        """How many layers the model has, where the mechanism's own diagnostics tell."""
        return None

    def first_space(self, num_layers: int, new: bool) -> dict[str, dict[str, Any]]:
        """What a first search varies, by setting: domains as a spec writes them.

        Args:
            num_layers: of the model.
            new: whether it is trained from scratch.
        """
        return {}
