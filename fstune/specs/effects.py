"""What the values of a spec do to an arm: which are refused, and which can have no effect.

A space is judged by its corners: every combination of choices and bounds that its conditions
admit. A value that its setting refuses is told where it stands; values that are fine one by one
but not together are told together. What a mechanism's settings can do is the mechanism's to say.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue, ValidationError

from fstune.specs.messages import Problem, explain
from fstune.specs.rules import NOT_VARIED, PartialSpec, fixed_values, place_of
from fstune.specs.sections import with_values
from fstune.specs.settings import Scalar, TrainSettings
from fstune.specs.space import Point, same
from fstune.specs.strict import checked
from fstune.specs.words import show
from fstune.specs.yaml import KeyPath
from model.mechanisms import registry as mechanisms
from model.mechanisms.mechanism import Context, Idle
from model.optimizers import registry as optimizers

_OF_ITS_SCHEDULE = ("train.lr_schedule", "train.lr_warmup_steps", "train.lr_total_steps")


_OF_THE_MODEL = (
    *("train.optimizer", "train.lr", "train.weight_decay", "train.grad_clip"),
    *_OF_ITS_SCHEDULE,
)
"""What the model alone is trained by; a mechanism's parameters have a rate of their own."""


_MOST_CORNERS = 4096
"""Beyond so many, as many are drawn instead."""


def problems(partial: PartialSpec) -> list[Problem]:
    """Values that are refused, and values that can have no effect."""
    found: list[Problem] = []
    learns = False
    for name in ("model", "task", "train", *mechanisms.names()):
        is_mechanism = name in mechanisms.names()
        if name in partial.broken or (is_mechanism and "fixed" in partial.broken):
            continue
        section = _Section(partial, name)
        found.extend(section.refusals.problems)
        if name == "train" and "rungs" not in partial.broken:
            found.extend(_idle_training(partial, section))
        if is_mechanism:
            found.extend(_idle_mechanism(partial, section))
            learns = learns or not section.whole or _learns(section)
    if not {"fixed", "train"} & partial.broken and partial.spec.train.parameters == "gates":
        found.extend(_idle_gates(partial, learns))
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Refusals:
    """What a section's settings refuse."""

    bad: list[tuple[str, Scalar]]
    """Values that are refused by themselves."""
    problems: list[Problem]


