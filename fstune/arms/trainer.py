"""An arm in memory: its model, mechanisms, optimisers and place in the data.

Everything an arm does follows from its `ArmSpec`: the batch of a step is a function of the order
seed and the step alone, so that both arms of a pair see the same ones, and an arm that was stopped
goes on as if it had not. Where memory is short, work is done in smaller pieces. How far an arm goes
and what is kept of it is in `advance`.
"""

import contextlib
import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from transformers import get_scheduler

from fstune.arms.arm import ArmSpec, Outcome
from fstune.arms.diagnostics import mechanism_values, memory_gb, observed, sample_of
from fstune.arms.evaluation import PADDED_TOKENS_PER_BATCH, Evaluation, evaluate, largest_batch
from fstune.arms.inputs import ArmInputs
from fstune.arms.loss import Subject, TokenScores, token_scores
from fstune.arms.mean import WeightMean
from fstune.arms.order import BatchStream
from fstune.errors import FstuneError
from fstune.specs.settings import TrainSettings
from model.checkpoint import load
from model.initial import initialise
from model.mechanisms import registry
from model.mechanisms.acting import Acting
from model.optimizers import registry as optimizers
from model.optimizers.optimizer import Shared
from model.shortage import out_of_memory
from model.wkv.choice import failures
from model.wkv.dispatch import calls_by_backend
from tasks.batch import Batch, collate
from tasks.example import Split

CHECKPOINT_FILE = "run.pt"


class InfeasibleError(FstuneError):
    """An arm that this machine cannot train."""

    def __init__(self, arm: str, reason: str) -> None:
        self.arm = arm
        self.reason = reason
        super().__init__(f"arm {arm} is infeasible: {reason}")


