"""The chunk form of WKV-7 on a CPU against the loop over tokens: speed, error, memory.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/wkv_cpu.py > docs/results/wkv_cpu.json

Forward and backward through y and the final state, float32, as a search's workers run it: oneDNN
products where they are as exact, malloc kept from trimming (the variables must be set before the
process starts; the command above does not, so that this script starts itself again with them).
"""

import json
import os
import sys

import torch
from timing import in_turns, ratios, spread

from fstune.machine import WORKER_VARIABLES, cores, describe, use_fast_matmul
from model.wkv.dispatch import wkv7

SHAPES = [(2, 512, 12, 64), (2, 1024, 12, 64), (2, 2048, 12, 64), (16, 64, 4, 64), (16, 64, 2, 32)]
LOOP_UP_TO = 512
"""Tokens above which the loop is left out: it keeps every state for its backward."""
TURNS = 9
LOG_DECAY_BOUND = -0.606531


def operands(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    """r, log decay, k, v, a, b and s0 as RWKV-7 makes them."""
    batch, length, heads, size = shape
    chance = torch.Generator().manual_seed(0)

    def normal(*extent: int) -> torch.Tensor:
        return torch.randn(*extent, generator=chance, dtype=torch.float64)

    r, k, v, drive, rate = (normal(batch, length, heads, size) for _ in range(5))
    kk = torch.nn.functional.normalize(normal(batch, length, heads, size), dim=-1)
    log_decay = LOG_DECAY_BOUND * torch.sigmoid(drive)
    made = [r, log_decay, k, v, -kk, kk * torch.sigmoid(rate), normal(batch, heads, size, size)]
    return [x.to(dtype).requires_grad_() for x in made]


def run(inputs: list[torch.Tensor], backend: str) -> list[torch.Tensor]:
    """y, sT and the gradients that come of fixed ones of both."""
    r, log_decay, k, v, a, b, s0 = inputs
    y, state = wkv7(r, log_decay, k, v, a, b, s0, backend=backend)
    # As large as they are, and the same for every back end and dtype.
    given = [v.detach().flip(1), s0.detach().mT]
    return [y.detach(), state.detach(), *torch.autograd.grad([y, state], inputs, given)]


def errors(shape: tuple[int, int, int, int]) -> dict[str, float]:
    """Relative error (Frobenius) of every output and gradient of the chunk form."""
    batch, _, heads, size = shape
    small = (batch, 256, min(heads, 2), size)
    exact = run(operands(small, torch.float64), "reference")
    found = run(operands(small, torch.float32), "chunked")
    names = ["y", "sT", "dr", "dlog_decay", "dk", "dv", "da", "db", "ds0"]
    return {
        name: float(f"{float((x.double() - e).norm() / e.norm()):.2g}")
        for name, x, e in zip(names, found, exact, strict=True)
    }


def saved_bytes(inputs: list[torch.Tensor]) -> int:
    """What the chunk form keeps for its backward."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        wkv7(*inputs[:6], inputs[6], backend="chunked")
    return kept


def measure(shape: tuple[int, int, int, int]) -> dict[str, object]:
    batch, length, heads, size = shape
    inputs = operands(shape, torch.float32)
    contenders = {"chunked": lambda: run(inputs, "chunked")}
    if length <= LOOP_UP_TO:
        contenders["loop"] = lambda: run(inputs, "reference")
    seconds = in_turns(contenders, TURNS)
    found: dict[str, object] = {
        "shape_BTHD": shape,
        "chunked_ms": spread([1000 * s for s in seconds["chunked"]]),
        "chunked_us_per_token": round(1e6 * min(seconds["chunked"]) / (batch * length), 2),
        "kept_for_backward_over_inputs": round(
            saved_bytes(inputs) / (6 * batch * length * heads * size * 4), 2
        ),
    }
    if "loop" in seconds:
        found["times_faster_than_loop"] = ratios(seconds["loop"], seconds["chunked"])
    return found


def main() -> None:
    if any(os.environ.get(name) != value for name, value in WORKER_VARIABLES.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WORKER_VARIABLES)
    torch.set_num_threads(cores())
    fast = use_fast_matmul()
    result = {
        "benchmark": "wkv_cpu",
        "command": "PYTHONPATH=.:tests/benchmarks python tests/benchmarks/wkv_cpu.py",
        "dtype": "float32",
        "turns": TURNS,
        "threads": torch.get_num_threads(),
        "onednn": fast,
        "relative_error_against_float64": errors(SHAPES[0]),
        "shapes": [measure(shape) for shape in SHAPES],
        **describe(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
