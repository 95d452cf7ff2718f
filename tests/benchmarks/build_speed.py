"""How fast splits are built: megabytes of prompt text per second of one core.

    PYTHONPATH=.:tests/benchmarks:tests/support python tests/benchmarks/build_speed.py

A split of each task that reads text is built from a file of generated rows with the World
vocabulary, and all of it counts: reading and hashing rows, templates, tokenising, trimming,
packing, writing the cache. The peer is the tokenizer alone, on the same prompts.
"""

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from task_cases import hotpot_row, prose_row, squad_row, write_rows
from timing import in_turns, ratios, spread

from fstune.machine import describe
from model.tokenizer import WorldTokenizer
from tasks import registry
from tasks.sources import Files
from tasks.splits import load_split

CASES: dict[str, tuple[Callable[[int], dict[str, Any]], int, dict[str, Any]]] = {
    "hotpot": (lambda n: hotpot_row(n, paragraphs=60), 1500, {"max_prompt_tokens": 2048}),
    "squad": (squad_row, 20_000, {"max_prompt_tokens": 512}),
    "punctuation": (prose_row, 20_000, {}),
}


def measured(name: str, folder: Path, turns: int) -> dict[str, Any]:
    """Megabytes per second of one task's train split, and times the tokenizer's own."""
    row, count, settings = CASES[name]
    rows = write_rows(folder / f"{name}.jsonl", [row(number) for number in range(count)])
    task = registry.get(name)
    files = Files(train=str(rows), validation=str(rows))
    asked = task.Settings(
        train_size=count // 2, validation_size=count // 16, files=files, **settings
    )
    tokenizer = WorldTokenizer()
    caches = (folder / f"{name}-{turn}" for turn in range(turns + 2))

    def build() -> None:
        load_split(task, asked, "train", tokenizer, next(caches), ())

    split = load_split(task, asked, "train", tokenizer, next(caches), ())
    examples = (split.example(index) for index in range(len(split)))
    prompts = [tokenizer.decode(example.prompt) for example in examples]
    megabytes = sum(len(prompt.encode()) for prompt in prompts) / 1e6

    def tokenise() -> None:
        for prompt in prompts:
            tokenizer.encode(prompt)

    seconds = in_turns({"build": build, "tokenise": tokenise}, turns)
    return {
        "megabytes": round(megabytes, 2),
        "megabytes_per_second": spread([megabytes / each for each in seconds["build"]], 2),
        "times_the_tokenizer": ratios(seconds["build"], seconds["tokenise"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results/build_speed.json"))
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            found[name] = measured(name, Path(folder), arguments.turns)
            print(f"{name:<14}{json.dumps(found[name])}", flush=True)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak_mb:.0f} MB")
    report = {
        "benchmark": "build_speed",
        "command": " ".join(["python", "tests/benchmarks/build_speed.py", *sys.argv[1:]]),
        "tasks": found,
        "peak_memory_mb": round(peak_mb),
        "versions": describe(),
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