class _Section:
    """One section of an arm's settings, under all the values that a spec gives it."""

    def __init__(self, partial: PartialSpec, name: str) -> None:
        spec = partial.spec
        self.name = name
        self._partial = partial
        self._kind = partial.types[name]
        self._is_mechanism = name in mechanisms.names()
        self._base: JsonValue = {}
        if not self._is_mechanism:
            self._base = spec.model_dump(mode="json", include={name})[name]
        known = {path for path in partial.settable if path.startswith(f"{name}.")}
        known -= set(NOT_VARIED)
        fixed = dict(fixed_values(spec.fixed)) if self._is_mechanism else {}
        self._fixed: Point = {path: value for path, value in fixed.items() if path in known}
        domains = {path: domain for path, domain in spec.space.items() if path in known}
        baseline = {} if "baseline" in partial.broken else spec.baseline
        self._baseline: Point = {path: value for path, value in baseline.items() if path in known}
        self._given: list[tuple[KeyPath, str, Scalar]] = [
            *((place_of("fixed", path), path, value) for path, value in self._fixed.items()),
            *((place_of("baseline", path), path, value) for path, value in self._baseline.items()),
            *(
                (place_of("space", path), path, value)
                for path, domain in domains.items()
                for value in domain.extremes
            ),
        ]
        is_on = not self._is_mechanism or name in spec.mechanisms()
        self._corners = self._own_corners(list(domains)) if is_on else []

    def _own_corners(self, paths: list[str]) -> list[Point]:
        """The section's values at the corners of the space, `fixed` included."""
        space = self._partial.space
        corners: dict[tuple[tuple[str, str], ...], Point] = {}
        sound = [path for path in paths if path in space.paths]
        for corner in space.corners(sound, _MOST_CORNERS):
            own = {path: value for path, value in corner.items() if path in sound}
            key = tuple((path, repr(value)) for path, value in own.items())
            corners.setdefault(key, {**self._fixed, **own})
        return list(corners.values())

    @property
    def _points(self) -> list[Point]:
        """The section's values at the corners, and in the baseline if it has values of its own."""
        if not self._baseline:
            return self._corners
        # A mechanism is in the baseline for the baseline's sake, whatever the space has of it.
        corners = [self._fixed] if self._is_mechanism else self._corners
        return [*self._corners, *({**corner, **self._baseline} for corner in corners)]

    def _build(self, point: Point) -> object:
        """The section's settings with the values of a point, or the problem that they have."""
        values = with_values({self.name: self._base}, point)[self.name]
        try:
            return checked(self._kind, values)
        except ValidationError as error:
            return explain(error, (), self._kind, values)[0]

    @cached_property
    def refusals(self) -> _Refusals:
        """Values that the section's settings refuse, alone or together."""
        results = [(point, self._build(point)) for point in self._points]
        good = [point for point, result in results if not isinstance(result, Problem)]
        bad: list[tuple[str, Scalar]] = []
        found: list[Problem] = []
        for at, path, value in self._given:
            alone = self._build({path: value})
            if isinstance(alone, Problem) and not _any_agrees(good, {path: value}):
                bad.append((path, value))
                found.append(Problem(at, _told(alone.text, value)))
        causes: list[Point] = []
        for point, result in results:
            if isinstance(result, Problem) and _without(bad, point) == point:
                cause = _cause(point, good)
                if cause.keys() not in [known.keys() for known in causes]:
                    causes.append(cause)
                    where = " and ".join(f"{path} = {show(cause[path])}" for path in cause)
                    found.append(Problem(self.where(*cause), f"{result.text}, at {where}"))
        return _Refusals(bad, found)

    @cached_property
    def built(self) -> list[tuple[Point, object]]:
        """Settings at every point, without the values that are refused by themselves."""
        results = [
            (point, self._build(_without(self.refusals.bad, point))) for point in self._points
        ]
        return [(point, result) for point, result in results if not isinstance(result, Problem)]

    @property
    def whole(self) -> bool:
        """Whether all that the spec says is sound, so that what it leaves out has its default."""
        return self._partial.space_is_whole and not self.refusals.bad

    def where(self, *paths: str) -> KeyPath:
        """Where the first of these paths that the space, `fixed` or `baseline` gives stands."""
        for path in paths:
            for at, given, _ in self._given:
                if path == given:
                    return at
        return tuple(paths[0].split(".")) if paths and not self._is_mechanism else ("fixed",)


def _without(bad: Sequence[tuple[str, Scalar]], point: Point) -> Point:
    """A point without the values that are refused by themselves."""
    wrong = [path for path, value in bad if path in point and same(point[path], value)]
    return {path: value for path, value in point.items() if path not in wrong}


def _any_agrees(points: list[Point], part: Point) -> bool:
    return any(
        all(path in point and same(point[path], value) for path, value in part.items())
        for point in points
    )


def _cause(point: Point, good: list[Point]) -> Point:
    """A part of a refused point that no good point agrees with, and as small as can be."""
    cause = dict(point)
    for path in point:
        fewer = {other: value for other, value in cause.items() if other != path}
        if fewer and not _any_agrees(good, fewer):
            cause = fewer
    return cause


def _told(text: str, value: Scalar) -> str:
    return text if ", got " in text else f"{text}, got {show(value)}"


def _idle_training(partial: PartialSpec, section: _Section) -> Iterator[Problem]:
    """Settings of the optimisation that change nothing."""
    if not section.whole:
        return
    yield from _idle_beside_gates(partial, section)
    yield from _idle_optimizers(section)
    last = partial.spec.rungs[-1].steps
    for train in _trainings(section):
        if train.parameters == "gates":
            continue
        total = train.lr_total_steps
        at = section.where("train.lr_total_steps")
        if total is not None and train.lr_schedule == "constant":
            yield Problem(at, f"has no effect while lr_schedule is constant, got {total}")
        elif total is not None and total < last:
            yield Problem(at, f"must be at least {last}, the last rung's steps, got {total}")
        elif train.lr_schedule != "constant" and train.lr_warmup_steps >= (total or last):
            yield Problem(
                section.where("train.lr_schedule"),
                f"has no effect: the warm-up lasts {train.lr_warmup_steps} of {total or last} "
                f"steps, got {show(train.lr_schedule)}",
            )


