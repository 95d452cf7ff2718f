"""What `fstune tasks` shows: each task's declarations, and one example as the model sees it.

The example is built with the task's settings in a spec, by default the first shipped one that has
the task, small ones before others.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from fstune.errors import InputError
from fstune.specs.loading import find, load, shipped, task_with_files
from fstune.specs.sections import setting_docs
from model.tokenizer import Tokenizer, WorldTokenizer, for_vocabulary
from tasks import registry
from tasks.example import TaskError
from tasks.splits import load_split

if TYPE_CHECKING:
    from fstune.specs.sections import SearchSpec
    from tasks.registry import AnyTask


def overview() -> list[tuple[str, list[str]]]:
    """Of every task its name with what it is, and lines on what it has."""
    return [
        (
            f"{task.name}: {task.summary}",
            [
                f"orders {', '.join(task.orders) or 'one'}; "
                f"needs the future: {'yes' if task.needs_future else 'no'}",
                f"scored by {', '.join(metric.name for metric in task.metrics)}",
                f"{task.origin} ({task.licence})",
            ],
        )
        for task in map(registry.get, registry.names())
    ]


def page_lines(
    task: "AnyTask", spec: str | None, data_dirs: Sequence[Path], cache: Path
) -> list[str]:
    """A task's declarations and an example, a line each; arguments as of `shown_example`.

    Raises:
        InputError: there is no such spec; or its data cannot be had, where one is named.
    """
    facts = [f"{fact}: {value}" for fact, value in declarations(task).items()]
    try:
        source, text = shown_example(task, spec, data_dirs, cache)
    except InputError as error:
        if spec is not None:
            raise
        # The task's facts stand without its data, which may be on another machine.
        return [*facts, f"example: {error}"]
    return [*facts, f"example, as in {source}:", text]


def declarations(task: "AnyTask") -> dict[str, str]:
    """All that a task declares, by what it is; and the sizes of the searches that ship with it."""
    facts = {
        "task": f"{task.name}, version {task.version}: {task.summary}",
        "needs the future": "yes" if task.needs_future else "no",
        "orders": ", ".join(task.orders) or "one",
        "data": f"{task.origin} ({task.licence})",
        "primary metric": task.primary_metric,
    }
    facts |= {f"metric {metric.name}": metric.summary for metric in task.metrics}
    for name, spec in _shipped_with(task).items():
        splits = ("train", "validation", "test")
        sizes = ", ".join(f"{split} {getattr(spec.task, f'{split}_size')}" for split in splits)
        facts[f"sizes in {name}"] = sizes
    docs = setting_docs(task.name)
    properties = TypeAdapter(task.Settings).json_schema()["properties"]
    for field, schema in properties.items():
        if field != "name":
            default = json.dumps(schema["default"]) if "default" in schema else "none"
            facts[f"setting {field}"] = f"{docs[field]} (default: {default})"
    return facts


def shown_example(
    task: "AnyTask", spec: str | None, data_dirs: Sequence[Path], cache: Path
) -> tuple[str, str]:
    """The name of the spec whose settings were taken, and the first training example as text.

    Args:
        task: what is shown.
        spec: a spec of this task; a shipped one if None.
        data_dirs: where its data files are looked for, before the spec's own folder.
        cache: folder of the tokenised splits.

    Raises:
        InputError: there is no such spec, or the data cannot be had.
    """
    chosen = _shipped_spec(task) if spec is None else load(find(spec)).spec
    if chosen.task_name != task.name:
        raise InputError(f"{spec}: its task is {chosen.task_name}, not {task.name}")
    beside = [] if spec is None else [find(spec).resolve().parent]
    settings = task_with_files(chosen.task, [*data_dirs, *beside])
    small = dataclasses.replace(settings, train_size=1, validation_size=1, test_size=0)
    tokenizer = _tokenizer(chosen)
    try:
        split = load_split(task, small, "train", tokenizer, cache, ())
    except TaskError as error:
        raise InputError(str(error)) from error
    return chosen.name, task.render(split.example(0), tokenizer)


def _shipped_with(task: "AnyTask") -> dict[str, "SearchSpec"]:
    """The shipped searches of a task that are named after it."""
    specs = {name: load(find(name)).spec for name in shipped() if name.startswith(task.name)}
    return {name: spec for name, spec in specs.items() if spec.task_name == task.name}


def _shipped_spec(task: "AnyTask") -> "SearchSpec":
    by_size = sorted(shipped(), key=lambda name: (not name.endswith("_tiny"), name))
    # Named after its task where there is one, so that few files are read.
    by_name = sorted(by_size, key=lambda name: not name.startswith(task.name))
    for name in by_name:
        spec = load(find(name)).spec
        if spec.task_name == task.name:
            return spec
    raise InputError(f"no shipped search has the task {task.name}; name a spec with --spec")


def _tokenizer(spec: "SearchSpec") -> Tokenizer:
    """The spec's tokenizer; that of the official checkpoints where only a checkpoint would tell."""
    model = spec.model
    if model.init is not None:
        return for_vocabulary(model.init.vocab_size, model.tokenizer)
    return for_vocabulary(WorldTokenizer.vocab_size, model.tokenizer)
