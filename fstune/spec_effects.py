"""What the values of a spec do to an arm: which are refused, and which can have no effect.

A space is judged by its corners: every combination of choices and bounds that its conditions
admit. A value that its setting refuses is told where it stands; values that are fine one by one
but not together are told together.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from pydantic import JsonValue, TypeAdapter, ValidationError

from fstune.arm import Scalar, TrainSettings
from fstune.space import Point, same, show
from fstune.spec_rules import NOT_VARIED, Draft, fixed_values, place_of
from fstune.spec_sections import MECHANISM, with_values
from fstune.spec_wording import Problem, explain
from fstune.yaml_reader import KeyPath
from model.config import FutureSeed

_MOST_CORNERS = 4096
"""Beyond so many, as many are drawn instead."""


def problems(draft: Draft) -> list[Problem]:
    """Values that are refused, and values that can have no effect."""
    found: list[Problem] = []
    for name in ("model", "task", "train", MECHANISM):
        if name in draft.broken or (name == MECHANISM and "fixed" in draft.broken):
            continue
        values = _Values(draft, name)
        refused = list(values.refused())
        found.extend(refused)
        if not refused and name == "train" and "rungs" not in draft.broken:
            found.extend(_idle_training(draft, values))
        if not refused and name == MECHANISM:
            found.extend(_idle_mechanism(draft, values))
    return list(dict.fromkeys(found))


@lru_cache
def _adapter(kind: type) -> TypeAdapter[object]:
    return TypeAdapter(kind)


class _Values:
    """One section of an arm's settings, under all the values that a spec gives it."""

    def __init__(self, draft: Draft, name: str) -> None:
        spec = draft.spec
        self._name = name
        self._kind = FutureSeed if name == MECHANISM else draft.types[name]
        self._base: JsonValue = {}
        if name != MECHANISM:
            self._base = spec.model_dump(mode="json", include={name})[name]
        known = {path for path in draft.settable if path.startswith(f"{name}.")} - set(NOT_VARIED)
        fixed = dict(fixed_values(spec.fixed.future_seed)) if name == MECHANISM else {}
        self.fixed: Point = {path: value for path, value in fixed.items() if path in known}
        domains = {path: domain for path, domain in spec.space.items() if path in known}
        baseline = {} if "baseline" in draft.broken else spec.baseline
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
        self.corners = self._own_corners(draft, list(domains))

    def _own_corners(self, draft: Draft, paths: list[str]) -> list[Point]:
        """The section's values at the corners, `fixed` included; just those where no space is."""
        if draft.space is None:
            return [self.fixed]
        corners: dict[tuple[tuple[str, str], ...], Point] = {}
        for corner in draft.space.corners(paths, _MOST_CORNERS):
            own = {path: value for path, value in corner.items() if path in paths}
            key = tuple((path, repr(value)) for path, value in own.items())
            corners.setdefault(key, {**self.fixed, **own})
        return list(corners.values())

    def build(self, point: Point) -> object:
        """The section's settings with the values of a point, or the problem that they have."""
        values = with_values({self._name: self._base}, point)[self._name]
        try:
            return _adapter(self._kind).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            return explain(error, (), self._kind, values)[0]

    def built(self) -> Iterator[tuple[Point, object]]:
        """Every corner with what is built there."""
        for corner in self.corners:
            yield corner, self.build(corner)

    def refused(self) -> Iterator[Problem]:
        """Values that the section's settings refuse, alone or together."""
        tries = list(self.built())
        if self.baseline:
            tries += [(point, self.build(point)) for point in self.baselines()]
        good = [point for point, result in tries if not isinstance(result, Problem)]
        bad: list[tuple[str, Scalar]] = []
        for at, path, value in self._given:
            alone = self.build({path: value})
            met = any(path in point and same(point[path], value) for point in good)
            if isinstance(alone, Problem) and not met:
                bad.append((path, value))
                yield Problem(at, _told(alone.text, value))
        together: set[frozenset[str]] = set()
        for point, result in tries:
            known = any(path in point and same(point[path], value) for path, value in bad)
            if isinstance(result, Problem) and not known:
                cause = self._cause(point)
                if frozenset(cause) not in together:
                    together.add(frozenset(cause))
                    yield self._together(cause)

    def baselines(self) -> list[Point]:
        """The section's values in the baseline, at the corners of the context."""
        if self._name == MECHANISM:
            return [{**self.fixed, **self.baseline}] if self.baseline else []
        return [{**corner, **self.baseline} for corner in self.corners]

    def _cause(self, point: Point) -> Point:
        """A part of a refused point that is refused too, but in none of its own parts."""
        cause = dict(point)
        for path in point:
            fewer = {other: value for other, value in cause.items() if other != path}
            if isinstance(self.build(fewer), Problem):
                cause = fewer
        return cause

    def _together(self, cause: Point) -> Problem:
        result = self.build(cause)
        assert isinstance(result, Problem)
        where = " and ".join(f"{path} = {show(value)}" for path, value in cause.items())
        return Problem(self.where(next(iter(cause), "")), f"{result.text}, at {where}")

    def where(self, *paths: str) -> KeyPath:
        """Where the first of these paths that the spec gives stands."""
        for path in paths:
            for at, given, _ in self._given:
                if path == given:
                    return at
        return (self._name,)


