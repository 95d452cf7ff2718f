"""What tests of several rooms are given: one thread, and data from outside the repository."""

import os
from pathlib import Path

import pytest
import torch
from task_cases import Bytes, write_case_data


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small tensors: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """FSTUNE_TEST_DATA, else shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FSTUNE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder} (FSTUNE_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(data_dir: Path) -> Path:
    path = data_dir / "weights" / "tiny-rwkv7-834k-L12-D64-V256.pth"
    if not path.is_file():
        pytest.skip(f"no checkpoint at {path}")
    return path


@pytest.fixture(scope="session")
def real_data(data_dir: Path) -> Path:
    """Real rows of the tasks' data sets."""
    if not (data_dir / "hotpot" / "train.jsonl").is_file():
        pytest.skip(f"no real rows: {data_dir}/hotpot/train.jsonl is absent (FSTUNE_TEST_DATA)")
    return data_dir


@pytest.fixture
def tokenizer() -> Bytes:
    return Bytes()


@pytest.fixture(scope="session")
def case_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the tasks' cases name."""
    folder = tmp_path_factory.mktemp("data")
    write_case_data(folder)
    return folder
