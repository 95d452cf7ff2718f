"""Ray Tune, set up for a search."""

import shutil

from ray import tune

from fstune.results.folder import SearchFolder
from fstune.search.asha import Suggester, scheduler
from fstune.search.bookkeeping import Bookkeeper, FailureStop, trial_folder
from fstune.search.climber import Climber
from fstune.search.cluster import MAX_WORKER_LOSSES, gpus_per_trial
from fstune.search.trainable import PairedTrial
from fstune.specs.sections import SearchSpec


def promotes(spec: SearchSpec) -> bool:
    """Whether each climb to a rung is a trial of Tune's own (`climber`)."""
    return spec.search.scheduler == "asha_promote"


def tuner(spec: SearchSpec, records: SearchFolder, stop: FailureStop) -> tune.Tuner:
    """What runs the search from wherever its records have it; Ray runs already.

    Tune begins anew: the records say all that a snapshot of its own could, and never disagree.

    Args:
        spec: the search's.
        records: the search's.
        stop: ends it where it cannot go on, and knows why.
    """
    folder = records.tune_folder
    shutil.rmtree(folder, ignore_errors=True)
    return tune.Tuner(
        _trainable(spec),
        tune_config=tune.TuneConfig(
            search_alg=(Climber if promotes(spec) else Suggester)(spec, records),
            scheduler=scheduler(spec, records),
            num_samples=-1,
            max_concurrent_trials=spec.resources.concurrent_trials,
            reuse_actors=True,
            trial_dirname_creator=trial_folder,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[Bookkeeper(spec, records, stop)],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_LOSSES),
            # A few bytes each: with all kept, a trial that lost its worker finds the one it names.
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )


def _trainable(spec: SearchSpec) -> object:
    return tune.with_resources(PairedTrial, {"cpu": 1, "gpu": gpus_per_trial(spec)})
