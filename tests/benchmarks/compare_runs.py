"""Whether two folders of runs hold the same arms with the same outcomes, bit for bit.

    python tests/benchmarks/compare_runs.py BEFORE AFTER

For a change that must not move a digit: run the same searches before it and after it, each into a
folder of its own. What a machine's clock and memory say is left out. Exits with 1 where anything
differs, and names it.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

OF_THE_MACHINE = ("train_wall_s", "eval_wall_s", "ended_at")
DIAGNOSTICS_OF_THE_MACHINE = ("tokens_per_s", "peak_memory_gb")
RECORDS = ("candidate.json", "rung-*.json", "end.json")
RECORD_KEYS_OF_THE_MACHINE = ("wall_s", "reused", "ended_at")


def outcome(path: Path) -> dict[str, Any]:
    """All that an evaluation says but for the machine's part."""
    with np.load(path, allow_pickle=False) as data:
        rest = json.loads(str(data["rest"]))
        arrays = {name: data[name].tolist() for name in data.files if name != "rest"}
    for name in OF_THE_MACHINE:
        rest.pop(name)
    for name in DIAGNOSTICS_OF_THE_MACHINE:
        rest["diagnostics"].pop(name, None)
    return {**rest, **arrays}


def record(path: Path) -> Any:
    """A record of a trial but for the machine's part."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k not in RECORD_KEYS_OF_THE_MACHINE}
            return {key: stripped(each) for key, each in kept.items()}
        return [stripped(each) for each in value] if isinstance(value, list) else value

    return stripped(json.loads(path.read_text()))


def differences(before: Path, after: Path) -> Iterator[str]:
    """What one folder has and the other has not, or has otherwise."""
    kinds = [("arms/*/evaluations/*.npz", outcome), ("arms/*/arm.json", record)]
    kinds += [(f"searches/*/trials/*/{name}", record) for name in RECORDS]
    for pattern, read in kinds:
        found = [
            {str(p.relative_to(root)): p for p in root.glob(pattern)} for root in (before, after)
        ]
        for name in sorted({*found[0], *found[1]}):
            if not all(name in each for each in found):
                yield f"{name}: only in {before if name in found[0] else after}"
            elif json.dumps(read(found[0][name])) != json.dumps(read(found[1][name])):
                yield f"{name}: differs"
        both = found[0].keys() & found[1].keys()
        print(f"{pattern}: {len(both)} in both")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    found = list(differences(arguments.before, arguments.after))
    print("\n".join(found) or "nothing differs")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
