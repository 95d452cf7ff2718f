"""Scripts that a page names can at least be started: what they import is there."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent

SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith("test_"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_benchmark_imports_is_there(script, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    runpy.run_path(str(FOLDER / script), run_name="imported")
