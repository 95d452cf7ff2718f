"""What the values of a spec do to an arm: which are refused, and which can have no effect.

A space is judged by its corners: every combination of choices and bounds that its conditions
admit. A value that its setting refuses is told where it stands; values that are fine one by one
but not together are told together.
"""

from collections import defaultdict
from collections.abc import Iterator

from pydantic import JsonValue, ValidationError

from fstune.specs.messages import Problem, explain
from fstune.specs.rules import NOT_VARIED, PartialSpec, fixed_values, place_of
from fstune.specs.sections import MECHANISM, with_values
from fstune.specs.settings import Scalar, TrainSettings
from fstune.specs.space import Point, same
from fstune.specs.strict import checked
from fstune.specs.words import show
from fstune.specs.yaml import KeyPath
from model.config import FutureSeed

_BY_THEMSELVES = (f"{MECHANISM}.layer_start", f"{MECHANISM}.seed_scale")
"""What can switch a mechanism off whatever its other settings are."""


_OF_ITS_SCHEDULE = ("train.lr_schedule", "train.lr_warmup_steps", "train.lr_total_steps")


_OF_THE_MODEL = ("train.lr", "train.weight_decay", "train.grad_clip", *_OF_ITS_SCHEDULE)
"""What the model alone is trained by; the gates have `future_seed.alpha_lr`."""


_MOST_CORNERS = 4096
"""Beyond so many, as many are drawn instead."""


def problems(partial: PartialSpec) -> list[Problem]:
    """Values that are refused, and values that can have no effect."""
    found: list[Problem] = []
    for name in ("model", "task", "train", MECHANISM):
        if name in partial.broken or (name == MECHANISM and "fixed" in partial.broken):
            continue
        values = _Values(partial, name)
        found.extend(values.refused())
        if name == "train" and "rungs" not in partial.broken:
            found.extend(_idle_training(partial, values))
        if name == MECHANISM:
            found.extend(_idle_mechanism(partial, values))
    return list(dict.fromkeys(found))