def _idle_beside_gates(partial: PartialSpec, section: _Section) -> Iterator[Problem]:
    """Settings that train the model, where a mechanism's parameters alone are trained."""
    for path in _OF_THE_MODEL:
        name = path.rpartition(".")[2]
        default = TrainSettings.model_fields[name].default
        varied = any(path in point for point, _ in section.built)
        given = [
            train
            for train in _trainings(section)
            if varied or (path in _OF_ITS_SCHEDULE and getattr(train, name) != default)
        ]
        if given and all(train.parameters == "gates" for train in given):
            text = "has no effect while train.parameters is gates: their rate is "
            value = show(getattr(given[0], name))
            yield Problem(section.where(path), f"{text}{_rates(partial)}, got {value}")


def _idle_optimizers(section: _Section) -> Iterator[Problem]:
    """Settings of an optimiser that no arm has."""
    used = {train.optimizer for train in _trainings(section)}
    for name in optimizers.names():
        paths = [path for point, _ in section.built for path in point if _is_of(path, name)]
        said = any(getattr(train, name, None) is not None for train in _trainings(section))
        if said and name not in used:
            has = " or ".join(sorted(used))
            at = section.where(*paths, f"train.{name}")
            yield Problem(at, f"has no effect while train.optimizer is {has}")


def _is_of(path: str, optimizer: str) -> bool:
    return path.startswith(f"train.{optimizer}.")


def _trainings(section: _Section) -> Iterator[TrainSettings]:
    for _, train in section.built:
        assert isinstance(train, TrainSettings)
        yield train


def _rates(partial: PartialSpec) -> str:
    """The settings that are the learning rates of the spec's mechanisms."""
    names = partial.spec.mechanisms() or mechanisms.names()[:1]
    return " and ".join(f"{name}.{mechanisms.get(name).rate}" for name in names)


def _learns(section: _Section) -> bool:
    mechanism = mechanisms.get(section.name)
    return any(mechanism.learning_rate(settings) > 0 for _, settings in section.built)


def _idle_gates(partial: PartialSpec, learns: bool) -> Iterator[Problem]:
    """Mechanisms' parameters that are to be trained alone, and cannot be."""
    at = ("train", "parameters")
    if not learns:
        yield Problem(
            at, f"trains nothing: no gate learns, since {_rates(partial)} is 0, got 'gates'"
        )
    if "model" not in partial.broken and partial.spec.model.init is not None:
        # Its output matrices start at 0 (model.initial), so that no gate has a gradient.
        yield Problem(
            at, "needs model.checkpoint: a new model's states change nothing, got 'gates'"
        )


def _idle_mechanism(partial: PartialSpec, section: _Section) -> Iterator[Problem]:
    """Settings of a mechanism that change nothing, and mechanisms that do nothing."""
    mechanism, context = mechanisms.get(section.name), Context(partial.layers())
    wasted: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for point, settings in section.built:
        found = {
            f"{section.name}.{idle.setting}": idle for idle in mechanism.idle(settings, context)
        }
        nothing = next((path for path in found if found[path].extent == "mechanism"), None)
        if nothing is not None:
            if section.whole or found[nothing].sure:
                yield Problem(section.where(nothing, *point), found[nothing].text)
            continue
        if not section.whole:
            continue
        for path in point:
            idle = found.get(path)
            if idle is not None and idle.extent == "here":
                yield Problem(section.where(path), idle.text + _hint(partial, section, idle))
            wasted[path, show(point[path])].append(
                idle.text if idle is not None and idle.extent == "where given" else None
            )
    for (path, value), texts in wasted.items():
        if all(texts):
            yield Problem(section.where(path), f"{texts[0]}, got {value}")


def _hint(partial: PartialSpec, section: _Section, idle: Idle) -> str:
    """Where a setting could be given so that it has an effect."""
    if idle.unless is None or f"{section.name}.{idle.unless[0]}" not in partial.spec.space:
        return ""
    setting, values = idle.unless
    return f"; give it `when: {{{section.name}.{setting}: [{', '.join(values)}]}}`"