def _told(text: str, value: Scalar) -> str:
    return text if ", got " in text else f"{text}, got {show(value)}"


def _idle_training(draft: Draft, values: _Values) -> Iterator[Problem]:
    """Settings of the optimisation that change nothing."""
    last = draft.spec.rungs[-1].steps
    points = [*values.corners, *(values.baselines() if values.baseline else ())]
    for point in points:
        train = values.build(point)
        assert isinstance(train, TrainSettings)
        total = train.lr_total_steps
        at = values.where("train.lr_total_steps")
        if at == ("train",):
            at = ("train", "lr_total_steps")
        if total is not None and train.lr_schedule == "constant":
            yield Problem(at, f"has no effect while lr_schedule is constant, got {total}")
        elif total is not None and total < last:
            yield Problem(at, f"must be at least {last}, the last rung's steps, got {total}")
        elif train.lr_schedule != "constant" and train.lr_warmup_steps >= (total or last):
            yield Problem(
                values.where("train.lr_schedule") + (() if values.corners[0] else ("lr_schedule",)),
                f"has no effect: the warm-up lasts {train.lr_warmup_steps} of {total or last} "
                f"steps, got {show(train.lr_schedule)}",
            )


def _idle_mechanism(draft: Draft, values: _Values) -> Iterator[Problem]:
    """Settings of the mechanism that change nothing, and mechanisms that do nothing."""
    layers = draft.layers()
    built = [*((point, True) for point in values.corners if draft.spec.has_mechanism())]
    points = [point for point, _ in built] + values.baselines()
    idle: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for point in points:
        seed = values.build(point)
        assert isinstance(seed, FutureSeed)
        nothing = _does_nothing(seed, layers)
        if nothing:
            path, text = nothing
            yield Problem(values.where(path, *point), text)
            continue
        if seed.schedule.kind == "none":
            for end in ("min", "max"):
                path = f"{MECHANISM}.schedule.{end}"
                if path in point:
                    rule = "has no effect while schedule.kind is none"
                    hint = f"; give it `when: {{{MECHANISM}.schedule.kind: [linear, cosine]}}`"
                    kind_varies = f"{MECHANISM}.schedule.kind" in draft.spec.space
                    yield Problem(values.where(path), rule + (hint if kind_varies else ""))
        for path in point:
            idle[path, repr(point[path])].append(_idle(path, seed, layers))
    for (path, value), reasons in idle.items():
        if all(reasons):
            yield Problem(values.where(path), f"has no effect {reasons[0]}, got {value}")


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
