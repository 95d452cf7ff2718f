"""What the sections of a spec must agree on.

Rules take a spec of which sections may be broken: those that need a broken one are left out. What
values do to an arm is judged in `effects`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from fstune.specs.messages import Problem, setting_paths
from fstune.specs.sections import Fixed, SearchSettings, SearchSpec, section_types
from fstune.specs.settings import Scalar
from fstune.specs.space import Space, condition_problems
from fstune.specs.words import nearest, show
from fstune.specs.yaml import KeyPath
from model.mechanisms import registry as mechanisms
from tasks import registry

_SEED = "train.seed"


NOT_VARIED = {
    "task.name": "a search has one task",
    "train.seed": "seeds are repetitions, not candidates: give a rung more `seeds`",
    "task.data_seed": "seeds are repetitions, not candidates: give a rung more `seeds`",
    "task.train_sample": "seeds are repetitions, not candidates: give a rung more `seeds`",
    "task.validation_size": "all candidates are compared on the same examples",
    "task.test_size": "all finalists are confirmed on the same examples",
    "model.checkpoint": "a search has one checkpoint: write one spec for each",
    "model.wkv": "all arms of a search are computed alike",
    "model.init.width": "ranks follow from it: write one spec for each width",
}


@dataclass(frozen=True)
class PartialSpec:
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
    def space(self) -> Space:
        """The space, as far as nothing is wrong with it."""
        sound = {path: domain for path, domain in self.spec.space.items() if path in self.settable}
        while True:
            wrong = {path for path, _, _ in condition_problems(sound)}
            if not wrong:
                return Space(sound)
            sound = {path: domain for path, domain in sound.items() if path not in wrong}

    @property
    def space_is_whole(self) -> bool:
        """Whether nothing is wrong with the space."""
        return "space" not in self.broken and len(self.space.paths) == len(self.spec.space)

    @cached_property
    def types(self) -> Mapping[str, type]:
        """The type of each section of an arm's settings; a broken task's is left out."""
        if "task" in self.broken:
            types = section_types(registry.names()[0])
            return {name: kind for name, kind in types.items() if name != "task"}
        return section_types(self.spec.task_name)

    @cached_property
    def settable(self) -> tuple[str, ...]:
        """Paths of all settings of an arm."""
        return tuple(
            path for name, kind in self.types.items() for path in setting_paths(kind, name)
        )

    def layers(self) -> int | None:
        """The fewest layers that a candidate's model has, where known."""
        if self.num_layers is not None or "model" in self.broken:
            return self.num_layers
        init = self.spec.model.init
        domain = self.spec.space.get("model.init.num_layers")
        counts = [value for value in domain.extremes if isinstance(value, int)] if domain else []
        return min(counts, default=init.num_layers if init else None)


def problems(partial: PartialSpec) -> list[Problem]:
    """Every rule across sections that a partial breaks."""
    found: list[Problem] = []
    for needs, rule in _RULES:
        if not partial.broken.intersection(needs):
            found.extend(rule(partial))
    return list(dict.fromkeys(found))


def _rungs_rise(partial: PartialSpec) -> Iterator[Problem]:
    for index, (low, high) in enumerate(pairwise(partial.spec.rungs), start=1):
        at = ("rungs", index)
        if high.steps < low.steps:
            yield Problem((*at, "steps"), f"must not fall, got {high.steps} after {low.steps}")
        if high.seeds < low.seeds:
            yield Problem((*at, "seeds"), f"must not fall, got {high.seeds} after {low.seeds}")
        if (high.steps, high.seeds) == (low.steps, low.seeds):
            yield Problem(at, "must have more steps or more seeds than the rung before it")


def _metric_is_known(partial: PartialSpec) -> Iterator[Problem]:
    metric = partial.spec.objective.metric
    task = registry.get(partial.spec.task_name)
    known = [each.name for each in task.measured(partial.spec.task)]
    if metric is not None and metric not in known:
        yield Problem(
            ("objective", "metric"),
            f"must be one of {task.name}'s metrics, {', '.join(known)}, got {show(metric)}"
            f"{nearest(metric, known)}",
        )


def _evaluations_add(partial: PartialSpec) -> Iterator[Problem]:
    evaluation, rungs = partial.spec.evaluation, {rung.steps for rung in partial.spec.rungs}
    every, last = evaluation.every, max(rungs)
    steps = range(every, last, every) if every else ()
    if every and all(step in rungs or evaluation.is_cooling(step, rungs) for step in steps):
        unless = " outside of branches that cool" if evaluation.cooldown else ""
        yield Problem(
            ("evaluation", "every"),
            f"has no effect: no step before the last rung's {last} is added{unless}, got {every}",
        )