class ArmTrainer:
    """An arm in memory: model, mechanisms, optimisers and its place in the data."""

    def __init__(
        self,
        arm: ArmSpec,
        materials: ArmInputs,
        device: torch.device,
        checkpoint_layers: bool = False,
    ) -> None:
        settings = arm.settings
        self.arm = arm
        self.data = materials
        self.step = 0
        self.tokens = 0
        self.train_wall_s = 0.0
        self._micro_batch = settings.train.batch_size
        self._padded_tokens = PADDED_TOKENS_PER_BATCH
        self._events: list[str] = []
        self._grad_norms: dict[str, tuple[float, int]] = {}
        if settings.model.checkpoint is not None:
            model = load(settings.model.checkpoint, device=str(device))
        else:
            model = initialise(materials.config, arm.seeds.init).to(device)
        acting = {
            name: registry.get(name).build(materials.config, own).to(device)
            for name, own in settings.mechanisms.items()
        }
        model.attach(list(acting.values()))
        model.checkpoint_layers = checkpoint_layers
        model.wkv_backend = settings.model.wkv
        self._wkv = _WkvUse()
        self._first_weights = sample_of(model)
        self.subject = Subject(model, acting, device, settings.model.precision)
        self._batches = BatchStream(
            len(materials.train), settings.train.batch_size, arm.seeds.order
        )
        self._optimizers: list[torch.optim.Optimizer] = []
        self._schedules: list[torch.optim.lr_scheduler.LRScheduler] = []
        self._optimise(settings.train)
        for name, own in settings.mechanisms.items():
            self._optimise_mechanism(acting[name], registry.get(name).learning_rate(own))
        self._model_mean, self._acting_means = self._new_means()

    def _new_means(self) -> tuple[WeightMean | None, dict[str, WeightMean]]:
        """Of the model's and of each mechanism's weights, where they are what is evaluated."""
        chosen, acting = self.arm.settings.evaluation, self.subject.acting
        if chosen.weights == "last":
            return None, {}
        of_model = WeightMean(self.subject.model, chosen.mean_decay)
        return of_model, {n: WeightMean(each, chosen.mean_decay) for n, each in acting.items()}

    def _optimise(self, train: TrainSettings) -> None:
        """Optimisers of the model, and how their rates go; none where it is not trained."""
        model = self.subject.model
        model.requires_grad_(train.parameters == "all")
        if train.parameters != "all":
            return
        shared = Shared(train.lr, train.betas, train.weight_decay)
        own = train.of_optimizer
        self._optimizers += optimizers.get(train.optimizer).build(model, shared, own)
        self._schedules += [
            get_scheduler(
                "constant_with_warmup" if train.lr_schedule == "constant" else train.lr_schedule,
                optimizer,
                num_warmup_steps=train.lr_warmup_steps,
                num_training_steps=train.lr_total_steps,
            )
            for optimizer in self._optimizers
        ]

    def _optimise_mechanism(self, acting: Acting, rate: float) -> None:
        """A mechanism's parameters have AdamW without weight decay, at a rate of their own."""
        acting.requires_grad_(rate > 0)
        if rate > 0:
            betas = self.arm.settings.train.betas
            parameters = acting.parameters()
            self._optimizers.append(
                torch.optim.AdamW(parameters, rate, betas, weight_decay=0.0, fused=True)
            )

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: a baseline of `parameters: gates` has nothing."""
        return bool(self._optimizers)

    def train_step(self, rate: float = 1.0) -> float:
        """One optimiser step; returns its loss. If that is not finite, no parameter moves.

        Where memory does not suffice, the step is done again: first with layers recomputed, which
        changes no number; then in smaller pieces, whose gradients add up to the same.

        Args:
            rate: what the learning rates of the model and of all mechanisms are multiplied by.

        Raises:
            InfeasibleError: if a single example does not fit.
        """
        started = time.perf_counter()
        indices = self._batches.indices(self.step)
        while (done := self._try_step(indices, rate)) is None:
            self._make_room(f"training batch {self._micro_batch}")
        value, tokens = done
        self.step += 1
        if math.isfinite(value):
            for mean in self._means:
                mean.update(self.step)
        self.tokens += tokens
        self.train_wall_s += time.perf_counter() - started
        return value

    def _try_step(self, indices: Sequence[int], rate: float) -> tuple[float, int] | None:
        """Loss and tokens of a step, or None, with nothing moved, if memory did not suffice."""
        try:
            return self._step(indices, rate)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _step(self, indices: Sequence[int], rate: float = 1.0) -> tuple[float, int]:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        weight = self.arm.settings.train.first_token_weight
        value, tokens = 0.0, 0
        total = self._total_weight(indices, weight)
        for start in range(0, len(indices), self._micro_batch):
            piece = indices[start : start + self._micro_batch]
            batch = collate(self.data.train, piece).to(self.subject.device)
            loss = _weighted_sum(token_scores(self.subject, batch), weight) / total
            value += float(loss.detach())
            tokens += self._tokens_read(batch)
            if math.isfinite(value) and self.trains:
                loss.backward()  # type: ignore[no-untyped-call]
        if math.isfinite(value):
            self._move(rate)
        return value, tokens

    def _tokens_read(self, batch: Batch) -> int:
        """Tokens of a batch, those of its prompts as often as a mechanism has them read."""
        again = math.prod(each.readings for each in self.subject.acting.values()) - 1
        if again == 0:
            return batch.num_tokens
        mask_BT = batch.prompt.mask_BT
        prompts = batch.prompt.tokens_BT.numel() if mask_BT is None else int(mask_BT.sum())
        return batch.num_tokens + again * prompts

    def try_out(self, indices: Sequence[int]) -> None:
        """Two steps on these training examples in one piece, and the largest batch to evaluate.

        Two, since the first makes the optimisers' moments after its own peak is over. Raises what
        the device raises where memory does not suffice.
        """
        self._micro_batch = len(indices)
        for _ in range(2):
            self._step(indices)
        evaluated = self.data.evaluated
        with torch.inference_mode():
            batch = collate(evaluated, largest_batch(evaluated, self._padded_tokens))
            token_scores(self.subject, batch.to(self.subject.device))

    def _move(self, rate: float) -> None:
        """Apply the gradients."""
        if self._schedules:
            clip = self.arm.settings.train.grad_clip or math.inf
            parameters = self.subject.model.parameters()
            self._note("model", torch.nn.utils.clip_grad_norm_(parameters, clip))
        for name, acting in self.subject.acting.items():
            gradients = [each.grad for each in acting.parameters() if each.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            self._note(registry.get(name).parameters, norm)
        try:
            with _rates_times(rate, self._optimizers):
                for optimizer in self._optimizers:
                    optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            # Moments are made in the first step; smaller pieces would not make room for them.
            raise InfeasibleError(self.arm.digest, "memory: the optimiser does not fit") from error
        for schedule in self._schedules:
            schedule.step()

    def _note(self, name: str, norm: torch.Tensor) -> None:
        total, count = self._grad_norms.get(name, (0.0, 0))
        self._grad_norms[name] = (total + float(norm), count + 1)

    def _total_weight(self, indices: Sequence[int], first_token_weight: float) -> float:
        """What the losses of all target tokens of a batch are divided by."""
        split = self.data.train
        targets = split.target_counts[indices].sum()
        answers = (np.diff(split.answer_offsets)[indices] > 0).sum()
        return float(targets + (first_token_weight - 1.0) * answers)

    def _make_room(self, what: str) -> None:
        """Go on with layers recomputed, or else with half of what did not fit into memory."""
        torch.cuda.empty_cache()
        if not self.subject.model.checkpoint_layers:
            self.subject.model.checkpoint_layers = True
            self._tell(f"out of memory, {what}: from now on layers are recomputed for gradients")
            return
        if self._micro_batch == 1:
            raise InfeasibleError(self.arm.digest, f"memory: {what} does not fit")
        self._micro_batch = -(-self._micro_batch // 2)
        self._tell(f"out of memory, {what}: from now on {self._micro_batch} examples at a time")

    def _tell_of_backends(self) -> None:
        """Say once of each back end that was passed over since it could not be launched."""
        if self.arm.settings.model.wkv != "auto":
            return
        for name, why in failures().items():
            event = f"WKV back end {name} {why}; the next is taken, several times slower on a GPU"
            if not any(told.endswith(event) for told in self._events):
                self._tell(event)

    def _tell(self, event: str) -> None:
        self._events.append(f"step {self.step}: {event}")

    @property
    def _means(self) -> list[WeightMean]:
        """All means that there are."""
        of_model = [] if self._model_mean is None else [self._model_mean]
        return [*of_model, *self._acting_means.values()]

    @contextlib.contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        """The model has the weights that are evaluated; afterwards those that are trained."""
        for mean in self._means:
            mean.exchange()
        try:
            yield
        finally:
            for mean in self._means:
                mean.exchange()

    def outcome(self) -> Outcome:
        """Evaluate the arm where it stands, with the weights that its settings choose.

        Raises:
            InfeasibleError: if a single example does not fit into memory.
        """
        with self._evaluated_weights():
            return self._outcome()

    def _outcome(self) -> Outcome:
        started = time.perf_counter()
        split = self.data.evaluated
        self._tell_of_backends()
        while (found := self._try_evaluation()) is None:
            torch.cuda.empty_cache()
            if self._padded_tokens < split.prompt_lengths.max():
                raise InfeasibleError(self.arm.digest, "memory: one example to evaluate")
            self._padded_tokens //= 2
            self._tell(f"out of memory in evaluation: from now on {self._padded_tokens} tokens")
        return Outcome(
            arm=self.arm.digest,
            seed_index=self.arm.seeds.index,
            examples=_wanted_digest(split),
            step=self.step,
            measures=found.measures,
            predictions=found.predictions,
            diagnostics={**self._diagnostics(), **found.answers},
            events=tuple(self._events),
            train_tokens=self.tokens,
            train_wall_s=self.train_wall_s,
            eval_wall_s=time.perf_counter() - started,
            ended_at=time.time(),
            backends=self._wkv.names(),
        )

    def _try_evaluation(self) -> Evaluation | None:
        """The evaluation, or None if memory did not suffice."""
        data, seed = self.data, self.arm.seeds.generation
        size = self._padded_tokens
        try:
            return evaluate(self.subject, data.evaluated, data.tokenizer, data.scoring, seed, size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _diagnostics(self) -> dict[str, float]:
        unmoved = sample_of(self.subject.model) == self._first_weights
        found = mechanism_values(self.subject)
        found |= observed(self.subject, self.data.evaluated, self._padded_tokens)
        found |= {f"grad_norm/{name}": s / n for name, (s, n) in self._grad_norms.items()}
        return found | {
            "unmoved_share": float(unmoved.float().mean()),
            "tokens_per_s": self.tokens / self.train_wall_s if self.train_wall_s else 0.0,
            "peak_memory_gb": memory_gb(self.subject.device),
        }

    def save(self, to: Path | BinaryIO) -> None:
        """Write all that training goes on from: parameters, optimisers, chance, data cursor."""
        torch.save(
            {
                "step": self.step,
                "tokens": self.tokens,
                "train_wall_s": self.train_wall_s,
                "micro_batch": self._micro_batch,
                "checkpoint_layers": self.subject.model.checkpoint_layers,
                "padded_tokens": self._padded_tokens,
                "events": self._events,
                "wkv": list(self._wkv.names()),
                "grad_norms": self._grad_norms,
                "model": self.subject.model.state_dict(),
                "mechanisms": _states(self.subject.acting),
                **self._saved_means(),
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
                "schedules": [schedule.state_dict() for schedule in self._schedules],
                "random": torch.get_rng_state(),
            },
            to,
        )

    def _saved_means(self) -> dict[str, Any]:
        if self._model_mean is None:
            return {}
        mechanisms = _states(self._acting_means)
        return {"means": {"model": self._model_mean.state_dict(), "mechanisms": mechanisms}}

    def save_evaluated(self, to: Path | BinaryIO) -> None:
        """Write the weights that are evaluated, which nothing can go on from."""
        with self._evaluated_weights():
            states = {
                "model": self.subject.model.state_dict(),
                "mechanisms": _states(self.subject.acting),
            }
            torch.save({"step": self.step, **states}, to)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        saved = torch.load(path, map_location=self.subject.device, weights_only=True)
        self.subject.model.load_state_dict(saved["model"])
        for name, state in mechanism_states(saved, self.subject.acting).items():
            self.subject.acting[name].load_state_dict(state)
        for optimizer, state in zip(self._optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        # Before there were several optimisers, a checkpoint had one schedule.
        states = saved["schedules"] if "schedules" in saved else [saved["schedule"]]
        for schedule, state in zip(self._schedules, states, strict=False):
            schedule.load_state_dict(state)
        if self._model_mean is not None:
            self._model_mean.load_state_dict(saved["means"]["model"])
            for name, mean in self._acting_means.items():
                mean.load_state_dict(saved["means"]["mechanisms"][name])
        torch.set_rng_state(saved["random"].cpu())
        self.step, self.tokens = saved["step"], saved["tokens"]
        self.train_wall_s = saved["train_wall_s"]
        self._micro_batch, self._padded_tokens = saved["micro_batch"], saved["padded_tokens"]
        # Both younger than checkpoints that may still be gone on from.
        self.subject.model.checkpoint_layers |= saved.get("checkpoint_layers", False)
        self._wkv.before.update(saved.get("wkv", ()))
        self._events, self._grad_norms = saved["events"], saved["grad_norms"]


class _WkvUse:
    """Which back ends have computed an arm: those called since this was made, and `before`."""

    def __init__(self) -> None:
        self.before: set[str] = set()
        self._calls = calls_by_backend()

    def names(self) -> tuple[str, ...]:
        now = calls_by_backend().items()
        called = {name for name, count in now if count > self._calls.get(name, 0)}
        return tuple(sorted(self.before | called))


def _weighted_sum(scores: TokenScores, first_token_weight: float) -> torch.Tensor:
    """The losses of all target tokens, those of answers' first tokens weighted."""
    if first_token_weight == 1.0:
        return scores.nll_N.sum()
    return (scores.nll_N * torch.where(scores.first_N, first_token_weight, 1.0)).sum()


