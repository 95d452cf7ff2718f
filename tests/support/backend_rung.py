"""Rungs decided with one back end or another; as a script, by Triton's interpreter.

That takes a process of its own, since Triton reads TRITON_INTERPRET when it is imported.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from arm_cases import bench, spec

from fstune.results.pairing import run_rung

TEXT = """\
name: backends
model:
  init: {num_layers: 2, width: 32, head_size: 32, vocab_size: 256, ffn_width: 64, decay_rank: 4,
         in_context_rate_rank: 4, value_mix_rank: 4, gate_rank: 4}
  wkv: BACKEND
task: {name: rightcopy, length: 2, train_size: 64, validation_size: 32}
train: {lr: 2e-2, batch_size: 8}
rungs: [{steps: 30, seeds: 1}]
objective: {metric: nll}
fixed: {future_seed: {norm: true}}
space: {future_seed.alpha: {uniform: [-40.0, 3.0]}}
search: {trials: 2}
"""


def decided(backend: str, alphas: list[float]) -> list[dict[str, Any]]:
    """Verdict and deltas of a candidate for each gate."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        search = spec(folder, TEXT.replace("BACKEND", backend))
        for alpha in alphas:
            candidate = {"future_seed.alpha": alpha}
            place = bench(folder)[0]
            rung = run_rung(search, candidate, 0, folder / "cache", place)
            used = place.store.outcome(rung.arms[0].variant, 30).backends
            deltas = {name: [d.mean, d.low, d.high] for name, d in rung.deltas.items()}
            found.append({"verdict": rung.verdict, "deltas": deltas, "backends": used})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(decided("triton", [float(alpha) for alpha in sys.argv[1:]])))