def _weights_come_to_rest(partial: PartialSpec) -> Iterator[Problem]:
    evaluation, steps = partial.spec.evaluation, [rung.steps for rung in partial.spec.rungs]
    decay = evaluation.mean_decay
    if (
        evaluation.weights == "last"
        and decay != type(evaluation).model_fields["mean_decay"].default
    ):
        rule = f"has no effect while evaluation.weights is last, got {decay}"
        yield Problem(("evaluation", "mean_decay"), rule)
    if evaluation.weights == "mean" and max(steps) == 1:
        rule = "has no effect: after 1 step the mean is the last, got 'mean'"
        yield Problem(("evaluation", "weights"), rule)
    if evaluation.cooldown and not evaluation.cooled_steps(min(steps)):
        yield Problem(
            ("evaluation", "cooldown"),
            f"must come to a step or more of each rung's: of {min(steps)} steps it is none, got "
            f"{evaluation.cooldown}",
        )


def _repetitions_differ(partial: PartialSpec) -> Iterator[Problem]:
    spec = partial.spec
    new_weights = spec.seeds.init and spec.model.init is not None
    confirmed = spec.confirm is not None and spec.confirm.seeds > 1
    repeated = confirmed or any(rung.seeds > 1 for rung in spec.rungs)
    if repeated and not (spec.seeds.order or spec.seeds.data or new_weights):
        at = "order or data" if spec.model.init is None else "order, data or init"
        rule = f"{at} must be true, or all repetitions are one and the same"
        yield Problem(("seeds",), rule)


def _search_settings_act(partial: PartialSpec) -> Iterator[Problem]:
    search, one_rung = partial.spec.search, len(partial.spec.rungs) == 1
    why = "with a single rung" if one_rung else "while search.scheduler is none"
    default = SearchSettings.model_fields["reduction_factor"].default
    if search.reduction_factor != default and (one_rung or search.scheduler == "none"):
        at = ("search", "reduction_factor")
        yield Problem(at, f"has no effect {why}, got {search.reduction_factor}")
    if search.prune_below is not None and one_rung:
        yield Problem(("search", "prune_below"), f"has no effect {why}, got {search.prune_below}")


def _paths_are_settings(partial: PartialSpec) -> Iterator[Problem]:
    named = [("space", path) for path in (*partial.spec.space, *partial.space_paths)]
    if "baseline" not in partial.broken:
        named += [("baseline", path) for path in partial.spec.baseline]
    fixed = partial.spec.fixed if "fixed" not in partial.broken else Fixed()
    named += [("fixed", path) for path, _ in fixed_values(fixed)]
    for section, path in named:
        at = place_of(section, path)
        if path in NOT_VARIED and not (path == _SEED and _searches_chance(partial)):
            yield Problem(at, f"must stay as it is: {NOT_VARIED[path]}")
        elif path not in partial.settable and not (
            path.startswith("task.") and "task" in partial.broken
        ):
            yield Problem(at, f"is no setting{_settable_mend(path, partial)}")


def _searches_chance(partial: PartialSpec) -> bool:
    """Whether the arms differ in their seed on purpose, to see what chance alone comes to."""
    return _SEED in partial.spec.space and _SEED in partial.spec.baseline


def _settable_mend(path: str, partial: PartialSpec) -> str:
    """What to write instead of a path that is no setting."""
    inside = [known for known in partial.settable if known.startswith(f"{path}.")]
    if inside:
        return f", it holds {', '.join(inside)}: name one of these"
    section = path[: path.rfind(".") + 1]
    beside = [known for known in partial.settable if section and known.startswith(section)]
    return (
        nearest(path, partial.settable)
        or (beside and f"; known are {', '.join(beside)}")
        or f"; settings are in {', '.join(partial.types)}"
    )


def _conditions_hold(partial: PartialSpec) -> Iterator[Problem]:
    for path, other, rule in condition_problems(partial.spec.space, partial.space_paths):
        yield Problem(("space", path, "when", other), rule)


def _the_sampler_takes_the_space(partial: PartialSpec) -> Iterator[Problem]:
    conditional = [path for path, domain in partial.spec.space.items() if domain.when is not None]
    if conditional and partial.spec.search.sampler == "gp":
        rule = f"gp takes no conditions, and space.{conditional[0]} has one; tpe and random do"
        yield Problem(("search", "sampler"), rule)
    ranges = [path for path, domain in partial.spec.space.items() if domain.size == math.inf]
    if ranges and partial.spec.search.sampler == "grid":
        rule = f"grid takes no ranges, and space.{ranges[0]} is one; give it a `choice`"
        yield Problem(("search", "sampler"), rule)