class _Values:
    """One section of an arm's settings, under all the values that a spec gives it."""

    def __init__(self, partial: PartialSpec, name: str) -> None:
        spec = partial.spec
        self._draft, self._name = partial, name
        self._kind = FutureSeed if name == MECHANISM else partial.types[name]
        self._base: JsonValue = {}
        if name != MECHANISM:
            self._base = spec.model_dump(mode="json", include={name})[name]
        known = {path for path in partial.settable if path.startswith(f"{name}.")} - set(NOT_VARIED)
        fixed = dict(fixed_values(spec.fixed.future_seed)) if name == MECHANISM else {}
        self.fixed: Point = {path: value for path, value in fixed.items() if path in known}
        domains = {path: domain for path, domain in spec.space.items() if path in known}
        baseline = {} if "baseline" in partial.broken else spec.baseline
        self.baseline: Point = {path: value for path, value in baseline.items() if path in known}
        self._given: list[tuple[KeyPath, str, Scalar]] = [
            *((place_of("fixed", path), path, value) for path, value in self.fixed.items()),
            *((place_of("baseline", path), path, value) for path, value in self.baseline.items()),
            *(
                (place_of("space", path), path, value)
                for path, domain in domains.items()
                for value in domain.extremes
            ),
        ]
        self._bad: list[tuple[str, Scalar]] = []
        self.corners: list[Point] = []
        if name != MECHANISM or spec.has_mechanism():
            self.corners = self._own_corners(partial, list(domains))

    def _own_corners(self, partial: PartialSpec, paths: list[str]) -> list[Point]:
        """The section's values at the corners of the space, `fixed` included."""
        corners: dict[tuple[tuple[str, str], ...], Point] = {}
        sound = [path for path in paths if path in partial.space.paths]
        for corner in partial.space.corners(sound, _MOST_CORNERS):
            own = {path: value for path, value in corner.items() if path in sound}
            key = tuple((path, repr(value)) for path, value in own.items())
            corners.setdefault(key, {**self.fixed, **own})
        return list(corners.values())

    def build(self, point: Point) -> object:
        """The section's settings with the values of a point, or the problem that they have."""
        values = with_values({self._name: self._base}, point)[self._name]
        try:
            return checked(self._kind, values)
        except ValidationError as error:
            return explain(error, (), self._kind, values)[0]

    def refused(self) -> Iterator[Problem]:
        """Values that the section's settings refuse, alone or together."""
        results = [(point, self.build(point)) for point in (*self.corners, *self.baselines())]
        good = [point for point, result in results if not isinstance(result, Problem)]
        for at, path, value in self._given:
            alone = self.build({path: value})
            if isinstance(alone, Problem) and not _any_agrees(good, {path: value}):
                self._bad.append((path, value))
                yield Problem(at, _told(alone.text, value))
        told: set[frozenset[str]] = set()
        for point, result in results:
            if isinstance(result, Problem) and self._without_bad(point) == point:
                cause = _cause(point, good)
                if frozenset(cause) not in told:
                    told.add(frozenset(cause))
                    where = " and ".join(f"{path} = {show(cause[path])}" for path in cause)
                    yield Problem(self.where(*cause), f"{result.text}, at {where}")

    def built(self) -> Iterator[tuple[Point, object]]:
        """What is built at the corners, and in the baseline if it has values of its own.

        After `refused`; values that it told of are left out.
        """
        for point in (*self.corners, *self.baselines()):
            result = self.build(self._without_bad(point))
            if not isinstance(result, Problem):
                yield point, result

    @property
    def whole(self) -> bool:
        """Whether all that the spec says is sound, so that what it leaves out has its default."""
        return self._draft.space_is_whole and not self._bad

    def _without_bad(self, point: Point) -> Point:
        bad = [path for path, value in self._bad if path in point and same(point[path], value)]
        return {path: value for path, value in point.items() if path not in bad}

    def baselines(self) -> list[Point]:
        """The section's values in the baseline, at the corners of the context."""
        if not self.baseline:
            return []
        corners = [self.fixed] if self._name == MECHANISM else self.corners
        return [{**corner, **self.baseline} for corner in corners]

    def where(self, *paths: str) -> KeyPath:
        """Where the first of these paths that the space, `fixed` or `baseline` gives stands."""
        for path in paths:
            for at, given, _ in self._given:
                if path == given:
                    return at
        return tuple(paths[0].split(".")) if paths and self._name != MECHANISM else ("fixed",)


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


def _idle_training(partial: PartialSpec, values: _Values) -> Iterator[Problem]:
    """Settings of the optimisation that change nothing."""
    if not values.whole:
        return
    yield from _idle_beside_gates(values)
    last = partial.spec.rungs[-1].steps
    for train in _trainings(values):
        if train.parameters == "gates":
            continue
        total = train.lr_total_steps
        at = values.where("train.lr_total_steps")
        if total is not None and train.lr_schedule == "constant":
            yield Problem(at, f"has no effect while lr_schedule is constant, got {total}")
        elif total is not None and total < last:
            yield Problem(at, f"must be at least {last}, the last rung's steps, got {total}")
        elif train.lr_schedule != "constant" and train.lr_warmup_steps >= (total or last):
            yield Problem(
                values.where("train.lr_schedule"),
                f"has no effect: the warm-up lasts {train.lr_warmup_steps} of {total or last} "
                f"steps, got {show(train.lr_schedule)}",
            )


def _idle_beside_gates(values: _Values) -> Iterator[Problem]:
    """Settings that train the model, where the gates alone are trained."""
    for path in _OF_THE_MODEL:
        name = path.rpartition(".")[2]
        default = TrainSettings.model_fields[name].default
        varied = any(path in point for point, _ in values.built())
        given = [
            train
            for train in _trainings(values)
            if varied or (path in _OF_ITS_SCHEDULE and getattr(train, name) != default)
        ]
        if given and all(train.parameters == "gates" for train in given):
            text = "has no effect while train.parameters is gates: their rate is "
            value = show(getattr(given[0], name))
            yield Problem(values.where(path), f"{text}{MECHANISM}.alpha_lr, got {value}")


