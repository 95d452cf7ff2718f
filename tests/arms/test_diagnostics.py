"""What is looked at beside the scores, and memory that does not suffice.

torch's own error is raised where it would come from; nothing else is changed.
"""

import math
import resource
import sys

import pytest
import torch
from arm_cases import SEED, Place, assert_same_numbers, bench, materials, settings

from fstune.arms import trainer as arm_run
from fstune.arms.diagnostics import flags, mechanism_values, memory_gb, observed, sample_of
from fstune.arms.trainer import ArmTrainer, InfeasibleError
from model.future_seed import seed_state
from model.shortage import out_of_memory
from tasks.batch import collate

CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 2147483648 bytes."
)


def run(tmp_path, **changes):
    arm = settings(changes.pop("future_seed", SEED), **changes)
    stuff = materials(tmp_path, arm)
    return ArmTrainer(stuff.arm(arm, 0), stuff, torch.device("cpu"))


def test_gates_are_those_of_the_formula(tmp_path):
    trained = run(tmp_path)
    alpha = float(trained.subject.acting["future_seed"].alpha.detach()[0])
    assert mechanism_values(trained.subject)["gate/L01"] == pytest.approx(
        1 / (1 + math.exp(-alpha)), rel=1e-6
    )
    plain = run(tmp_path, future_seed=None)
    assert mechanism_values(plain.subject) == {}
    assert observed(plain.subject, plain.data.evaluated) == {}


def test_each_head_has_its_gate(tmp_path):
    trained = run(tmp_path, future_seed={"gate": "head", "alpha": 0.0, "norm": False})
    heads = trained.data.config.num_heads
    values = mechanism_values(trained.subject)
    assert set(values) == {"gate/L01", *(f"gate/L01.H{head}" for head in range(heads))}


def test_a_seed_is_compared_with_the_state_that_its_layer_ends_up_with(tmp_path):
    trained = run(tmp_path)
    subject, split = trained.subject, trained.data.evaluated
    prompt = collate(split, range(4)).prompt
    with torch.no_grad():
        _, state = subject.model.hidden(
            prompt.tokens_BT, mask_BT=prompt.mask_BT, acting=list(subject.acting.values())
        )
        below, own = state.wkv_LBHVK[0], state.wkv_LBHVK[1]
        seed = seed_state(subject.acting["future_seed"], 1, below, None)
    ratios = [
        seed[b, h].square().sum().sqrt() / own[b, h].square().sum().sqrt()
        for b in range(4)
        for h in range(own.shape[1])
    ]
    found = observed(subject, split)
    assert found == {"seed_ratio/L01": pytest.approx(float(sum(ratios) / len(ratios)), rel=1e-5)}


def test_weights_that_do_not_move_are_counted(tmp_path):
    trained = run(tmp_path)
    first = sample_of(trained.subject.model)
    assert trained.outcome().diagnostics["unmoved_share"] == 1.0
    trained.train_step()
    moved = float((sample_of(trained.subject.model) != first).float().mean())
    assert 0.5 < moved <= 1.0
    assert trained.outcome().diagnostics["unmoved_share"] == pytest.approx(1 - moved)


