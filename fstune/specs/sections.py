"""The sections of a spec, and `SearchSpec`, which holds them all.

What a section refuses by itself is here; what several of them say together is in `rules`, and how a
file becomes a spec in `loading`.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    TypeAdapter,
    create_model,
    model_validator,
)

from fstune.files import digest_of
from fstune.specs.settings import (
    ArmSettings,
    EvaluatedWeights,
    ModelSettings,
    OfMechanisms,
    Scalar,
    Section,
    TaskSettings,
    TrainSettings,
    VariedSeeds,
)
from fstune.specs.space import Domain, Point, ScalarField
from fstune.specs.strict import checked
from model.mechanisms import registry as registry_of_mechanisms
from model.mechanisms.registry import of_path as of_mechanism
from tasks import registry

if TYPE_CHECKING:
    from tasks.metrics import Metric


LOOKS = (4, 6, 8, 12, 16, 24, 32)
"""Seeds at each look of a sequential confirmation."""


LONGEST_NAME = 120
"""Of a search: a file system takes 255 bytes, and temporary files add to a name."""


PROBE = "probe"
"""In place of `train.batch_size`: the largest that fits, tried out when the search is made."""


def plain_name(name: str) -> str:
    """The name of a search.

    Raises:
        ValueError: it could be no folder's name everywhere.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"must be letters, digits, _ and - only, got {name!r}")
    if len(name) > LONGEST_NAME:
        shown = f"{len(name)} of them, {name[:20]}…"
        raise ValueError(f"must be at most {LONGEST_NAME} letters long, got {shown}")
    return name


class Rung(Section):
    """A point of comparison."""

    steps: int = Field(ge=1)
    """Optimiser steps from the start of training."""
    seeds: int = Field(1, ge=1)
    """Pairs of arms that are compared here, each pair with its own seed."""


class EvaluationSettings(EvaluatedWeights):
    """What of an arm is evaluated, and when beside the rungs."""

    every: int = Field(0, ge=0)
    """Steps between evaluations beside those at the rungs; 0 for none. While a branch cools there
    is none."""

    def steps_taken(self, rungs: Iterable[int]) -> int:
        """The optimiser steps of an arm that was compared at these rungs, branches included.

        Args:
            rungs: their steps; the arm itself goes on to where the last one's branch begins.
        """
        reached = set(rungs)
        last = max(reached)
        return last - self.cooled_steps(last) + sum(map(self.cooled_steps, reached))


FixedValues = dict[str, ScalarField | dict[str, ScalarField]]
"""Settings of a mechanism as a spec writes them."""


class _Fixed(OfMechanisms):
    """What every candidate has in common beyond the context, a section for each mechanism."""

    @property
    def mechanisms(self) -> dict[str, FixedValues]:
        """What is said of each mechanism that anything is said of."""
        found = {name: getattr(self, name) for name in registry_of_mechanisms.names()}
        return {name: values for name, values in found.items() if values is not None}

    @model_validator(mode="after")
    def _no_setting_is_empty(self) -> Self:
        for mechanism, values in self.mechanisms.items():
            for name, value in values.items():
                if value == {}:
                    raise ValueError(f"{mechanism}: {name} must have a value, got {{}}")
        return self


if TYPE_CHECKING:
    Fixed = _Fixed
else:
    Fixed = create_model(
        "Fixed",
        __base__=_Fixed,
        __doc__=_Fixed.__doc__,
        __module__=__name__,
        **{
            name: (
                FixedValues | None,
                Field(
                    None,
                    description=f"Settings of {registry_of_mechanisms.get(name).title} that the "
                    "space does not vary; given as `{}`, its defaults.",
                ),
            )
            for name in registry_of_mechanisms.names()
        },
    )


