"""The memory model against what a real step has alive at a time."""

import pytest
import torch
from arm_cases import SEED, new_run, settings
from arm_cases import SHAPES as SHAPES_OF_ARMS
from typer.testing import CliRunner

from fstune.arms.memory import Step, _Alive, checkpoint_bytes, step_memory
from fstune.cli.commands import app
from model.config import ModelConfig
from model.future_seed import FutureSeed
from model.initial import initialise
from model.mechanisms.learned_state.settings import LearnedState
from model.mechanisms.second_pass.settings import SecondPass

SHAPES = ModelConfig(4, 128, 256, head_size=64)
GATES = 3
"""Parameters of Future-Seed by default: a logit for each layer but the first."""


def alive_in_a_step(recompute: bool, rows: int, tokens: int) -> int:
    """Bytes that a step of several rows has alive at the most, gradients of weights included."""
    model = initialise(SHAPES, 0)
    model.checkpoint_layers = recompute
    with _Alive() as alive:
        x, _ = model.hidden(torch.zeros(rows, tokens, dtype=torch.int64))
        x.mean().backward()
    return alive.most


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_rows_and_tokens_cost_what_a_real_step_of_them_does(recompute):
    memory = step_memory(Step(SHAPES, {}, False, recompute), tokens=512, scored=0)
    rise = alive_in_a_step(recompute, 5, 512) - alive_in_a_step(recompute, 2, 512)
    assert 3 * memory.per_row == pytest.approx(rise, rel=0.15)


def test_the_terms_add_up():
    step = Step(SHAPES, {"future_seed": FutureSeed()}, False, False)
    parameters = sum(each.numel() for each in initialise(SHAPES, 0).parameters())
    one, more = step_memory(step, 512, 8), step_memory(step, 512, 16)
    assert one.fixed == 16 * (parameters + GATES)
    assert more.per_row - one.per_row == 8 * 12 * 256
    largest = one.largest_batch(0.5)
    assert one.of(largest) <= 0.5e9 < one.of(largest + 1)
    assert one.largest_batch(0.001) == 0


def test_an_optimiser_and_mechanisms_cost_what_they_keep():
    adamw, muon = (
        step_memory(Step(SHAPES, {}, False, False, name), 128, 1) for name in ("adamw", "muon")
    )
    matrices = [
        each.numel()
        for name, each in initialise(SHAPES, 0).blocks.named_parameters()
        if each.ndim == 2 and not name.endswith("r_k")
    ]
    assert adamw.fixed - muon.fixed == 4 * sum(matrices)
    assert adamw.per_row == muon.per_row
    learned = {"learned_state": LearnedState()}
    with_states = step_memory(Step(SHAPES, learned, False, False), 128, 1)
    assert with_states.fixed - adamw.fixed == 16 * 4 * 2 * 64 * 64
    twice = step_memory(Step(SHAPES, {"second_pass": SecondPass()}, False, False), 128, 1)
    assert twice.per_row > 1.5 * adamw.per_row


def test_a_model_that_stays_as_it_is_has_weights_and_no_optimiser():
    seed = {"future_seed": FutureSeed(layer_start=3, alpha_lr=1e-3)}
    trained, frozen = (
        step_memory(Step(SHAPES, seed, False, False, optimizer), 128, 1)
        for optimizer in ("adamw", None)
    )
    gates = 16 * 1  # layer 3's
    assert frozen.fixed - gates == (trained.fixed - gates) / 4
    # Nothing is kept of the layers that no gate's gradient passes.
    assert frozen.per_row < 0.6 * trained.per_row


def test_storages_count_for_as_long_as_they_live():
    with _Alive() as alive:
        first = torch.zeros(1000)
        second = first.view(10, 100) + 1.0
        del first, second
        torch.zeros(500)
    assert alive.most == 2 * 4000


def test_the_estimate_needs_no_data_but_a_memory():
    told = CliRunner().invoke(app, ["probe", "quickstart", "--estimate", "64", "--memory-gb", "8"])
    assert told.exit_code == 0
    assert told.output.count("largest batch") == 2
    refused = CliRunner().invoke(app, ["probe", "quickstart", "--estimate", "64"])
    assert "--estimate needs --memory-gb" in str(refused.exception)


def test_a_mean_is_a_float32_more_of_every_trained_parameter():
    count = sum(x.numel() for x in initialise(SHAPES, 0).parameters()) + GATES
    plain, mean = (
        step_memory(Step(SHAPES, {"future_seed": FutureSeed()}, False, False, mean=mean), 128, 1)
        for mean in (False, True)
    )
    assert mean.fixed - plain.fixed == 4 * count
    assert mean.per_row == plain.per_row


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("others", [{}, {"learned_state": {}}], ids=["seeds", "states"])
def test_a_checkpoint_is_as_large_as_told(tmp_path, optimizer, others):
    shapes = SHAPES_OF_ARMS | {"width": 64, "head_size": 32, "ffn_width": 256}
    arm = settings(SEED, model={"init": shapes}, train={"optimizer": optimizer}, **others)
    run = new_run(tmp_path, arm)
    run.train_step()
    run.save(tmp_path / "run.pt")
    told = checkpoint_bytes(Step.of(run.data.config, arm, checkpoint_layers=False))
    # Names, shapes and steps come to some hundred bytes a tensor.
    tensors = 4 * len(list(run.subject.model.parameters()))
    assert 0 < (tmp_path / "run.pt").stat().st_size - told < 600 * tensors


def test_a_checkpoint_of_gates_alone_has_the_model_and_none_of_its_moments():
    parameters = sum(each.numel() for each in initialise(SHAPES, 0).parameters())
    step = Step(SHAPES, {"future_seed": FutureSeed()}, False, False, None)
    assert checkpoint_bytes(step) == 4 * parameters + 12 * GATES
