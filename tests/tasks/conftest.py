"""Fixtures of the tasks' tests."""

import os
from pathlib import Path

import pytest
from task_cases import Bytes, write_case_data


@pytest.fixture
def tokenizer() -> Bytes:
    return Bytes()


@pytest.fixture(scope="session")
def case_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the cases name."""
    folder = tmp_path_factory.mktemp("data")
    write_case_data(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """FSTUNE_TEST_DATA, else shared/data beside the repository."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("FSTUNE_TEST_DATA", default))
    if not (folder / "hotpot" / "train.jsonl").is_file():
        pytest.skip(f"no real rows: {folder}/hotpot/train.jsonl is absent (FSTUNE_TEST_DATA)")
    return folder
