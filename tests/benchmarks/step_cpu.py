"""Whole training steps on a CPU: what WKV costs in them, and what else was gained.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/step_cpu.py > docs/results/step_cpu.json

WKV's share is found by putting a stub in its place that has the same shapes and gradients into the
same tensors. The 0.1B-shaped model (12 layers of width 768) takes forward and backward of a loss at
the last 64 positions with Future-Seed on; the shipped tiny searches take their own training step,
optimiser included.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from timing import in_turns, ratios, spread
from torch import Tensor

from fstune.arms.inputs import gather
from fstune.arms.trainer import ArmTrainer
from fstune.machine import WORKER_VARIABLES, cores, describe, use_fast_matmul
from fstune.specs.loading import find, load
from model.config import ModelConfig
from model.future_seed import FutureSeed, Gates
from model.initial import initialise
from model.wkv.backends import BACKENDS, in_torch

TURNS_LARGE, TURNS_TINY = 5, 30
BATCH, LENGTH, SCORED, VOCABULARY = 2, 512, 64, 4096
TINY = ("quickstart", "sudoku_tiny", "permfill_tiny", "retrieval_a2q_tiny")


def stub(
    r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor
) -> tuple[Tensor, Tensor]:
    """What has WKV's shapes and gradients into all of its operands, at the cost of a few sums."""
    return r + log_decay + k + v + a + b, s0 + (k[:, -1] * v[:, -1])[..., None]


def large() -> dict[str, object]:
    """Forward and backward of the 0.1B shape."""
    config = ModelConfig(num_layers=12, width=768, head_size=64, vocab_size=VOCABULARY)
    model = initialise(config, 0)
    seed = FutureSeed(layer_start=6, alpha=-2.0, alpha_lr=1e-3, norm=True, clip=1.0)
    gates = Gates(config, seed)
    chance = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=chance)

    def step(backend: str, bf16: bool = False, on: bool = True) -> None:
        model.wkv_backend = backend
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            x_BTC, _ = model.hidden(tokens_BT, acting=[gates] if on else [])
            logits = model.project(x_BTC[:, -SCORED:]).float()
        wanted = tokens_BT[:, -SCORED:].flatten()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted).backward()
        model.zero_grad(set_to_none=True)

    def default_products() -> None:
        torch.set_float32_matmul_precision("highest")
        step("chunked")
        use_fast_matmul()

    seconds = in_turns(
        {
            "chunked": lambda: step("chunked"),
            "stub": lambda: step("stub"),
            "default_products": default_products,
            "bf16": lambda: step("chunked", bf16=True),
            "off": lambda: step("chunked", on=False),
        },
        TURNS_LARGE,
    )
    chunked = seconds["chunked"]
    shares = [1 - s / c for s, c in zip(seconds["stub"], chunked, strict=True)]
    return {
        "model": "12 layers of width 768, 12 heads of 64",
        "batch": BATCH,
        "tokens": LENGTH,
        "scored": SCORED,
        "step_s": spread(chunked, 3),
        "wkv_share": spread(shares, 3),
        "tokens_per_s": round(BATCH * LENGTH / min(chunked)),
        "times_faster_by_onednn": ratios(seconds["default_products"], chunked),
        "times_faster_in_bf16": ratios(chunked, seconds["bf16"]),
        "future_seed_over_none": ratios(chunked, seconds["off"]),
    }


def tiny(name: str, folder: Path) -> dict[str, object]:
    """The training step of a shipped search's first point or corner, Future-Seed on."""
    spec = load(find(name)).spec
    torch.set_num_threads(spec.resources.cpu_threads or cores())
    candidate = dict(spec.points[0]) if spec.points else {}
    _, settings = spec.settings(candidate)
    materials = gather(settings, folder)
    run = ArmTrainer(materials.arm(settings, 0), materials, torch.device("cpu"))

    def with_backend(backend: str) -> Callable[[], float]:
        def step() -> float:
            run.subject.model.wkv_backend = backend
            return run.train_step()

        return step

    contenders = {backend: with_backend(backend) for backend in ("chunked", "stub", "reference")}
    seconds = in_turns(contenders, TURNS_TINY)
    return {
        "search": name,
        "threads": torch.get_num_threads(),
        "step_ms": spread([1000 * s for s in seconds["chunked"]], 2),
        "over_stub": ratios(seconds["chunked"], seconds["stub"]),
        "times_faster_than_loop": ratios(seconds["reference"], seconds["chunked"]),
    }


def main() -> None:
    if any(os.environ.get(name) != value for name, value in WORKER_VARIABLES.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WORKER_VARIABLES)
    torch.set_num_threads(cores())
    fast = use_fast_matmul()
    BACKENDS["stub"] = in_torch(stub)
    result: dict[str, object] = {
        "benchmark": "step_cpu",
        "command": "PYTHONPATH=.:tests/benchmarks python tests/benchmarks/step_cpu.py",
        "onednn": fast,
        "large": large(),
    }
    with tempfile.TemporaryDirectory() as folder:
        result["tiny"] = [tiny(name, Path(folder)) for name in TINY]
    print(json.dumps(result | describe(), indent=1))


if __name__ == "__main__":
    main()
