"""The search space: what may be drawn, under which conditions, and how a trial draws it.

A space maps paths of settings (`train.lr`) to domains. It refuses values that cannot be
told apart, bounds that hold nothing between them, and conditions that can never or circularly be
met. Draws come in one order, conditions' paths first and then by name, so that the order of a
file does not matter. Optuna is met only through the `Trial` protocol.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from types import MappingProxyType
from typing import Annotated, Protocol, Self

from pydantic import BeforeValidator, Field, model_validator

from fstune.specs.settings import Scalar, Section
from fstune.specs.words import nearest_or_all, show

Point = Mapping[str, Scalar]
"""Values by path: a candidate, or a part of one."""


def _single(value: object) -> object:
    if isinstance(value, Scalar):
        return value
    raise ValueError("must be a single value: a number, text, true or false")


def _listed(value: object) -> object:
    if isinstance(value, Scalar):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


ScalarField = Annotated[Scalar, BeforeValidator(_single, json_schema_input_type=Scalar)]
"""A scalar whose absence or shape is refused in one line, not in one per type."""


Admitted = Annotated[
    tuple[ScalarField, ...],
    BeforeValidator(_listed, json_schema_input_type=Scalar | list[Scalar]),
    Field(min_length=1),
]
"""One value, or a list of them."""


def same(left: object, right: object) -> bool:
    """Whether two scalars are one value: 1 is 1.0, but neither is true."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


