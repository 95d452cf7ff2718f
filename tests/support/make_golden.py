"""Writes golden_tokens.json: `PYTHONPATH=.:tests/support python tests/support/make_golden.py`.

A task whose tokens change gets a new version first: cached splits are keyed by it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from task_cases import CASES, SIZES, Bytes, golden_material, golden_row

from tasks import registry

GOLDEN = Path(__file__).parents[1] / "tasks" / "golden_tokens.json"


def golden(name: str) -> dict[str, Any]:
    """Version and tokens of one fixed row."""
    task = registry.get(name)
    settings = task.Settings(**SIZES, **CASES[name])
    build = task.builder(settings, Bytes(), golden_material(name))
    # Through JSON, in which tuples are lists.
    example = json.loads(json.dumps(asdict(build(golden_row(name)))))
    return {"version": task.version, **example}


if __name__ == "__main__":
    content = {
        "command": "PYTHONPATH=.:tests/support python tests/support/make_golden.py",
        "tasks": {name: golden(name) for name in registry.names()},
    }
    GOLDEN.write_text(json.dumps(content) + "\n", encoding="utf-8")
