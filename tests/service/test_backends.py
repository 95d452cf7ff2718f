"""The same spec gives the same verdicts whichever back end computes the recurrence."""

import pytest
from arm_cases import bench, spec

from fstune import training
from fstune.pairing import run_rung
from model.initial import initialise

TEXT = """\
name: backends
model:
  init: {num_layers: 2, width: 32, head_size: 32, vocab_size: 256, ffn_width: 64, decay_rank: 4,
         in_context_rate_rank: 4, value_mix_rank: 4, gate_rank: 4}
task: {name: rightcopy, length: 3, train_size: 64, validation_size: 32}
train: {lr: 1e-2, batch_size: 8}
rungs: [{steps: 12, seeds: 2}]
space: {future_seed.alpha: {uniform: [-40.0, 3.0]}}
search: {trials: 2}
"""


def rung(folder, monkeypatch, backend, alpha):
    def with_backend(config, seed):
        model = initialise(config, seed)
        model.wkv_backend = backend
        return model

    folder.mkdir()
    monkeypatch.setattr(training, "initialise", with_backend)
    candidate = {"future_seed.alpha": alpha}
    return run_rung(spec(folder, TEXT), candidate, 0, folder / "cache", bench(folder)[0])


@pytest.mark.parametrize("alpha", [-40.0, 2.0])
def test_verdicts_do_not_depend_on_the_back_end(tmp_path, monkeypatch, alpha):
    found = {
        backend: rung(tmp_path / backend, monkeypatch, backend, alpha)
        for backend in ("reference", "chunked")
    }
    one, other = found["reference"], found["chunked"]
    assert one.verdict == other.verdict
    for name, delta in one.deltas.items():
        # Rounding grows over the steps of training; a verdict's margin is 0.01.
        assert other.deltas[name].mean == pytest.approx(delta.mean, abs=2e-3)
    assert [pair.seed for pair in one.arms] == [0, 1]
