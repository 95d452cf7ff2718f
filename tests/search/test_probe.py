"""The probe: which arm it tries, and the largest batch under a limit that really binds."""

import json
import re
from pathlib import Path

import pytest
from arm_cases import SPEC, spec
from watching import calls, opens

from fstune.api import prepare
from fstune.errors import FstuneError
from fstune.search.probe import estimated, heaviest, probe
from fstune.specs import rules

WIDE = """\
name: wide
model:
  init: {num_layers: 4, width: 64, head_size: 32, vocab_size: 256, ffn_width: 256}
task: {name: rightcopy, length: 100, train_size: 64, validation_size: 4}
train: {batch_size: probe}
rungs: [{steps: 1}]
space:
  future_seed.layer_start: {choice: [1, 3]}
  future_seed.alpha_lr: {choice: [0.0, 1e-2]}
  future_seed.detach: {choice: [true, false]}
  task.length: {int_uniform: [8, 100]}
search: {trials: 2}
"""


def test_the_heaviest_arm_has_the_longest_prompts_and_the_lowest_seeded_layer(tmp_path):
    assert heaviest(spec(tmp_path, WIDE)) == {
        "future_seed.layer_start": 1,
        "future_seed.alpha_lr": 1e-2,
        "future_seed.detach": False,
        "task.length": 100,
    }


def test_the_heaviest_arm_computes_in_float32(tmp_path):
    text = WIDE.replace("ffn_width: 256}", "ffn_width: 256}\n  precision: bf16")
    text = text.replace("space:", "space:\n  model.precision: {choice: [float32, bf16]}")
    assert heaviest(spec(tmp_path, text))["model.precision"] == "float32"


def test_the_heaviest_arm_has_the_optimiser_that_keeps_most(tmp_path):
    text = WIDE.replace("space:", "space:\n  train.optimizer: {choice: [muon, adamw]}")
    assert heaviest(spec(tmp_path, text))["train.optimizer"] == "adamw"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_batch_is_found_that_fits_and_a_larger_one_does_not(tmp_path):
    asked = spec(tmp_path, WIDE)
    found = probe(asked, tmp_path / "runs", memory_gb=0.7)
    assert found.stopped_by == "memory"
    assert 1 <= found.batch_size < 64
    more = probe(asked, tmp_path / "runs", memory_gb=0.8)
    assert more.batch_size > found.batch_size
    kept = list((tmp_path / "runs" / "cache").glob("probe-*.json"))
    assert len(kept) == 2
    # The second answer comes from the first: a changed file is believed.
    for path in kept:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"batch_size": 17}))
    assert probe(asked, tmp_path / "runs", memory_gb=0.7).batch_size == 17


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_baseline_with_longer_prompts_is_tried_too(tmp_path):
    text = WIDE.replace("search:", "baseline: {task.control: repeat_prompt}\nsearch:")
    plain, twice = (
        probe(spec(tmp_path, each), tmp_path / "runs", memory_gb=0.7) for each in (WIDE, text)
    )
    assert 1 <= twice.batch_size < 0.75 * plain.batch_size


def test_an_estimate_is_that_of_the_largest_model_of_the_space(tmp_path):
    layers = "  model.init.num_layers: {choice: [2, 3]}\n"
    varied = spec(tmp_path, SPEC.replace("space:\n", f"space:\n{layers}"))
    fixed = spec(tmp_path, SPEC.replace("num_layers: 2", "num_layers: 3"))
    largest = [
        [int(re.findall(r"largest batch (\d+)", line)[0]) for line in estimated(each, 64, 8.0, [])]
        for each in (varied, fixed)
    ]
    assert largest[0] == pytest.approx(largest[1], rel=0.02)


@pytest.mark.slow
def test_all_examples_fit_where_memory_does_not_bind(tmp_path):
    found = probe(spec(tmp_path, SPEC), tmp_path / "runs")
    assert (found.batch_size, found.stopped_by) == (10, "examples to train on or to try: 10")
    assert found.peak_memory_gb > 0.1


def test_another_failure_than_memory_is_told(tmp_path):
    broken = spec(tmp_path, SPEC)
    (tmp_path / "runs" / "cache").mkdir(parents=True)
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"no weights")
    settings = broken.model.model_copy(update={"checkpoint": str(checkpoint), "init": None})
    with pytest.raises(FstuneError, match=r"weights\.pth"):
        probe(broken.model_copy(update={"model": settings}), tmp_path / "runs")


def test_a_spec_that_asks_for_it_gets_the_batch_that_fits(tmp_path: Path):
    path = tmp_path / "small.yaml"
    # The end of the schedule follows from the rungs.
    text = SPEC.replace("batch_size: 3", "batch_size: probe, lr_schedule: cosine")
    path.write_text(text.replace("train_size: 10", "train_size: 8"))  # a power of 2: one worker
    for resume in (False, True):
        with opens(path) as read, calls(rules.problems) as judged:
            search = prepare(path, runs=tmp_path / "runs", resume=resume)
        assert search.spec.train.batch_size == 8
        assert (read.count, judged.count) == (1, 1)
