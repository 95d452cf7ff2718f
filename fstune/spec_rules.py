"""What the sections of a spec must agree on, and which values can have no effect.

Rules take a spec of which sections may be broken: those that need a broken one are left out. The
space is judged by its corners: every combination of choices and bounds that its conditions admit.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice, pairwise

from pydantic import JsonValue, TypeAdapter, ValidationError

from fstune.arm import TrainSettings
from fstune.space import Point, Scalar, Space, condition_problems, nearest, show
from fstune.spec_sections import (
    MECHANISM,
    SearchSettings,
    SearchSpec,
    of_mechanism,
    section_types,
    with_values,
)
from fstune.spec_wording import Problem, explain, setting_paths
from fstune.yaml_reader import KeyPath
from model.config import FutureSeed
from tasks import registry

_NOT_VARIED = {
    "task.name": "a search has one task",
    "train.seed": "seeds are repetitions, not candidates: give a rung more `seeds`",
    "model.checkpoint": "a search has one checkpoint: write one spec for each",
    "model.init.width": "ranks follow from it: write one spec for each width",
}
_MOST_CORNERS = 4096
"""More of them are not looked at one by one; so many are drawn instead."""


@dataclass(frozen=True)
class Draft:
    """A spec that may have broken parts."""

    spec: SearchSpec
    """Holds the parts that are valid."""
    broken: frozenset[str] = frozenset()
    """Sections that are not, or not all, valid."""
    space_paths: tuple[str, ...] = ()
    """The paths of the space whose domains are broken."""
    num_layers: int | None = None
    """Layers of the model, where known."""

    @cached_property
    def space(self) -> Space | None:
        """The space, unless something is wrong with it."""
        known = set(self.settable)
        if "space" in self.broken or "task" in self.broken:
            return None
        if any(condition_problems(self.spec.space)) or not known.issuperset(self.spec.space):
            return None
        return Space(self.spec.space)

    @cached_property
    def settable(self) -> tuple[str, ...]:
        """Paths of all settings of an arm; of a broken task's, none."""
        paths: list[str] = []
        if "task" in self.broken:
            task = registry.names()[0]
            types = {name: kind for name, kind in section_types(task).items() if name != "task"}
        else:
            types = section_types(self.spec.task.name)
        for name, kind in types.items():
            paths.extend(setting_paths(kind, name))
        return tuple(paths)

    def layers(self) -> int | None:
        """The fewest layers that a candidate's model has, where known."""
        if self.num_layers is not None or "model" in self.broken:
            return self.num_layers
        init = self.spec.model.init
        domain = self.spec.space.get("model.init.num_layers")
        counts = [value for value in domain.extremes if isinstance(value, int)] if domain else []
        return min(counts, default=init.num_layers if init else None)


def problems(draft: Draft) -> list[Problem]:
    """Every rule across sections that a draft breaks."""
    found: list[Problem] = []
    for needs, rule in _RULES:
        if not draft.broken.intersection(needs):
            found.extend(rule(draft))
    return list(dict.fromkeys(found))


def _rungs_rise(draft: Draft) -> Iterator[Problem]:
    for index, (low, high) in enumerate(pairwise(draft.spec.rungs), start=1):
        at = ("rungs", index)
        if high.steps < low.steps:
            yield Problem((*at, "steps"), f"must not fall, got {high.steps} after {low.steps}")
        if high.seeds < low.seeds:
            yield Problem((*at, "seeds"), f"must not fall, got {high.seeds} after {low.seeds}")
        if (high.steps, high.seeds) == (low.steps, low.seeds):
            yield Problem(at, "must have more steps or more seeds than the rung before it")


def _metric_is_known(draft: Draft) -> Iterator[Problem]:
    metric = draft.spec.objective.metric
    task = registry.get(draft.spec.task.name)
    known = [each.name for each in task.metrics]
    if metric is not None and metric not in known:
        yield Problem(
            ("objective", "metric"),
            f"must be one of {task.name}'s metrics, {', '.join(known)}, got {show(metric)}"
            f"{nearest(metric, known)}",
        )


def _evaluations_add(draft: Draft) -> Iterator[Problem]:
    every = draft.spec.evaluation.every
    rungs = {rung.steps for rung in draft.spec.rungs}
    last = max(rungs)
    if every and rungs.issuperset(range(every, last, every)):
        yield Problem(
            ("evaluation", "every"),
            f"has no effect: no step before the last rung's {last} is added, got {every}",
        )


