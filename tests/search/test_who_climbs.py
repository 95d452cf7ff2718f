"""A live candidate beside five that do nothing is named, whichever scheduler decides who climbs."""

import json

import pytest
from search_process import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SPEC = """\
name: small
model: {{init: {{num_layers: 2, width: 32, head_size: 16, vocab_size: 256}}, tokenizer: bytes}}
task: {{name: rightcopy, length: 4, train_size: 1024, validation_size: 128}}
train: {{lr: 1.0e-2, batch_size: 16, weight_decay: 0.0}}
rungs: [{{steps: 6, seeds: 1}}, {{steps: 12, seeds: 1}}, {{steps: 24, seeds: 2}}]
space:
  future_seed.alpha: {{choice: [-20.72, -12.0, -9.0, -8.0, -7.0, 2.0]}}
fixed: {{future_seed: {{norm: true, alpha_lr: 0.0}}}}
search: {{trials: 6, sampler: random, scheduler: {scheduler}}}
resources: {{cpu_threads: 1}}
"""
"""Gates of sigmoid(alpha): the third lies at 1e-4, the last at 0.88."""


@pytest.mark.parametrize("scheduler", ["asha_promote", "asha", "none"])
def test_the_live_candidate_is_named(tmp_path, scheduler):
    rungs = "" if scheduler == "none" else ", reduction_factor: 2"
    place = Place(tmp_path, SPEC.format(scheduler=scheduler + rungs))
    assert place.search().wait() == 0, place.output()
    report = json.loads((place.records / "report.json").read_text())
    assert report["trials"][report["best"]]["candidate"] == {"future_seed.alpha": 2.0}
