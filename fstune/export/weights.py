"""An arm's model, taken out of the store for other programs.

Which arm is meant, where its weights are, and the official `.pth` with its mechanisms beside it.
The folder for `transformers` is written by `folder`. Nothing here changes what a search found: an
arm whose weights are gone is trained again as it was, into the same place in the store.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fstune.arms.advance import train_again, workbench
from fstune.errors import InputError
from fstune.export.kept import FILES, TrainedModel, read_checkpoint, read_kept
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of
from fstune.results.ranking import ranked
from fstune.results.records import Comparison, TrialRecord
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import ArmSettings, EvaluatedSplit
from model.checkpoint import save, save_mechanism
from model.mechanisms.acting import Acting
from model.rwkv7 import RWKV7

Role = Literal["variant", "baseline"]


@dataclass(frozen=True)
class Wanted:
    """What a user asks for; what is None is chosen."""

    trial: int | None = None
    """A trial's number; else the best confirmed gain, else the best trial."""
    side: Role = "variant"
    seed: int | None = None
    """Index of the arm's seed, as the records count; else the first whose weights are stored."""


@dataclass(frozen=True)
class Place:
    """One arm of a trial, by its records."""

    trial: TrialRecord
    side: Role
    seed: int
    digest: str
    steps: int
    """Where it was last compared."""
    split: EvaluatedSplit

    def __str__(self) -> str:
        return f"trial {self.trial.number}, {self.side} of seed {self.seed}"


@dataclass(frozen=True)
class Exported:
    """An arm's model as it was evaluated."""

    place: Place
    step: int
    model: RWKV7
    acting: dict[str, Acting]
    """Its mechanisms, by name."""
    tokenizer: Literal["world", "bytes"] | None
    """The spec's choice; None leaves it to the size of the vocabulary."""


def take(records: SearchFolder, spec: SearchSpec, wanted: Wanted, again: bool) -> Exported:
    """The model of an arm of a search.

    Args:
        records: the search's.
        spec: the search's.
        wanted: which arm.
        again: whether to train the arm again if its weights are no longer stored.

    Raises:
        InputError: if there is no such arm, or its weights are gone and `again` is False.
    """
    places = _places(_trial(records, wanted.trial), wanted)
    store = records.store
    for place in places:
        settings = _settings(spec, place)
        checkpoint = store.latest_weights(place.digest, _cools(spec))
        if checkpoint is not None:
            return _exported(place, read_checkpoint(checkpoint[1], settings), settings)
        if _is_kept(records, place):
            kept = read_kept(records.model_folder(place.trial.number), settings)
            return _exported(place, kept, settings)
    if not again:
        raise InputError(_gone(records, spec, places[0]))
    settings = _settings(spec, places[0])
    trained = read_checkpoint(_train_again(records, spec, places[0]), settings)
    return _exported(places[0], trained, settings)


def write_pth(exported: Exported, out: Path) -> list[Path]:
    """Write the official layout, and each mechanism beside it; returns the files.

    A mechanism has a file of its own, `<stem>.<name>.safetensors`: `rwkv` would pass over more
    tensors in the model's, but readers that are strict about names, this project's among them,
    would refuse it.

    Raises:
        InputError: if `out` is no `.pth`, one of the files exists, or its folder cannot be made.
    """
    if out.suffix != ".pth":
        raise InputError(f"--out: the official layout ends in .pth, got {out}")
    beside = {name: out.with_name(f"{out.stem}.{name}.safetensors") for name in exported.acting}
    files = [out, *beside.values()]
    for file in files:
        if file.exists():
            raise InputError(f"--out: {file} exists; move it away or give another name")
    make_parent(out)
    save(exported.model, out)
    for name, file in beside.items():
        save_mechanism(exported.acting[name], name, file)
    return files


