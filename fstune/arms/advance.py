"""One arm's way: from wherever the store has it to the step that is asked for.

Knows the store and to whom progress is reported; no pairs, no Ray, no MLflow. What is done at a
step is in `trainer`.
"""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
        to_step: optimiser steps, counted from the arm's beginning.
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
        return _train(arm, materials, to_step, bench)


def train_again(arm: ArmSpec, materials: ArmInputs, to_step: int, bench: Workbench) -> Path:
    """The folder of an arm's newest checkpoint, trained anew if none at `to_step` is stored.

    Evaluations that are stored stay as they are.

    Raises:
        DivergedError: if a loss was not finite at or before `to_step`.
        InfeasibleError: if memory does not suffice for a single example.
    """
    store = bench.store
    digest = store.register(arm)
    with store.lock(digest, lambda: bench.on_progress(Progress(digest, "wait", 0, to_step))):
        held = store.latest_checkpoint(digest)
        if held is None or held[0] < to_step:
            _train(arm, materials, to_step, bench)
            held = store.latest_checkpoint(digest)
        assert held is not None
        return held[1]


def _train(arm: ArmSpec, materials: ArmInputs, to_step: int, bench: Workbench) -> Outcome:
    store, digest, seed = bench.store, arm.digest, arm.seeds.index
    checkpoint = store.latest_checkpoint(digest)
    newest = 0 if checkpoint is None else checkpoint[0]
    usable = None if checkpoint is None or newest > to_step else checkpoint[1]
    run = _begun(arm, materials, bench, usable)
    every = bench.evaluate_every or to_step
    stops = sorted({*range(run.step - run.step % every + every, to_step, every), run.step, to_step})
    for stop in (stop for stop in stops if stop > 0):
        if not run.trains:
            run.step = stop
        while run.step < stop:
            loss = run.train_step()
            if not math.isfinite(loss):
                raise _diverged(store, digest, run.step, loss)
            bench.on_progress(Progress(digest, "train", run.step, to_step, loss, seed))
        # The checkpoint goes first: after a kill between the two nothing is trained again.
        if stop > newest:
            store.save_checkpoint(digest, stop, partial(_write, run))
        if store.outcome(digest, stop) is None:
            bench.on_progress(Progress(digest, "evaluate", stop, to_step, seed=seed))
            outcome = run.outcome()
            loss = float(outcome.measures[NLL_SUM].sum())
            if not math.isfinite(loss):
                raise _diverged(store, digest, stop, loss)
            store.save_outcome(outcome)
    final = store.outcome(digest, to_step)
    assert final is not None
    return final


def _write(run: ArmTrainer, draft: CheckpointDraft) -> None:
    with draft.open(CHECKPOINT_FILE) as file:
        run.save(file)


def _begun(
    arm: ArmSpec, materials: ArmInputs, bench: Workbench, checkpoint: Path | None
) -> "ArmTrainer":
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