def _nothing_is_set_twice(partial: PartialSpec) -> Iterator[Problem]:
    for path, _ in fixed_values(partial.spec.fixed):
        if path in partial.spec.space or path in partial.space_paths:
            yield Problem(("space", path), "must be in `fixed` or in `space`, got both")


def _arms_differ(partial: PartialSpec) -> Iterator[Problem]:
    spec = partial.spec
    if not spec.baseline and not spec.mechanisms():
        known = ", ".join(f"{name}.…" for name in mechanisms.names())
        yield Problem(
            ("space",),
            f"must vary a mechanism ({known}), or `fixed` or `baseline` must be given: both arms "
            "would be the same",
        )


def _baseline_differs(partial: PartialSpec) -> Iterator[Problem]:
    spec = partial.spec
    base = spec.model_dump(mode="json", include={"model", "task", "train"})
    for path, value in spec.baseline.items():
        node: object = base
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if path not in spec.space and not mechanisms.of_path(path) and node == value:
            yield Problem(("baseline", path), f"has no effect: it is {show(value)} in both arms")


def _points_are_candidates(partial: PartialSpec) -> Iterator[Problem]:
    points = partial.spec.points if partial.space_is_whole else ()
    for index, point in enumerate(points):
        for path, rule in partial.space.refusals(point):
            yield Problem(("points", index, path), rule)
        if point in points[:index]:
            yield Problem(("points", index), "must differ from the points before it")


def _trials_suffice(partial: PartialSpec) -> Iterator[Problem]:
    trials, points = partial.spec.search.trials, len(partial.spec.points)
    at = ("search", "trials")
    if "points" not in partial.broken and trials < points:
        yield Problem(at, f"must be at least {points}, the number of points, got {trials}")
    if partial.space_is_whole:
        candidates = partial.space.count(trials)
        if candidates < trials:
            yield Problem(
                at, f"must be at most {candidates}, the candidates of the space, got {trials}"
            )


def _a_confirmation_has_examples(partial: PartialSpec) -> Iterator[Problem]:
    spec = partial.spec
    if spec.confirm is not None and spec.task.test_size < 1:
        yield Problem(
            ("confirm",), "needs test examples: `task.test_size` must be at least 1, got 0"
        )


def _a_confirmation_knows_what_is_worth_it(partial: PartialSpec) -> Iterator[Problem]:
    spec = partial.spec
    if spec.confirm is None or spec.confirm.looks == "fixed":
        return
    if not spec.objective.worth_deciding:
        rule = "needs `objective.worth`, the smallest gain that matters, where the margin is 0"
        yield Problem(("confirm",), rule)


def _worth_is_no_less_than_the_margin(partial: PartialSpec) -> Iterator[Problem]:
    objective = partial.spec.objective
    if objective.worth is not None and objective.worth < objective.margin:
        rule = f"must be at least the margin, {objective.margin:g}, got {objective.worth:g}"
        yield Problem(("objective", "worth"), rule)


def place_of(section: str, path: str) -> KeyPath:
    return ("fixed", *path.split(".")) if section == "fixed" else (section, path)


def fixed_values(fixed: Fixed) -> Iterator[tuple[str, Scalar]]:
    """The fixed settings of all mechanisms, by path."""
    for mechanism, values in fixed.mechanisms.items():
        for name, value in values.items():
            if isinstance(value, Mapping):
                yield from ((f"{mechanism}.{name}.{part}", each) for part, each in value.items())
            else:
                yield f"{mechanism}.{name}", value


Rule = Callable[[PartialSpec], Iterator[Problem]]


_RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("rungs",), _rungs_rise),
    (("objective", "task"), _metric_is_known),
    (("evaluation", "rungs"), _evaluations_add),
    (("evaluation", "rungs"), _weights_come_to_rest),
    (("seeds", "model", "rungs", "confirm"), _repetitions_differ),
    (("search", "rungs"), _search_settings_act),
    ((), _paths_are_settings),
    ((), _conditions_hold),
    (("search", "space"), _the_sampler_takes_the_space),
    (("fixed",), _nothing_is_set_twice),
    (("space", "fixed", "baseline"), _arms_differ),
    (("model", "task", "train", "baseline"), _baseline_differs),
    (("points",), _points_are_candidates),
    (("search",), _trials_suffice),
    (("confirm", "task"), _a_confirmation_has_examples),
    (("confirm", "objective"), _a_confirmation_knows_what_is_worth_it),
    (("objective",), _worth_is_no_less_than_the_margin),
)
"""Each rule with the sections that it needs whole."""
