"""Ray Tune, set up for a search: begun anew, or restored from its snapshot where that holds."""

import shutil

from ray import tune

from fstune.results.folder import SearchFolder
from fstune.search.asha import Suggester, scheduler, snapshot_fault
from fstune.search.bookkeeping import Bookkeeper, FailureStop, trial_folder
from fstune.search.climber import Climber
from fstune.search.cluster import MAX_WORKER_LOSSES, gpus_per_trial
from fstune.search.trainable import PairedTrial
from fstune.specs.sections import SearchSpec


def promotes(spec: SearchSpec) -> bool:
    """Whether each climb to a rung is a trial of Tune's own (`climber`)."""
    return spec.search.scheduler == "asha_promote"


def tuner(spec: SearchSpec, records: SearchFolder) -> tune.Tuner:
    """What runs the search from wherever its records have it; Ray runs already."""
    return _restored(spec, records) or _begun(spec, records)


def _restored(spec: SearchSpec, records: SearchFolder) -> tune.Tuner | None:
    """From Tune's snapshot, if it agrees with the records; one that is not used is deleted."""
    folder = records.tune_folder
    if promotes(spec):
        # Its records say all that a snapshot could.
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return None
    fault = snapshot_fault(folder, records)
    if fault is None:
        print(f"fstune: restoring Tune's snapshot in {folder}")  # noqa: T201  # to the log
        return tune.Tuner.restore(str(folder), _trainable(spec), resume_unfinished=True)
    print(f"fstune: replaying from the records, since {fault}")  # noqa: T201  # to the log
    shutil.rmtree(folder)
    return None


def _begun(spec: SearchSpec, records: SearchFolder) -> tune.Tuner:
    folder = records.tune_folder
    return tune.Tuner(
        _trainable(spec),
        tune_config=tune.TuneConfig(
            search_alg=(Climber if promotes(spec) else Suggester)(spec, records),
            scheduler=scheduler(spec, records),
            num_samples=-1 if promotes(spec) else spec.search.trials,
            max_concurrent_trials=spec.resources.concurrent_trials,
            reuse_actors=True,
            trial_dirname_creator=trial_folder,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[Bookkeeper(spec, records)],
            stop=FailureStop(spec, records),
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_LOSSES),
            # A few bytes each: with all kept, no restored trial misses the one it names.
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )


def _trainable(spec: SearchSpec) -> object:
    return tune.with_resources(PairedTrial, {"cpu": 1, "gpu": gpus_per_trial(spec)})