class Trial(Protocol):
    """What a draw needs of Optuna's trials."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar], /) -> Scalar | None: ...

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, /) -> int: ...


class Domain(Section):
    """The values that one setting may take: exactly one of the four kinds."""

    choice: tuple[ScalarField, ...] | None = Field(None, min_length=1)
    """One of these values, all different."""
    uniform: tuple[float, float] | None = None
    """A number from low to high, both included."""
    log_uniform: tuple[float, float] | None = None
    """A number from low to high whose logarithm is uniform; low is over 0."""
    int_uniform: tuple[int, int] | None = None
    """A whole number from low to high, both included."""
    when: dict[str, Admitted] | None = None
    """Drawn only where each of these paths has (one of) these values; always, if absent."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kinds = ("choice", "uniform", "log_uniform", "int_uniform")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            got = ", ".join(given) or "none of them"
            raise ValueError(f"exactly one of {', '.join(kinds)} must be given, got {got}")
        if self.when is not None and not self.when:
            raise ValueError("`when` must name a path, got none")
        for value in (
            *self.extremes,
            *(v for values in (self.when or {}).values() for v in values),
        ):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"every value must be finite, got {value}")
        if self.choice is not None:
            # Compared as Optuna compares them, to which true and 1 are one.
            twice = [b for a, b in combinations(self.choice, 2) if a == b]
            if twice:
                raise ValueError(f"choice: values must differ, got {show(twice[0])} twice")
            return self
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"{given[0]}: low < high must hold, got low={low}, high={high}")
        if self.log_uniform is not None and low <= 0:
            raise ValueError(f"log_uniform: 0 < low must hold, got low={low}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high of a domain that is no choice."""
        bounds = self.uniform or self.log_uniform or self.int_uniform
        assert bounds is not None
        return bounds

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """All values of a choice; of a range its bounds, and their neighbours if whole numbers."""
        if self.choice is not None:
            return self.choice
        if self.int_uniform is not None:
            low, high = self.int_uniform
            return tuple(sorted({low, min(low + 1, high), max(high - 1, low), high}))
        return self.uniform or self.log_uniform or ()

    def values(self) -> Sequence[Scalar]:
        """All values, in order; not of a range, which has no end of them."""
        if self.choice is not None:
            return self.choice
        assert self.int_uniform is not None
        low, high = self.int_uniform
        return range(low, high + 1)

    @property
    def size(self) -> float:
        """How many different values it has."""
        if self.choice is not None:
            return len(self.choice)
        if self.int_uniform is not None:
            return self.int_uniform[1] - self.int_uniform[0] + 1
        return math.inf

    def refusal(self, value: object) -> str | None:
        """Why `value` is not in the domain; None where it is."""
        if self.choice is not None:
            if any(same(value, known) for known in self.choice):
                return None
            return f"must be one of {', '.join(map(show, self.choice))}"
        low, high = self.bounds
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.int_uniform is not None and not (number and isinstance(value, int)):
            return f"must be a whole number from {low} to {high}"
        if number and isinstance(value, int | float) and low <= value <= high:
            return None
        return f"must be a number from {low} to {high}"

    def draw(self, path: str, trial: Trial) -> Scalar:
        """Draws the value of the setting at `path`."""
        if self.choice is not None:
            value = trial.suggest_categorical(path, self.choice)
            assert value is not None
            return value
        if self.int_uniform is not None:
            return trial.suggest_int(path, *self.int_uniform)
        low, high = self.bounds
        return trial.suggest_float(path, low, high, log=self.log_uniform is not None)


def condition_problems(
    domains: Mapping[str, Domain], also_known: Sequence[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Conditions that are wrong in themselves, each as path, the path it depends on, and rule.

    Args:
        domains: the space.
        also_known: paths of the space whose own domain is not at hand.
    """
    for path, domain in domains.items():
        for other, admitted in (domain.when or {}).items():
            parent = domains.get(other)
            if parent is None:
                if other not in also_known:
                    known = [*domains, *also_known]
                    mend = nearest_or_all(other, known)
                    yield path, other, f"must name a path of the space{mend}"
            elif parent.size == math.inf:
                yield path, other, "must name a path with a choice or int_uniform, got a range"
            else:
                never = [value for value in admitted if parent.refusal(value)]
                if never:
                    rule = parent.refusal(never[0])
                    yield path, other, f"{rule}, to be ever met, got {show(never[0])}"
    _, circular = _ordered(domains)
    for path in circular[:1]:
        other = next(other for other in domains[path].when or {} if other in circular)
        yield path, other, f"conditions must not go in a circle, got {', '.join(circular)}"


def _ordered(domains: Mapping[str, Domain]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths in the order of drawing, and those that a circle of conditions keeps from it."""
    order: list[str] = []
    left = sorted(domains)
    while left:
        ready = next(
            (path for path in left if not any(other in left for other in domains[path].when or {})),
            None,
        )
        if ready is None:
            break
        order.append(ready)
        left.remove(ready)
    return tuple(order), tuple(left)


class Space:
    """Domains and their conditions, ready to draw from.

    Raises:
        ValueError: a condition that is wrong in itself (see `condition_problems`).
    """

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        for path, other, rule in condition_problems(domains):
            raise ValueError(f"{path}: when {other}: {rule}")
        self._domains = dict(domains)
        self.paths, _ = _ordered(self._domains)
        """Every path, in the order in which a trial draws them."""

    def suggest(self, trial: Trial) -> dict[str, Scalar]:
        """Draws a candidate: the values of those paths that their conditions admit."""
        point: dict[str, Scalar] = {}
        for path in self.paths:
            if self.admits(path, point):
                point[path] = self._domains[path].draw(path, trial)
        return point

    def admits(self, path: str, point: Point) -> bool:
        """Whether the conditions of `path` are met by a point that has all that they name."""
        return all(
            other in point and any(same(point[other], value) for value in admitted)
            for other, admitted in (self._domains[path].when or {}).items()
        )

    def problems(self, point: Point) -> list[str]:
        """Why a point, which may leave paths out, is not in the space; nothing where it is."""
        return [f"{path}: {rule}" for path, rule in self.refusals(point)]

    def refusals(self, point: Point) -> Iterator[tuple[str, str]]:
        """As `problems`, each as path and rule."""
        for path, value in point.items():
            domain = self._domains.get(path)
            if domain is None:
                yield path, f"is not in the space{nearest_or_all(path, self.paths)}"
                continue
            rule = domain.refusal(value)
            if rule:
                yield path, f"{rule}, got {show(value)}"
            for other, admitted in (domain.when or {}).items():
                if other not in point:
                    yield path, f"counts only with {other}, which must be given beside it"
                elif not any(same(point[other], wanted) for wanted in admitted):
                    wanted = " or ".join(map(show, admitted))
                    yield path, f"counts only where {other} is {wanted}, got {show(point[other])}"

    def corners(self, paths: Sequence[str], limit: int) -> Iterator[dict[str, Scalar]]:
        """Points of extreme values over `paths` and what their conditions name.

        All of them, or `limit` that are drawn where there are more than that.
        """
        wanted = set(paths)
        for path in reversed(self.paths):
            if path in wanted:
                wanted.update(self._domains[path].when or {})
        order = [path for path in self.paths if path in wanted]
        if math.prod(len(self._domains[path].extremes) for path in order) <= limit:
            yield from self._walk(order, lambda domain: domain.extremes)
            return
        stream = random.Random(0)
        for _ in range(limit):
            point: dict[str, Scalar] = {}
            for path in order:
                if self.admits(path, point):
                    point[path] = stream.choice(self._domains[path].extremes)
            yield point

    def points(self) -> Iterator[dict[str, Scalar]]:
        """Every candidate of a space without ranges.

        Raises:
            ValueError: if there are ranges.
        """
        ranges = [path for path in self.paths if self._domains[path].size == math.inf]
        if ranges:
            raise ValueError(f"every path must have a choice or int_uniform, got {ranges[0]}")
        yield from self._walk(self.paths, Domain.values)

    def count(self, limit: int) -> int:
        """How many different candidates there are, counted up to `limit`."""

        def values(domain: Domain) -> Sequence[Scalar]:
            # No condition looks at a range, so that any values stand for those it has.
            return range(limit) if domain.size == math.inf else domain.values()

        return sum(1 for _ in islice(self._walk(self.paths, values), limit))

    def _walk(
        self,
        paths: Sequence[str],
        values: Callable[[Domain], Sequence[Scalar]],
        point: Point = MappingProxyType({}),
    ) -> Iterator[dict[str, Scalar]]:
        """Every point over `paths` that the conditions admit.

        Args:
            paths: what is left to be given, in the order of drawing.
            values: what a domain is to give.
            point: what was given before.
        """
        if not paths:
            yield dict(point)
            return
        path, rest = paths[0], paths[1:]
        if not self.admits(path, point):
            yield from self._walk(rest, values, point)
            return
        for value in values(self._domains[path]):
            yield from self._walk(rest, values, {**point, path: value})