def _search_settings_act(draft: Draft) -> Iterator[Problem]:
    search, one_rung = draft.spec.search, len(draft.spec.rungs) == 1
    why = "with a single rung" if one_rung else "while search.scheduler is none"
    default = SearchSettings.model_fields["reduction_factor"].default
    if search.reduction_factor != default and (one_rung or search.scheduler == "none"):
        at = ("search", "reduction_factor")
        yield Problem(at, f"has no effect {why}, got {search.reduction_factor}")
    if search.prune_below is not None and one_rung:
        yield Problem(("search", "prune_below"), f"has no effect {why}, got {search.prune_below}")


def _paths_are_settings(draft: Draft) -> Iterator[Problem]:
    named = [("space", path) for path in (*draft.spec.space, *draft.space_paths)]
    if "baseline" not in draft.broken:
        named += [("baseline", path) for path in draft.spec.baseline]
    fixed = draft.spec.fixed.future_seed if "fixed" not in draft.broken else None
    named += [("fixed", path) for path in _fixed_paths(fixed)]
    for section, path in named:
        at = _at(section, path)
        if path in _NOT_VARIED:
            yield Problem(at, f"must stay as it is: {_NOT_VARIED[path]}")
        elif path not in draft.settable and not (
            path.startswith("task.") and "task" in draft.broken
        ):
            mend = nearest(path, draft.settable)
            sections = ", ".join(section_types(registry.names()[0]))
            yield Problem(at, f"is no setting{mend or f'; settings are in {sections}'}")


def _conditions_hold(draft: Draft) -> Iterator[Problem]:
    for path, other, rule in condition_problems(draft.spec.space, draft.space_paths):
        yield Problem(("space", path, "when", other), rule)


def _nothing_is_set_twice(draft: Draft) -> Iterator[Problem]:
    for path in _fixed_paths(draft.spec.fixed.future_seed):
        if path in draft.spec.space or path in draft.space_paths:
            yield Problem(("space", path), "must be in `fixed` or in `space`, got both")


def _arms_differ(draft: Draft) -> Iterator[Problem]:
    spec = draft.spec
    if not spec.baseline and not spec.has_mechanism():
        yield Problem(
            ("space",),
            "must vary the mechanism (future_seed.…), or `fixed` or `baseline` must be given: "
            "both arms would be the same",
        )


def _baseline_differs(draft: Draft) -> Iterator[Problem]:
    spec = draft.spec
    base = spec.model_dump(mode="json", include={"model", "task", "train"})
    for path, value in spec.baseline.items():
        node: JsonValue = base
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if path not in spec.space and not of_mechanism(path) and node == value:
            yield Problem(("baseline", path), f"has no effect: it is {show(value)} in both arms")


def _points_are_candidates(draft: Draft) -> Iterator[Problem]:
    if draft.space is None:
        return
    points = draft.spec.points
    for index, point in enumerate(points):
        for path, rule in draft.space.refusals(point):
            yield Problem(("points", index, path), rule)
        if point in points[:index]:
            yield Problem(("points", index), "must differ from the points before it")


def _trials_suffice(draft: Draft) -> Iterator[Problem]:
    trials, points = draft.spec.search.trials, len(draft.spec.points)
    at = ("search", "trials")
    if "points" not in draft.broken and trials < points:
        yield Problem(at, f"must be at least {points}, the number of points, got {trials}")
    if draft.space is not None:
        candidates = draft.space.count(trials)
        if candidates < trials:
            yield Problem(
                at, f"must be at most {candidates}, the candidates of the space, got {trials}"
            )


def _at(section: str, path: str) -> KeyPath:
    return ("fixed", *path.split(".")) if section == "fixed" else (section, path)


def _fixed_paths(seed: Mapping[str, object] | None) -> Iterator[str]:
    for name, value in (seed or {}).items():
        if isinstance(value, dict):
            yield from (f"{MECHANISM}.{name}.{part}" for part in value)
        else:
            yield f"{MECHANISM}.{name}"


@dataclass
class _Corners:
    """One section's settings at the corners of the space: what fails, and what comes of it."""

    built: list[tuple[Point, object]] = field(default_factory=list)
    failed: list[tuple[Point, Problem]] = field(default_factory=list)


@lru_cache
def _adapter(kind: type) -> TypeAdapter[object]:
    return TypeAdapter(kind)


def _build(kind: type, name: str, base: dict[str, JsonValue], point: Point) -> object:
    """A section's settings, or the problem that keeps them from being."""
    own = {path: value for path, value in point.items() if path.startswith(f"{name}.")}
    values = with_values({name: base}, own)[name]
    try:
        return _adapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        return explain(error, (name,), kind, values)[0]
