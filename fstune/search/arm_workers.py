"""Worker processes that train a trial's arms ahead of it, on cores that it leaves idle.

Each first trains the baselines that all candidates will be compared with. Then it hears which arms
the trial sets out to train, and begins at the other end. Nothing comes back: the store keeps two
processes from training one arm, and the trial finds there what its arm workers have done. So
results do not depend on them, and one that dies is not missed. How an arm is trained is in
`arms.advance`; which ones, in `results.pairing`.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fstune.arms.advance import DivergedError, Workbench, advance, workbench
from fstune.arms.arm import ArmSpec
from fstune.arms.inputs import ArmInputs, gather
from fstune.arms.trainer import InfeasibleError
from fstune.machine import VISIBLE_GPUS
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of
from fstune.specs.settings import EvaluatedSplit, Scalar


class ArmWorkers:
    """The arm workers of this process; they end with it, or when nobody holds this any more."""

    def __init__(self, records: SearchFolder) -> None:
        count = records.spec().resources.arms_at_once - 1
        self._actors = [_start(records) for _ in range(count)]

    def begin_baselines(self, candidate: Mapping[str, Scalar]) -> None:
        """Have them begin on the baselines of a candidate, up all rungs; returns at once."""
        for index, actor in enumerate(self._actors):
            actor.train_baselines.remote(candidate, index, len(self._actors))

    def begin(self, arms: Sequence[ArmSpec], split: EvaluatedSplit, to_step: int) -> None:
        """Have them begin on what this process is about to train; returns at once."""
        for index, actor in enumerate(self._actors):
            actor.train.remote(from_behind(arms, index, len(self._actors)), split, to_step)

    def help(self, bench: Workbench) -> Workbench:
        """The workbench of the process whose arm workers these are."""
        return replace(bench, on_begin=self.begin)


def from_behind(arms: Sequence[ArmSpec], index: int, of: int) -> list[ArmSpec]:
    """All arms in the order of one of `of` arm workers: backwards, each from another arm on."""
    last = len(arms) * (index + 1) // of
    return [*reversed(arms[:last]), *reversed(arms[last:])]


class ArmWorker:
    """What an arm worker's process does.

    Args:
        search: the search's folder.
        gpus: those that the trial's process sees, as CUDA_VISIBLE_DEVICES names them; None if it
            says nothing.
    """

    def __init__(self, search: str, gpus: str | None) -> None:
        if gpus is not None:
            # Ray hides them from whoever was given none.
            os.environ[VISIBLE_GPUS] = gpus
        records = SearchFolder(Path(search))
        self._cache = records.cache
        self._spec = records.spec()
        self._bench = workbench(records.store, self._spec)

    def train_baselines(self, candidate: Mapping[str, Scalar], index: int, of: int) -> None:
        """Bring a candidate's baselines up all rungs: of every `of`-th seed, from `index` on."""
        for rung in self._spec.rungs:
            seeds = range(index, rung.seeds, of)
            for both in arms_of(self._spec, candidate, self._cache, seeds):
                self._train(both.baseline, both.baseline_data, rung.steps)

    def train(self, arms: Sequence[ArmSpec], split: EvaluatedSplit, to_step: int) -> None:
        """Bring arms to a step, one after the other."""
        for arm in arms:
            self._train(arm, gather(arm.settings, self._cache, split), to_step)

    def _train(self, arm: ArmSpec, data: ArmInputs, to_step: int) -> None:
        # The trial comes upon such an end itself, and says so.
        with contextlib.suppress(DivergedError, InfeasibleError):
            advance(arm, data, to_step, self._bench)


def _start(records: SearchFolder) -> "ray.actor.ActorHandle":
    """An arm worker on this machine; it takes none of the cores that Ray counts."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind = ray.remote(ArmWorker).options(num_cpus=0, scheduling_strategy=here)
    return kind.remote(str(records.root), os.environ.get(VISIBLE_GPUS))