class Objective(Section):
    """What makes a candidate good."""

    metric: str | None = None
    """One of the task's metrics; its primary one if absent."""
    bound: Literal["lower", "mean"] = "lower"
    """Candidates at the last rung are ranked by the delta's lower bound, or by its mean; of a
    metric of which less is better, by those of the delta with its sign turned. Who climbs there is
    decided by what a candidate may still be: the delta's upper bound."""
    margin: float = Field(0.01, ge=0, allow_inf_nan=False)
    """Practical equivalence: a delta that is surely smaller than this, either way, is no effect."""
    worth: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The smallest gain that matters: a confirmation goes on until there is one, or one of this
    size is excluded. Twice the margin if absent."""

    unsaid = MappingProxyType({"worth": None})

    @property
    def worth_deciding(self) -> float:
        """`worth`, given or not; 0 where neither it nor a margin is."""
        return 2 * self.margin if self.worth is None else self.worth


class SearchSettings(Section):
    """How the space is searched."""

    trials: int = Field(ge=1)
    """Candidates to try, `points` included."""
    sampler: Literal["tpe", "random", "gp", "grid"] = "tpe"
    """How candidates are drawn once `points` are used up. gp learns from candidates at the last
    rung only, and takes a space without conditions; grid takes all in order, of a space without
    ranges."""
    scheduler: Literal["asha_promote", "asha", "none"] = "asha_promote"
    """asha_promote: candidates wait at each rung, and the best of those that came there climb on;
    asha: those that are not among the best when they come to a rung stop there for good (Tune's
    own); none: all climb to the last. Each tries every candidate once, and of those that do the
    same one."""
    reduction_factor: int = Field(3, ge=2)
    """asha, asha_promote: one in so many climbs."""
    prune_below: float | None = Field(None, allow_inf_nan=False)
    """A candidate climbs no further once it cannot reach this: once the upper bound of its delta at
    a rung is under it, the sign turned where less is better. Absent for no rule."""
    stop_after_failures: int = Field(5, ge=1)
    """So many candidates that fail in a row end the search, for the fault is hardly theirs; they
    are tried again when it is resumed. Diverged and infeasible ones are no failures."""
    seed: int = Field(0, ge=0)
    """Of the sampler."""


class Confirm(Section):
    """The confirmation: finalists again, on seeds and examples that the search has not seen."""

    finalists: int = Field(1, ge=1)
    """How many of the best trials at the last rung are confirmed, one after the other: the next is
    tried where the one before it is a gain (with `looks: fixed` all are)."""
    looks: Literal["sequential", "fixed"] = "sequential"
    """sequential: seeds are added, from 4, until there is a gain or `objective.worth` is excluded;
    fixed: one look at all seeds."""
    seeds: int = Field(LOOKS[-1], ge=2)
    """New seeds for each finalist and its baseline at the most; with sequential looks one of 6, 8,
    12, 16, 24 and 32."""

    @model_validator(mode="after")
    def _the_last_look_is_one(self) -> Self:
        if self.looks == "sequential" and self.seeds not in LOOKS[1:]:
            ends = ", ".join(map(str, LOOKS[1:]))
            raise ValueError(
                f"seeds must be one of {ends}, the last look, got {self.seeds}; with looks: fixed "
                "it may be any"
            )
        return self

    unsaid = MappingProxyType({"looks": "fixed"})


class Resources(Section):
    """What a search may use; decides how long it takes, never its results."""

    gpus: int | None = Field(None, ge=0)
    """GPUs to use; absent for one where there is one."""
    concurrent_trials: int = Field(1, ge=1)
    """Trials that run at the same time, sharing the GPUs."""
    keep_checkpoints: Literal["open", "all"] = "open"
    """Which arms keep their latest weights: those that may still go on, or all."""
    checkpoint_layers: bool = False
    """Keep each layer's input only and compute the rest again for its gradients: less memory for
    about a third more time. Where memory does not suffice, an arm does so by itself."""
    arms_at_once: int = Field(1, ge=1)
    """Arms of a trial that are trained at the same time, each in a process and with memory of its
    own: for models too small to keep the cores, or the GPU, busy."""
    cpu_threads: int | None = Field(None, ge=1)
    """Threads of each arm on a CPU; absent for an equal share of the cores. One is fastest for
    models of a few hundred thousand parameters."""


class SearchSpec(Section):
    """A search, as one YAML file says it."""

    name: Annotated[str, AfterValidator(plain_name)]
    """Names the search, its folder and its MLflow experiment: letters, digits, _ and -."""
    model: ModelSettings
    """The model that both arms start from."""
    task: TaskSettings
    """What is learnt; `name` says which settings there are (`fstune tasks`)."""
    train: TrainSettings = TrainSettings()
    """How both arms are trained."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What of an arm is evaluated, and when beside the rungs."""
    seeds: VariedSeeds = VariedSeeds()
    """What the seeds of a rung, and of the confirmation, differ in."""
    rungs: tuple[Rung, ...] = Field(min_length=1)
    """Where variant and baseline are compared, ascending."""
    space: dict[str, Domain] = Field(default={})
    """What candidates vary: paths of settings, as `train.lr`, and their values."""
    fixed: Fixed = Fixed()
    """Base settings of mechanisms."""
    baseline: dict[str, ScalarField] = Field(default={})
    """Settings by path that the baseline has instead. Only with one of a mechanism's has it that
    mechanism, as `fixed` says with these values."""
    points: tuple[dict[str, ScalarField], ...] = ()
    """Candidates that are tried first; what one leaves out is drawn."""
    objective: Objective = Objective()
    """What makes a candidate good."""
    search: SearchSettings
    """How the space is searched."""
    confirm: Confirm | None = None
    """The confirmation (`fstune confirm`), on the task's test split; absent for none."""
    resources: Resources = Resources()
    """What the search may use."""

    def settings(self, candidate: Mapping[str, Scalar]) -> tuple[ArmSettings, ArmSettings]:
        """The baseline's and the variant's settings for a candidate.

        What the candidate varies outside the mechanism is in both, unless `baseline` says
        otherwise.

        Raises:
            pydantic.ValidationError: values that the settings refuse; the rules of a spec see to it
                that a candidate of its own space has none.
        """
        context = {path: value for path, value in candidate.items() if not of_mechanism(path)}
        return (
            self._arm(self.mechanisms_of_baseline(), {**context, **self.baseline}),
            self._arm(self.mechanisms(), candidate),
        )

    def has_one_baseline(self) -> bool:
        """Whether all candidates are compared with the same baseline."""
        return all(of_mechanism(path) or path in self.baseline for path in self.space)

    def mechanisms(self) -> tuple[str, ...]:
        """Those that the variant has: `fixed` or the space say something about them."""
        named = {of_mechanism(path) for path in self.space} | self.fixed.mechanisms.keys()
        return tuple(name for name in registry_of_mechanisms.names() if name in named)

    def mechanisms_of_baseline(self) -> tuple[str, ...]:
        """Those that the baseline has: it gives one of their settings."""
        named = {of_mechanism(path) for path in self.baseline}
        return tuple(name for name in registry_of_mechanisms.names() if name in named)

    def fixed_settings(self, mechanism: str) -> dict[str, JsonValue]:
        """A mechanism's fixed settings as nested values."""
        values: dict[str, JsonValue] = self.fixed.model_dump(mode="json").get(mechanism) or {}
        return values

    def _arm(self, has: Sequence[str], values: Point) -> ArmSettings:
        base = self.model_dump(mode="json", include={"model", "task", "train"})
        base["evaluation"] = self._evaluation()
        arm = with_values({**base, **{name: self.fixed_settings(name) for name in has}}, values)
        return checked(ArmSettings, arm)

    def _evaluation(self) -> dict[str, JsonValue]:
        """The part of `evaluation` that decides what an arm's outcomes are."""
        values = self.evaluation.model_dump(mode="json", exclude={"every"})
        if self.evaluation.cooldown:
            values["cooled_at"] = sorted({rung.steps for rung in self.rungs})
        return values

    @property
    def task_name(self) -> str:
        """The registered name of the task."""
        return self.task.name

    def metric(self) -> "Metric":
        """The objective's metric."""
        task = registry.get(self.task_name)
        wanted = self.objective.metric or task.primary(self.task)
        return next(metric for metric in task.measured(self.task) if metric.name == wanted)

    @property
    def digest(self) -> str:
        """Digest of all that decides results: not the name, not the resources.

        Files count by their own names, not by the folders they were found in; what is in them
        counts in the digests of the arms.
        """
        values = self._values()
        for name in ("name", "resources"):
            del values[name]
        return digest_of(values)

    def differing(self, other: "SearchSpec") -> dict[str, tuple[object, object]]:
        """Paths at which another spec says something else, with both values; files as in `digest`.

        A path that one of them does not have has None there.
        """
        mine, theirs = dict(_flat(self._values())), dict(_flat(other._values()))
        both = {path: (mine.get(path), theirs.get(path)) for path in {**mine, **theirs}}
        return {path: values for path, values in both.items() if values[0] != values[1]}

    def _values(self) -> dict[str, JsonValue]:
        """All that the spec says, without the folders of its files."""
        values: dict[str, Any] = self.model_dump(mode="json")
        values["model"]["checkpoint"] = _file_name(values["model"]["checkpoint"])
        files = values["task"].get("files")
        if files:
            values["task"]["files"] = {split: _file_name(file) for split, file in files.items()}
        return values


