"""Scripts that a page names can at least be started: what they import is there."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py")))
def test_what_a_benchmark_imports_is_there(script, monkeypatch):
    for folder in (FOLDER, FOLDER.parent / "tasks", FOLDER.parent / "model"):
        monkeypatch.syspath_prepend(str(folder))
    runpy.run_path(str(FOLDER / script), run_name="imported")