def _trainings(values: _Values) -> Iterator[TrainSettings]:
    for _, train in values.built():
        assert isinstance(train, TrainSettings)
        yield train


def _idle_mechanism(partial: PartialSpec, values: _Values) -> Iterator[Problem]:
    """Settings of the mechanism that change nothing, and mechanisms that do nothing."""
    layers = partial.layers()
    idle: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    learns = False
    for point, seed in values.built():
        assert isinstance(seed, FutureSeed)
        learns = learns or seed.alpha_lr > 0
        nothing = _does_nothing(seed, layers)
        if nothing:
            path, text = nothing
            if values.whole or path in _BY_THEMSELVES:
                yield Problem(values.where(path, *point), text)
        elif values.whole:
            yield from _idle_schedule(partial, values, point, seed)
            for path in point:
                idle[path, show(point[path])].append(_idle(path, seed, layers))
    for (path, value), reasons in idle.items():
        if all(reasons):
            yield Problem(values.where(path), f"has no effect {reasons[0]}, got {value}")
    if values.whole and "train" not in partial.broken and partial.spec.train.parameters == "gates":
        yield from _idle_gates(partial, learns)


def _idle_gates(partial: PartialSpec, learns: bool) -> Iterator[Problem]:
    """Gates that are to be trained alone, and cannot be."""
    at = ("train", "parameters")
    if not learns:
        yield Problem(
            at, f"trains nothing: no gate learns, since {MECHANISM}.alpha_lr is 0, got 'gates'"
        )
    if "model" not in partial.broken and partial.spec.model.init is not None:
        # Its output matrices start at 0 (model.initial), so that no gate has a gradient.
        yield Problem(
            at, "needs model.checkpoint: a new model's states change nothing, got 'gates'"
        )


def _idle_schedule(
    partial: PartialSpec, values: _Values, point: Point, seed: FutureSeed
) -> Iterator[Problem]:
    """A schedule's ends, given at a point where there is no schedule."""
    kind = f"{MECHANISM}.schedule.kind"
    hint = f"; give it `when: {{{kind}: [linear, cosine]}}`" if kind in partial.spec.space else ""
    for path in (f"{MECHANISM}.schedule.min", f"{MECHANISM}.schedule.max"):
        if path in point and seed.schedule.kind == "none":
            yield Problem(values.where(path), f"has no effect while schedule.kind is none{hint}")


def _does_nothing(seed: FutureSeed, layers: int | None) -> tuple[str, str] | None:
    """Why a mechanism is as good as off: the setting to blame, and the rule."""
    if layers is not None and seed.layer_start >= layers:
        return (
            f"{MECHANISM}.layer_start",
            f"must be under {layers}, the number of layers, got {seed.layer_start}",
        )
    if seed.seed_scale == 0:
        return f"{MECHANISM}.seed_scale", "must be over 0: at 0 nothing is handed on, got 0"
    # Without the number of layers, a depth that has all positions between first and last.
    depth = layers or seed.layer_start + 2
    if all(seed.strength(layer, depth) == 0 for layer in range(seed.layer_start, depth)):
        end = "max" if seed.schedule.max == 0 else "min"
        return (
            f"{MECHANISM}.schedule.{end}",
            "must be over 0: the strength is 0 at every layer that is seeded, got 0",
        )
    return None


def _idle(path: str, seed: FutureSeed, layers: int | None) -> str | None:
    """Why the setting at `path` changes nothing beside the others; None where it may."""
    schedule = seed.schedule
    name = path.removeprefix(f"{MECHANISM}.")
    if name == "schedule.kind" and schedule.kind != "none" and schedule.min == schedule.max == 1:
        return "while schedule.min and schedule.max are both 1"
    if name == "schedule.max" and schedule.kind != "none" and seed.layer_start + 1 == layers:
        return "while only the last layer is seeded: its strength is schedule.min"
    if name == "gate" and seed.gate != "scalar" and seed.alpha_lr == 0:
        # Per-head logits start equal and an input gate's weights start at 0 (model.future_seed).
        return "while alpha_lr is 0: it starts as the scalar gate and stays it"
    return None