def test_gradient_norms_are_means_before_clipping(tmp_path):
    trained = run(tmp_path, train={"grad_clip": 1e-3})
    for _ in range(
        2
    ):  # the outputs of a new model's layers are zero, and so is a gate's first slope
        trained.train_step()
    found = trained.outcome().diagnostics
    assert found["grad_norm/model"] > 1e-2
    assert found["grad_norm/gates"] > 0
    clipped = [each.grad.norm() for each in trained.subject.model.parameters()]
    assert float(torch.stack(clipped).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_constant_and_empty_answers_are_flagged():
    said = {"answers/most_common": 0.95, "answers/most_common_wanted": 0.3, "answers/empty": 0.0}
    assert flags(said) == ["one answer for nearly all examples"]
    assert flags(said | {"answers/most_common_wanted": 0.93}) == []
    assert flags(said | {"answers/most_common": 0.5, "answers/empty": 0.95}) == [
        "nearly all answers are empty"
    ]
    assert flags({}) == []


@pytest.mark.parametrize(
    "error",
    [
        CUDA_ERROR,
        CPU_ERROR,
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_memory_errors_are_known(error):
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes do not match"))


class Hungry:
    """Lets pieces of at most `most` examples through, and raises torch's error for larger ones."""

    def __init__(self, most: int, error: BaseException) -> None:
        self.most, self.error, self.sizes = most, error, []
        self._scores = arm_run.token_scores

    def __call__(self, subject, batch):
        self.sizes.append(batch.num_examples)
        if batch.num_examples > self.most:
            raise self.error
        return self._scores(subject, batch)


@pytest.mark.parametrize("error", [CUDA_ERROR, CPU_ERROR], ids=["cuda", "cpu"])
def test_a_batch_that_does_not_fit_is_taken_in_pieces_to_the_same_effect(
    tmp_path, monkeypatch, error
):
    changes = {"train": {"batch_size": 6, "first_token_weight": 2.0}}
    whole, pieces = run(tmp_path, **changes), run(tmp_path, **changes)
    hungry = Hungry(2, error)
    losses = [whole.train_step() for _ in range(3)]
    monkeypatch.setattr(arm_run, "token_scores", hungry)
    found = [pieces.train_step() for _ in range(3)]
    # 6 and 3 do not fit, 6 not even recomputed; from then on there are three pieces of 2 a step.
    assert hungry.sizes == [6, 6, 3] + [2] * 9
    assert found == pytest.approx(losses, rel=1e-5)
    assert (pieces.step, pieces.tokens) == (whole.step, whole.tokens)
    events = pieces.outcome().events
    assert events == (
        "step 0: out of memory, training batch 6: from now on layers are recomputed for gradients",
        "step 0: out of memory, training batch 6: from now on 3 examples at a time",
        "step 0: out of memory, training batch 3: from now on 2 examples at a time",
    )
    torch.testing.assert_close(
        dict(pieces.subject.model.state_dict()),
        dict(whole.subject.model.state_dict()),
        rtol=1e-3,
        atol=1e-5,
    )


class Narrow:
    """Raises torch's error where a batch is read with all of its layers' inner values kept."""

    def __init__(self) -> None:
        self._scores = arm_run.token_scores

    def __call__(self, subject, batch):
        if torch.is_grad_enabled() and not subject.model.checkpoint_layers:
            raise CUDA_ERROR
        return self._scores(subject, batch)


@pytest.mark.parametrize("batch_size", [1, 6])
def test_layers_are_recomputed_before_a_batch_is_cut_and_no_number_changes(
    tmp_path, monkeypatch, batch_size
):
    changes = {"train": {"batch_size": batch_size}}
    plain, tight = run(tmp_path, **changes), run(tmp_path, **changes)
    losses = [plain.train_step() for _ in range(3)]
    monkeypatch.setattr(arm_run, "token_scores", Narrow())
    assert [tight.train_step() for _ in range(3)] == losses
    found = tight.outcome()
    assert [event.partition(": from now on ")[2] for event in found.events] == [
        "layers are recomputed for gradients"
    ]
    for name, value in plain.subject.model.state_dict().items():
        assert torch.equal(tight.subject.model.state_dict()[name], value), name


def test_pieces_are_remembered_when_an_arm_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(arm_run, "token_scores", Hungry(2, CUDA_ERROR))
    first = run(tmp_path, train={"batch_size": 6})
    first.train_step()
    first.save(tmp_path / "run.pt")
    hungry = Hungry(2, CUDA_ERROR)
    monkeypatch.setattr(arm_run, "token_scores", hungry)
    second = run(tmp_path, train={"batch_size": 6})
    second.restore(tmp_path / "run.pt")
    second.train_step()
    assert hungry.sizes == [2, 2, 2]
    assert second.subject.model.checkpoint_layers
    assert len(second.outcome().events) == 3


def test_an_example_that_does_not_fit_makes_the_arm_infeasible(tmp_path, monkeypatch):
    monkeypatch.setattr(arm_run, "token_scores", Hungry(0, CUDA_ERROR))
    with pytest.raises(InfeasibleError, match="memory: training batch 1 does not fit"):
        run(tmp_path).train_step()


def test_another_error_is_not_taken_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(arm_run, "token_scores", Hungry(0, RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path).train_step()


def test_a_trial_of_a_batch_meets_a_step_that_has_the_moments_of_another_beside_it(tmp_path):
    tried, alive = run(tmp_path), []
    scores = arm_run.token_scores

    def noting(subject, batch):
        states = [state for each in tried._optimizers for state in each.state.values()]
        if torch.is_grad_enabled():
            alive.append(sum(value.numel() for state in states for value in state.values()))
        return scores(subject, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arm_run, "token_scores", noting)
        tried.try_out(range(3))
    trained = sum(each.numel() for each in tried.subject.model.parameters() if each.requires_grad)
    assert alive[0] == 0
    assert alive[-1] >= 2 * trained


def test_an_evaluation_that_does_not_fit_is_done_in_smaller_batches(tmp_path, monkeypatch):
    plain = run(tmp_path).outcome()
    evaluate, sizes = arm_run.evaluate, []

    def hungry(*arguments):
        sizes.append(arguments[-1])
        if arguments[-1] > 5000:
            raise CUDA_ERROR
        return evaluate(*arguments)

    monkeypatch.setattr(arm_run, "evaluate", hungry)
    found = run(tmp_path).outcome()
    assert sizes == [16_384, 8192, 4096]
    assert len(found.events) == 2
    assert found.measures["correct"].tolist() == plain.measures["correct"].tolist()
    monkeypatch.setattr(arm_run, "evaluate", lambda *_: (_ for _ in ()).throw(CUDA_ERROR))
    with pytest.raises(InfeasibleError, match="one example to evaluate"):
        run(tmp_path).outcome()


def test_seeds_are_compared_in_as_many_tokens_at_a_time_as_the_evaluation_had(
    tmp_path, monkeypatch
):
    tried = run(tmp_path)
    plain = tried.outcome().diagnostics["seed_ratio/L01"]
    hidden, most = tried.subject.model.hidden, 2 * tried.data.evaluated.prompt_lengths.max()

    def hungry(tokens, *arguments, **named):
        if tokens.numel() > most:
            raise CUDA_ERROR
        return hidden(tokens, *arguments, **named)

    monkeypatch.setattr(tried.subject.model, "hidden", hungry)
    found = tried.outcome()
    assert found.events[-1].startswith("step 0: out of memory in evaluation")
    assert found.diagnostics["seed_ratio/L01"] == pytest.approx(plain, rel=1e-5)


def test_an_optimiser_that_does_not_fit_makes_the_arm_infeasible(tmp_path, monkeypatch):
    begin, zeros_like = torch.optim.AdamW._init_group, torch.zeros_like

    def hungry(self, *arguments):
        made = []

        def second_fails(*of, **named):
            made.append(of)
            if len(made) == 2:
                raise CUDA_ERROR
            return zeros_like(*of, **named)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "zeros_like", second_fails)
            return begin(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", hungry)
    with pytest.raises(InfeasibleError, match="memory: the optimiser does not fit"):
        run(tmp_path, train={"batch_size": 6}).train_step()


def test_a_model_that_does_not_fit_makes_the_arm_infeasible(tmp_path, monkeypatch):
    def full(*_, **__):
        raise CUDA_ERROR

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(InfeasibleError, match="memory: the model does not fit"):
        Place(tmp_path / "arm", settings(SEED)).advance(1)


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_told_in_the_units_of_the_system(monkeypatch, system, unit):
    monkeypatch.setattr(sys, "platform", system)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory_gb(torch.device("cpu")) == pytest.approx(used * unit / 1e9, rel=0.01)


def test_the_store_keeps_diagnostics_and_events(tmp_path):
    place = Place(tmp_path, settings(SEED))
    made = place.advance(2)
    assert_same_numbers(place.store.outcome(place.arm.digest, 2), made)
    assert bench(tmp_path)[0].store.outcome(place.arm.digest, 2).diagnostics == made.diagnostics