@contextlib.contextmanager
def _rates_times(factor: float, optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """All learning rates are multiplied; afterwards they are what they were."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate * factor
    try:
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def _states(parts: Mapping[str, Acting | WeightMean]) -> dict[str, dict[str, torch.Tensor]]:
    return {name: each.state_dict() for name, each in parts.items()}


def evaluated_states(
    saved: Mapping[str, Any], names: Iterable[str]
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """The weights in a checkpoint's content that are evaluated: the model's, each mechanism's.

    Args:
        saved: what `ArmTrainer.save` or `save_evaluated` wrote.
        names: of the arm's mechanisms.
    """
    means = saved.get("means", {"model": {}, "mechanisms": {}})
    states = mechanism_states(saved, names)
    acting = {
        name: {**state, **means["mechanisms"].get(name, {})} for name, state in states.items()
    }
    return {**saved["model"], **means["model"]}, acting


def mechanism_states(
    saved: Mapping[str, Any], names: Iterable[str]
) -> dict[str, dict[str, torch.Tensor]]:
    """The parameters of each mechanism in a checkpoint's content.

    Args:
        saved: what `ArmTrainer.save` wrote, or did before there were several mechanisms.
        names: of the arm's mechanisms.
    """
    if "mechanisms" in saved:
        return dict(saved["mechanisms"])
    return {name: saved["gates"] for name in names}


def _wanted_digest(split: Split) -> str:
    """Names the examples by what is wanted of them, whatever the order of the prompt."""
    digest = hashlib.sha256()
    for column in (split.answer_tokens, split.answer_offsets, split.target_tokens):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:16]
