"""WKV-7 and the whole 0.1B step on a GPU: against fla-core, against memory, against matmuls.

    PYTHONPATH=.:tests/benchmarks:tests/support python tests/benchmarks/wkv_gpu.py \
        [--out docs/results/wkv_gpu.json] [--sweep] [--batch 4]

Forward and backward through y and the final state, bfloat16 operands, B 8, T 4096, 12 heads of 64.
fla-core, where it is installed, runs at each of its chunk sizes with and without recomputation; the
ratio is to its best in the same run. No ratio is shown of a kernel that is not right: each is held
against the loop in float64 first. `--sweep` times other launch shapes of our kernels.

The limit of memory is what must be read and written at least, 7 tensors forward and 13 backward,
at the rate of a copy measured in the same run. The step's rate counts 6 operations per weight that
multiplies and token (none for WKV), over the rate of a bfloat16 product measured in the same run.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from timing import in_turns, ratios, spread
from wkv_cases import Case

from fstune.machine import describe
from model.config import ModelConfig
from model.future_seed import FutureSeed, Gates
from model.initial import initialise
from model.rwkv7 import RWKV7
from model.wkv import fla
from model.wkv.dispatch import wkv7
from model.wkv.triton_launch import CONFIGS, Config, Launch

DEVICE = "cuda"
COMMAND = "PYTHONPATH=.:tests/benchmarks:tests/support python tests/benchmarks/wkv_gpu.py"
BATCH, LENGTH, HEADS, SIZE = 8, 4096, 12, 64
SCORED, VOCABULARY = 64, 65536
TURNS = 20
RIGHT = Case(100, SIZE, "strong", "random", "BFLOAT16", batch=2, heads=2)
LEAST_TENSORS = {"forward": 7, "forward_and_backward": 20}


def synchronised(run: Callable[[], object]) -> Callable[[], None]:
    def wait() -> None:
        run()
        torch.cuda.synchronize()

    return wait


def operands(*, grad: bool) -> list[torch.Tensor]:
    """r, log decay, k, v, a, b in bfloat16 and s0 in float32, as RWKV-7 makes them."""
    chance = torch.Generator(DEVICE).manual_seed(0)
    shape = (BATCH, LENGTH, HEADS, SIZE)

    def normal(*extent: int) -> torch.Tensor:
        return torch.randn(*extent, generator=chance, device=DEVICE)

    kk = torch.nn.functional.normalize(normal(*shape), dim=-1)
    log_decay = fla.LOWER_BOUND * (normal(*shape) - 3).sigmoid()
    made = [normal(*shape), log_decay, normal(*shape), normal(*shape), -kk]
    made = [x.bfloat16() for x in (*made, kk * normal(*shape).sigmoid())]
    # Rounding must not take a decay below the bound that fla-core is told.
    made[1] = made[1].clamp_min(-0.605)
    made.append(normal(BATCH, HEADS, SIZE, SIZE))
    return [x.requires_grad_(grad) for x in made]


def both_ways(
    run: Callable[..., tuple[torch.Tensor, torch.Tensor]], inputs: list[torch.Tensor]
) -> Callable[[], None]:
    y, sT = run(*inputs)
    dy, dsT = torch.randn_like(y), torch.randn_like(sT)

    def once() -> None:
        torch.autograd.grad(run(*inputs), inputs, [dy, dsT])

    return synchronised(once)


def ours(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return wkv7(*inputs, backend="triton")


def peers() -> dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]]:
    """fla-core at every setting that could be its best."""
    if importlib.util.find_spec("fla") is None:
        return {}
    from fla.ops.rwkv7 import chunk_rwkv7

    def setting(chunk_size: int, *, keep: bool) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        # Its own layout of states throughout: transposing is not its cost.
        def run(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            names = ("r", "w", "k", "v", "a", "b", "initial_state")
            y, sT = chunk_rwkv7(
                **dict(zip(names, inputs, strict=True)),
                output_final_state=True,
                safe_gate=True,
                lower_bound=fla.LOWER_BOUND,
                chunk_size=chunk_size,
                disable_recompute=keep,
            )
            return y, sT

        return run

    return {
        f"fla chunk {chunk}{' keep' if keep else ''}": setting(chunk, keep=keep)
        for chunk, keep in itertools.product((16, 32, 64), (False, True))
    }


def device_rates() -> dict[str, float]:
    """What the device reaches now: bytes of a copy and operations of a product, per second."""
    source = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    left = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    right, out = torch.randn_like(left), torch.empty_like(left)
    seconds = in_turns(
        {
            "copy": synchronised(lambda: target.copy_(source)),
            "product": synchronised(lambda: torch.mm(left, right, out=out)),
        },
        TURNS,
    )
    return {
        "copy_tb_per_s": round(2 * 2**30 / min(seconds["copy"]) / 1e12, 3),
        "bf16_product_tflops": round(2 * 8192**3 / min(seconds["product"]) / 1e12, 1),
    }


def kernel(rates: dict[str, float]) -> dict[str, object]:
    contenders = {"ours": ours, **peers()}
    backends = ["triton", "fla"] if len(contenders) > 1 else ["triton"]
    wrong = {name: RIGHT.excess(RIGHT.errors(name, DEVICE)) for name in backends}
    inputs, plain = operands(grad=True), operands(grad=False)
    seconds = in_turns({n: both_ways(run, inputs) for n, run in contenders.items()}, TURNS)
    forward = in_turns(
        {n: synchronised(lambda run=run: run(*plain)) for n, run in contenders.items()}, TURNS
    )
    tensor = BATCH * LENGTH * HEADS * SIZE * 2
    limit_ms = {
        name: 1e3 * count * tensor / rates["copy_tb_per_s"] / 1e12
        for name, count in LEAST_TENSORS.items()
    }
    found: dict[str, object] = {
        "shape_BTHD": (BATCH, LENGTH, HEADS, SIZE),
        "errors_beyond_tolerance": wrong,
        "forward_and_backward_ms": {n: spread([1e3 * x for x in s]) for n, s in seconds.items()},
        "forward_ms": {n: spread([1e3 * x for x in s]) for n, s in forward.items()},
        "memory_limit_ms": {n: round(value, 3) for n, value in limit_ms.items()},
    }
    if not any(wrong.values()):
        over = [1e3 * x / limit_ms["forward_and_backward"] for x in seconds["ours"]]
        found["over_memory_limit"] = spread(over, 2)
        theirs = {n: min(s) for n, s in seconds.items() if n != "ours"}
        if theirs:
            best = min(theirs, key=theirs.__getitem__)
            found["best_of_fla"] = best
            found["times_faster_than_best_of_fla"] = ratios(seconds[best], seconds["ours"])
    return found


def sweep() -> list[tuple[float, str]]:
    """Milliseconds forward and backward of other launch shapes of ours, the quickest first."""
    import triton

    inputs = operands(grad=True)
    shipped = CONFIGS["bfloat16", SIZE]
    rows: list[tuple[float, str]] = []

    def try_out(label: str, config: Config) -> None:
        CONFIGS["bfloat16", SIZE] = config
        try:
            seconds = in_turns({"it": both_ways(ours, inputs)}, 5)["it"]
        except (triton.runtime.errors.OutOfResources, triton.CompilationError):
            return
        finally:
            CONFIGS["bfloat16", SIZE] = shipped
        rows.append((round(1e3 * min(seconds), 3), label))

    for chunk in (16, 32, 64):
        try_out(f"chunk {chunk}", replace(shipped, chunk=chunk))
    for name in ("forward", "backward_states"):
        for sizes in itertools.product((2, 4, 8), (1, 2, 3), (16, 32, 64)):
            try_out(f"{name} {Launch(*sizes)}", replace(shipped, **{name: (Launch(*sizes),)}))
    for warps, block_v, block_k in itertools.product((4, 8), (32, 64), (32, 64)):
        launch = Launch(warps, 1, block_v, block_k)
        try_out(f"gradients {launch}", replace(shipped, gradients=launch))
    for warps in (1, 2, 4, 8):
        try_out(f"invert {warps}", replace(shipped, invert=Launch(warps, 1, 0)))
    return sorted(rows)


def multiplying_weights(model: RWKV7) -> int:
    """Weights of the products that every position takes part in."""
    skipped = {model.emb.weight, model.head.weight}
    return sum(p.numel() for p in model.parameters() if p.ndim == 2 and p not in skipped)


def step(rates: dict[str, float], batch: int) -> dict[str, object]:
    """Forward, backward and AdamW of the 0.1B shape under bfloat16 autocast."""
    config = ModelConfig(num_layers=12, width=768, head_size=SIZE, vocab_size=VOCABULARY)
    model = initialise(config, 0).to(DEVICE)
    gates = Gates(config, FutureSeed(alpha_lr=1e-3)).to(DEVICE)
    optimiser = torch.optim.AdamW([*model.parameters(), *gates.parameters()], fused=True)
    chance = torch.Generator(DEVICE).manual_seed(0)
    tokens_BT = torch.randint(VOCABULARY, (batch, LENGTH), generator=chance, device=DEVICE)

    def once(acting: Sequence[Gates]) -> None:
        with torch.autocast(DEVICE, torch.bfloat16):
            x_BTC, _ = model.hidden(tokens_BT, acting=acting)
            logits = model.project(x_BTC[:, -SCORED:]).float()
        wanted = tokens_BT[:, -SCORED:].flatten()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    contenders = {
        "off": synchronised(lambda: once([])),
        "on": synchronised(lambda: once([gates])),
    }
    seconds = in_turns(contenders, TURNS)
    operations = (
        6 * batch * (LENGTH * multiplying_weights(model) + SCORED * model.head.weight.numel())
    )
    rate = [operations / s / 1e12 / rates["bf16_product_tflops"] for s in seconds["off"]]
    return {
        "model": "12 layers of width 768, 12 heads of 64, vocabulary 65536",
        "batch": batch,
        "tokens": LENGTH,
        "scored": SCORED,
        "step_ms": {n: spread([1e3 * x for x in s], 2) for n, s in seconds.items()},
        "part_of_the_product_rate": spread(rate, 3),
        "future_seed_on_over_off": spread(
            [on / off for on, off in zip(seconds["on"], seconds["off"], strict=True)], 3
        ),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file for the JSON, which is printed too")
    parser.add_argument("--sweep", action="store_true", help="time other launch shapes as well")
    parser.add_argument("--batch", type=int, default=4, help="rows of the whole step")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("wkv_gpu needs a CUDA device; torch sees none here", file=sys.stderr)
        return 2
    rates = device_rates()
    result: dict[str, object] = {
        "benchmark": "wkv_gpu",
        "command": COMMAND,
        "dtype": "bfloat16",
        "turns": TURNS,
        "rates": rates,
        "kernel": kernel(rates),
        "step": step(rates, arguments.batch),
    }
    if arguments.sweep:
        result["sweep"] = sweep()
    versions = {f"version.{name}": version(name) for name in ("triton", "fla-core")}
    text = json.dumps(result | describe() | versions, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
