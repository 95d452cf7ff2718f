"""One arm's way: from wherever the store has it to the step that is asked for.

Knows the store and to whom progress is reported; no pairs, no Ray, no MLflow. What is done at a
step is in `trainer`.
"""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import torch

from fstune.arms.arm import ArmSpec, Outcome, Progress
from fstune.arms.inputs import ArmInputs
from fstune.arms.store import ArmStore, CheckpointDraft, Divergence
from fstune.arms.trainer import CHECKPOINT_FILE, ArmTrainer, InfeasibleError
from fstune.errors import FstuneError
from fstune.machine import arm_device, cores, use_fast_matmul
from fstune.specs.sections import SearchSpec
from fstune.specs.settings import EvaluatedSplit
from model.shortage import out_of_memory
from model.wkv.agreement import share_choices
from tasks.metrics import NLL_SUM

_Save = Callable[[str, int, Callable[[CheckpointDraft], None]], None]
"""How the store keeps an arm's files: by digest, step and what writes them."""


class DivergedError(FstuneError):
    """The loss of an arm was not finite."""

    def __init__(self, arm: str, divergence: Divergence) -> None:
        self.arm = arm
        self.divergence = divergence
        super().__init__(f"arm {arm}: loss {divergence.loss} at step {divergence.step}")


class DeviceError(FstuneError):
    """A process has not the device that its search was given."""


@dataclass(frozen=True)
class Workbench:
    """Where arms are trained, and who is told."""

    store: ArmStore
    device: torch.device
    evaluate_every: int = 0
    """Steps between evaluations beside those asked for; 0 is none."""
    on_progress: Callable[[Progress], None] = lambda _: None
    checkpoint_layers: bool = False
    """Whether layers' inner values are computed again instead of kept."""
    on_begin: Callable[[Sequence[ArmSpec], EvaluatedSplit, int], None] = lambda *_: None
    """Called before arms are trained to a step, so that helpers can start on them."""


def advance(arm: ArmSpec, materials: ArmInputs, to_step: int, bench: Workbench) -> Outcome:
    """Bring an arm to a step and evaluate it there; what the store holds is not done again.

    Args:
        arm: what to train.
        materials: what the arm stands on.
        to_step: optimiser steps, counted from the arm's beginning; 0 is before the first.
        bench: where.

    Returns:
        The evaluation at `to_step`.

    Raises:
        DivergedError: if a loss was not finite at or before `to_step`, in training or evaluation.
        InfeasibleError: if memory does not suffice for a single example.
    """
    store = bench.store
    digest = store.register(arm)
    seed = arm.seeds.index
    waits = Progress(digest, "wait", 0, to_step, seed=seed)
    with store.lock(digest, lambda: bench.on_progress(waits)):
        outcome = store.outcome(digest, to_step)
        if outcome is not None:
            return outcome
        ended = store.divergence(digest)
        if ended is not None and ended.step <= to_step:
            raise DivergedError(digest, ended)
        _Training(arm, materials, to_step, bench).finish()
        outcome = store.outcome(digest, to_step)
        assert outcome is not None
        return outcome


def train_again(arm: ArmSpec, materials: ArmInputs, to_step: int, bench: Workbench) -> Path:
    """The folder of the weights that an arm is evaluated with, trained anew if they are not stored.

    They are those of `to_step`, or of a later step that it has come to. Evaluations that are stored
    stay as they are.

    Raises:
        DivergedError: if a loss was not finite at or before `to_step`.
        InfeasibleError: if memory does not suffice for a single example.
    """
    store = bench.store
    digest = store.register(arm)
    with store.lock(digest, lambda: bench.on_progress(Progress(digest, "wait", 0, to_step))):
        cooled = arm.settings.evaluation.cooldown > 0
        held = store.latest_weights(digest, cooled)
        if held is None or held[0] < to_step:
            _Training(arm, materials, to_step, bench).finish()
            held = store.latest_weights(digest, cooled)
        assert held is not None
        return held[1]


