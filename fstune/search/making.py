"""How a search comes to be: made from a spec, or found again by the spec that it was made from.

Whatever can refuse a search is asked before anything of it is on the disk.
"""

from collections.abc import Mapping
from pathlib import Path

from fstune.arms.inputs import gather
from fstune.errors import InputError
from fstune.machine import describe
from fstune.results.folder import SearchFolder
from fstune.search.lifecycle import Search
from fstune.search.probe import probe
from fstune.search.requirements import require_disk, require_machine
from fstune.search.sampling import any_candidate
from fstune.search.session import held
from fstune.specs.loading import Loaded
from fstune.specs.sections import SearchSpec
from fstune.tracking.tracker import client_of


def exists(name: str, runs: Path) -> bool:
    """Whether there is a search of that name."""
    return _folder(name, runs).exists


def name_is_taken(name: str, runs: Path) -> InputError:
    """What is told where a second search of one name is asked for."""
    return InputError(
        f"a search called {name!r} exists in {runs}; go on with it by `fstune resume {name}`, or "
        "give this one another name"
    )


def create(loaded: Loaded, runs: Path, tracking_uri: str | None = None) -> Search:
    """Check a resolved spec against data and machine, and make its search's folder.

    Raises:
        InputError: if the data, the machine or the tracking URI do not allow the search, or if
            there is one of its name.
    """
    if tracking_uri is not None:
        client_of(tracking_uri)
    if loaded.probes:
        loaded = loaded.with_batch_size(_largest_batch(loaded.spec, runs))
    spec = loaded.spec
    require_machine(spec)
    require_disk(spec, runs)
    guesses = _guesses(spec, runs.resolve() / "cache")
    records = _folder(spec.name, runs)
    records.root.mkdir(parents=True, exist_ok=True)
    with held(records):
        if records.exists:  # also where another process was quicker
            raise name_is_taken(spec.name, runs)
        records.write_guesses(guesses)
        records.write_environment(describe())
        records.write_user_spec(loaded.text)
        search = Search.tracked(spec, records, runs.resolve(), tracking_uri)
        records.write_spec(spec)  # last: with it the search exists
    return search


def resume(loaded: Loaded, runs: Path, tracking_uri: str | None = None) -> Search:
    """The search that was made before from this spec, whose files need not be at hand.

    Raises:
        InputError: if there is none of its name, or it was made from another spec.
    """
    name = loaded.spec.name
    made = SearchFolder.find(runs.resolve(), name).spec()
    if loaded.probes:
        loaded = loaded.with_batch_size(made.train.batch_size)
    differing = made.differing(loaded.spec)
    if differing:
        told = "\n".join(f"  {path}: {was}, now {now}" for path, (was, now) in differing.items())
        raise InputError(
            f"{name} was made from another spec:\n{told}\n"
            f"go on with it as it was by `fstune resume {name}`, or give this one another name"
        )
    return Search.open(name, runs, tracking_uri)


def _guesses(spec: SearchSpec, cache: Path) -> Mapping[str, Mapping[str, float]]:
    """What chance and trivial strategies score, with the data of both arms gathered."""
    baseline, variant = spec.settings(any_candidate(spec))
    gather(variant, cache)
    return gather(baseline, cache).guesses(baseline.task)


def _folder(name: str, runs: Path) -> SearchFolder:
    return SearchFolder(runs.resolve() / "searches" / name)


def _largest_batch(spec: SearchSpec, runs: Path) -> int:
    """The batch size that `probe` stands for."""
    found = probe(spec, runs)
    if found.batch_size == 0:
        raise InputError(
            f"train.batch_size: probe: not even one example of {spec.task_name} fits into memory; "
            "shorten its prompts or take a smaller model"
        )
    return found.batch_size