def _flat(values: Mapping[str, JsonValue], at: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Every value with its path."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _file_name(path: str | None) -> str | None:
    return None if path is None else re.split(r"[/\\]", path)[-1]


def with_values(base: dict[str, JsonValue], values: Point) -> dict[str, JsonValue]:
    """A copy of nested settings with the values of some paths put in."""
    result = copy.deepcopy(base)
    for path, value in values.items():
        *parents, last = path.split(".")
        node = result
        for part in parents:
            child = node.get(part)
            if not isinstance(child, dict):
                child = {}
                node[part] = child
            node = child
        node[last] = value
    return result


def mechanism_settings(name: str) -> type:
    """The type of a mechanism's settings."""
    return registry_of_mechanisms.get(name).Settings


def section_types(task: str) -> dict[str, type]:
    """The type of each section of an arm's settings, for a task."""
    return {
        "model": ModelSettings,
        "task": registry.get(task).Settings,
        "train": TrainSettings,
        **{name: mechanism_settings(name) for name in registry_of_mechanisms.names()},
    }


def setting_docs(task: str) -> dict[str, str]:
    """What each of a task's settings is for, by name.

    Pydantic reads attribute docstrings off a class alone, not off those it inherits from.
    """
    found: dict[str, str] = {}
    for kind in reversed(registry.get(task).Settings.__mro__):
        if is_dataclass(kind):
            properties = TypeAdapter(kind).json_schema().get("properties", {})
            docs = {name: schema.get("description") for name, schema in properties.items()}
            found |= {name: " ".join(doc.split()) for name, doc in docs.items() if doc}
    return found


@cache
def schema() -> Mapping[str, Any]:
    """JSON schema of a spec, with the docstrings of its settings as descriptions."""
    result: dict[str, Any] = SearchSpec.model_json_schema()
    definitions = result["$defs"]
    fixed = definitions["Fixed"]["properties"]
    for name in registry_of_mechanisms.names():
        kind = mechanism_settings(name)
        own = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        definitions.update(own.pop("$defs", {}))
        definitions[kind.__name__] = own
        fixed[name] = {"$ref": f"#/$defs/{kind.__name__}"}
    tasks = result["properties"]["task"]["discriminator"]["mapping"]
    batch_size = definitions["TrainSettings"]["properties"]["batch_size"]
    kinds = {key: batch_size.pop(key) for key in ("type", "minimum") if key in batch_size}
    batch_size["anyOf"] = [kinds, {"const": PROBE}]
    for task in registry.names():
        settings = definitions[tasks[task].rpartition("/")[2]]
        for name, doc in setting_docs(task).items():
            settings["properties"][name].setdefault("description", doc)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result}