class _Training:
    """An arm on its way to a step, in memory and in the store.

    Where a branch is evaluated at that step (`cooldown`), the arm itself stops where the branch
    begins, and goes on from its checkpoint there.
    """

    def __init__(self, arm: ArmSpec, materials: ArmInputs, to_step: int, bench: Workbench) -> None:
        self._arm, self._to_step, self._bench = arm, to_step, bench
        self._branches_at = arm.settings.evaluation.branches_at(to_step)
        held = bench.store.latest_checkpoint(arm.digest)
        self._newest = 0 if held is None else held[0]
        usable = held[1] if held is not None and held[0] <= self._branches_at else None
        self._run = _begun(arm, materials, bench, usable)

    def finish(self) -> None:
        """Train to the step and evaluate there and on the way, as far as the store lacks it."""
        self._count_branches()
        on_the_way = self._on_the_way()
        for stop in sorted({*on_the_way, self._branches_at}):
            self._train_to(stop)
            # The checkpoint goes first: after a kill between the two nothing is trained again.
            if stop > self._newest:
                self._keep(self._bench.store.save_checkpoint, self._run.save)
            if stop in on_the_way or stop == self._to_step:
                self._evaluate()
        if self._branches_at < self._to_step:
            self._cool()

    def _count_branches(self) -> None:
        """Add what branches have cost that began where the arm stands: its checkpoint is older."""
        chosen, run = self._arm.settings.evaluation, self._run
        for step in chosen.cooled_at:
            branch = self._bench.store.outcome(self._arm.digest, step)
            if branch is not None and chosen.branches_at(step) == run.step:
                run.tokens = max(run.tokens, branch.train_tokens)
                run.train_wall_s = max(run.train_wall_s, branch.train_wall_s)

    def _on_the_way(self) -> set[int]:
        """Steps before the last at which the arm is evaluated as it trains."""
        at, every = self._run.step, self._bench.evaluate_every or max(self._to_step, 1)
        chosen = self._arm.settings.evaluation
        stops = {*range(at - at % every + every, self._to_step, every)}
        # A checkpoint whose evaluation a kill prevented; where a branch begins there is none.
        if 0 < at < self._to_step and (not chosen.cooled_at or at % every == 0):
            stops.add(at)
        return {stop for stop in stops if not chosen.is_cooling(stop, chosen.cooled_at)}

    def _cool(self) -> None:
        """Train the branch, keep its weights and evaluate them."""
        self._train_to(self._to_step, cooling_from=self._branches_at)
        self._keep(self._bench.store.save_cooled, self._run.save_evaluated)
        self._evaluate()

    def _keep(self, save: _Save, write: Callable[[BinaryIO], None]) -> None:
        def to_draft(draft: CheckpointDraft) -> None:
            with draft.open(CHECKPOINT_FILE) as file:
                write(file)

        save(self._arm.digest, self._run.step, to_draft)

    def _train_to(self, stop: int, cooling_from: int | None = None) -> None:
        run = self._run
        if not run.trains:
            run.step = stop
        while run.step < stop:
            rate = 1.0 if cooling_from is None else (stop - run.step) / (stop - cooling_from)
            loss = run.train_step(rate)
            self._require_finite(loss)
            self._tell("train", loss)

    def _evaluate(self) -> None:
        store = self._bench.store
        if store.outcome(self._arm.digest, self._run.step) is None:
            self._tell("evaluate")
            outcome = self._run.outcome()
            self._require_finite(float(outcome.measures[NLL_SUM].sum()))
            store.save_outcome(outcome)

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise _diverged(self._bench.store, self._arm.digest, self._run.step, loss)

    def _tell(self, doing: Literal["train", "evaluate"], loss: float | None = None) -> None:
        seed = self._arm.seeds.index
        progress = Progress(self._arm.digest, doing, self._run.step, self._to_step, loss, seed)
        self._bench.on_progress(progress)


def _begun(
    arm: ArmSpec, materials: ArmInputs, bench: Workbench, checkpoint: Path | None
) -> ArmTrainer:
    """The arm in memory, where a checkpoint has it."""
    try:
        run = ArmTrainer(arm, materials, bench.device, bench.checkpoint_layers)
        if checkpoint is not None:
            run.restore(checkpoint / CHECKPOINT_FILE)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InfeasibleError(arm.digest, "memory: the model does not fit") from error
    return run


def _diverged(store: ArmStore, digest: str, step: int, loss: float) -> DivergedError:
    """The end of an arm, which is remembered."""
    divergence = Divergence(step, str(loss))
    store.save_divergence(digest, divergence)
    return DivergedError(digest, divergence)


def workbench(
    store: ArmStore, spec: SearchSpec, report: Callable[[Progress], None] = lambda _: None
) -> Workbench:
    """Where a search's arms are trained in this process.

    Raises:
        DeviceError: if the process has not the GPU that the search was given.
    """
    return Workbench(
        store=store,
        device=_device(store, spec),
        evaluate_every=spec.evaluation.every,
        on_progress=report,
        checkpoint_layers=spec.resources.checkpoint_layers,
    )


def _device(store: ArmStore, spec: SearchSpec) -> torch.device:
    at_once = spec.resources.concurrent_trials * spec.resources.arms_at_once
    torch.set_num_threads(spec.resources.cpu_threads or max(1, cores() // at_once))
    # Of the GPUs that a search has a process sees one, or its share of one.
    gpus = spec.resources.gpus
    found = arm_device(gpus and 1)
    if found.refusal is not None:
        raise DeviceError(f"on {platform.node()}: {found.refusal}")
    if found.kind == "cpu":
        use_fast_matmul()
    else:
        # Both arms of a pair are computed alike, whichever processes train them.
        share_choices(store.root.parent / "cache")
    return torch.device(found.kind)