def make_parent(out: Path) -> None:
    """Make the folder that `out` is to stand in.

    Raises:
        InputError: if that cannot be.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out.parent} cannot be made: {error.strerror}") from error


def _trial(records: SearchFolder, number: int | None) -> TrialRecord:
    trials = [trial for trial in ranked(records.trials()) if trial.rungs]
    if number is None:
        confirmed = [trial for trial in trials if trial.verdict == "gain"]
        best = next(iter([*confirmed, *trials]), None)
        if best is None:
            raise InputError(f"no trial of {records.name} has reached a rung: nothing to export")
        return best
    for trial in trials:
        if trial.number == number:
            return trial
    known = ", ".join(map(str, sorted(trial.number for trial in trials))) or "none"
    raise InputError(
        f"--candidate: trial {number} of {records.name} has reached no rung; those that have: "
        f"{known}"
    )


def _places(trial: TrialRecord, wanted: Wanted) -> list[Place]:
    """The arms that answer what is wanted: the confirmation's, then those of the last rung."""
    compared: list[tuple[Comparison, EvaluatedSplit]] = [(trial.rungs[-1], "validation")]
    if trial.confirmation is not None and trial.confirmation.comparison is not None:
        compared.insert(0, (trial.confirmation.comparison, "test"))
    places = [
        Place(trial, wanted.side, pair.seed, getattr(pair, wanted.side), found.steps, split)
        for found, split in compared
        for pair in found.arms
    ]
    chosen = [place for place in places if wanted.seed in (None, place.seed)]
    if not chosen:
        known = ", ".join(str(place.seed) for place in places)
        raise InputError(
            f"--seed: trial {trial.number} has no arm of seed {wanted.seed}; its seeds: {known}"
        )
    return chosen


def _gone(records: SearchFolder, spec: SearchSpec, place: Place) -> str:
    kept = spec.resources.keep_checkpoints
    why = (
        " (`resources.keep_checkpoints: open` frees them when a trial ends; `all` would keep them)"
        if kept == "open"
        else ""
    )
    others = ", ".join(map(str, _stored(records, spec, place.side))) or "none"
    return (
        f"{place}: its weights are no longer stored{why}. --train-again trains it once more, "
        f"{place.steps} steps on the same data in the same order. "
        f"Trials whose {place.side} is stored: {others}"
    )


def _cools(spec: SearchSpec) -> bool:
    """Whether a branch is what is evaluated at the rungs."""
    return spec.evaluation.cooldown > 0


def _stored(records: SearchFolder, spec: SearchSpec, side: Role) -> Iterator[int]:
    """Trials of which an arm's weights are stored."""
    for trial in records.trials():
        if trial.rungs and any(
            records.store.latest_weights(place.digest, _cools(spec)) or _is_kept(records, place)
            for place in _places(trial, Wanted(side=side))
        ):
            yield trial.number


def _is_kept(records: SearchFolder, place: Place) -> bool:
    """Whether the arm is a confirmed gain, whose weights are kept beside the records."""
    description = records.model_folder(place.trial.number) / FILES["description"]
    return description.exists() and json.loads(description.read_text())["arm"] == place.digest


def _settings(spec: SearchSpec, place: Place) -> ArmSettings:
    baseline, variant = spec.settings(place.trial.candidate)
    return variant if place.side == "variant" else baseline


def _train_again(records: SearchFolder, spec: SearchSpec, place: Place) -> Path:
    """The arm's checkpoint, made anew."""
    [both] = arms_of(spec, place.trial.candidate, records.cache, [place.seed], place.split)
    arm, data = (
        (both.variant, both.variant_data)
        if place.side == "variant"
        else (both.baseline, both.baseline_data)
    )
    if arm.digest != place.digest:
        raise InputError(
            f"{place}: its data or its checkpoint have changed since it was trained, so that it "
            f"cannot be trained again (it was arm {place.digest}, now it would be {arm.digest})"
        )
    resources = spec.resources
    if resources.gpus:
        # Asked for a search; a single arm is trained again with what there is here.
        resources = resources.model_copy(update={"gpus": None})
    bench = workbench(records.store, spec.model_copy(update={"resources": resources}))
    return train_again(arm, data, place.steps, bench)


def _exported(place: Place, trained: TrainedModel, settings: ArmSettings) -> Exported:
    tokenizer = settings.model.tokenizer
    return Exported(place, trained.step, trained.model, trained.acting, tokenizer)
