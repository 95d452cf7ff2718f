"""A worker's process: where its arms are trained, and the companions that it trains them with.

A companion is a process on a core that the worker leaves idle. It first trains the baselines that
all candidates will be compared with, then is told which arms the worker sets out to train, and
begins at the other end. Nothing comes back: the store keeps two processes from training one arm,
and the worker finds there what a companion has done. So results do not depend on companions, and
one that dies is not missed. How an arm is trained is in `fstune.training`; which ones, in
`fstune.pairing`.
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
from fstune.results.folder import SearchFolder
from fstune.results.pairing import arms_of
from fstune.specs.loading import read_resolved
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import EvaluatedSplit, Scalar

_GPUS = "CUDA_VISIBLE_DEVICES"


class Companions:
    """The companions of this process; they end with it, or when nobody holds this any more."""

    def __init__(self, records: SearchFolder, spec: SearchSpec) -> None:
        self._actors = [_start(records) for _ in range(1, spec.resources.arms_at_once)]

    def begin_baselines(self, candidate: Mapping[str, Scalar]) -> None:
        """Have them begin on the baselines of a candidate, up all rungs; returns at once."""
        for place, actor in enumerate(self._actors):
            actor.train_baselines.remote(candidate, place, len(self._actors))

    def begin(self, arms: Sequence[ArmSpec], split: EvaluatedSplit, to_step: int) -> None:
        """Have them begin on what this process is about to train; returns at once."""
        for place, actor in enumerate(self._actors):
            actor.train.remote(from_behind(arms, place, len(self._actors)), split, to_step)

    def help(self, bench: Workbench) -> Workbench:
        """The workbench of the process whose companions these are."""
        return replace(bench, on_begin=self.begin)


def from_behind(arms: Sequence[ArmSpec], place: int, of: int) -> list[ArmSpec]:
    """All arms in the order of one of several companions: backwards, each from another arm on."""
    last = len(arms) * (place + 1) // of
    return [*reversed(arms[:last]), *reversed(arms[last:])]


class Companion:
    """What a companion's process does.

    Args:
        search: folder of the search's records.
        gpus: those that the worker sees, as CUDA_VISIBLE_DEVICES names them; None if it says
            nothing.
    """

    def __init__(self, search: str, gpus: str | None) -> None:
        if gpus is not None:
            # Ray hides them from whoever was given none.
            os.environ[_GPUS] = gpus
        records = SearchFolder(Path(search))
        self._cache = records.cache
        self._spec = read_resolved(records.spec)
        self._bench = workbench(records.runs, self._spec)

    def train_baselines(self, candidate: Mapping[str, Scalar], place: int, of: int) -> None:
        """Bring a candidate's baselines up all rungs: of every `of`-th seed, from `place` on."""
        for rung in self._spec.rungs:
            seeds = range(place, rung.seeds, of)
            for both in arms_of(self._spec, candidate, self._cache, seeds):
                self._train(both.baseline, both.baseline_data, rung.steps)

    def train(self, arms: Sequence[ArmSpec], split: EvaluatedSplit, to_step: int) -> None:
        """Bring arms to a step, one after the other."""
        for arm in arms:
            self._train(arm, gather(arm.settings, self._cache, split), to_step)

    def _train(self, arm: ArmSpec, data: ArmInputs, to_step: int) -> None:
        # The worker comes upon such an end itself, and says so.
        with contextlib.suppress(DivergedError, InfeasibleError):
            advance(arm, data, to_step, self._bench)


def _start(records: SearchFolder) -> "ray.actor.ActorHandle":
    """A companion on this machine; it takes none of the cores that Ray counts."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind = ray.remote(Companion).options(num_cpus=0, scheduling_strategy=here)
    return kind.remote(str(records.root), os.environ.get(_GPUS))
