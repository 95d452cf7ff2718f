"""What `torch.compile` gives a training step on a CPU: the layers compiled, against as they are.

    PYTHONPATH=.:tests/benchmarks python tests/benchmarks/compile_cpu.py > OUT.json

Needs a C++ compiler, which is one reason why fstune does not compile by itself. Printed are the
seconds of the first compiled step (compilation) and how many times faster later ones are.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import in_turns, ratios, spread

from fstune.arms.inputs import gather
from fstune.arms.trainer import ArmTrainer
from fstune.machine import describe, use_fast_matmul
from fstune.specs.loading import find, load

NAME = "quickstart"
TURNS = 30


def main() -> None:
    spec = load(find(NAME)).spec
    torch.set_num_threads(1)
    use_fast_matmul()
    # Compiled code that is read from the cache of an earlier process fails: torch 2.13 gives a view
    # of it a shape of garbage.
    torch.compiler.config.force_disable_caches = True
    _, settings = spec.settings(dict(spec.points[-1]))
    with tempfile.TemporaryDirectory() as folder:
        materials = gather(settings, Path(folder))
        plain, compiled = (
            ArmTrainer(materials.arm(settings, 0), materials, torch.device("cpu")) for _ in range(2)
        )
        for block in compiled.subject.model.blocks:
            block.compile()
        started = time.perf_counter()
        compiled.train_step()
        first_s = time.perf_counter() - started
        seconds = in_turns({"plain": plain.train_step, "compiled": compiled.train_step}, TURNS)
    result = {
        "benchmark": "compile_cpu",
        "command": " ".join(["python", "tests/benchmarks/compile_cpu.py", *sys.argv[1:]]),
        "search": NAME,
        "first_step_s": round(first_s, 1),
        "plain_ms": spread([1000 * each for each in seconds["plain"]], 2),
        "times_faster": ratios(seconds["plain"], seconds["compiled"]),
    }
    print(json.dumps(result | describe(), indent=1))


if __name__ == "__main__":
    main()
