import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small tensors: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_dir():
    """Test data outside the repository; a test that needs it is skipped where it is absent."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("FSTUNE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder} (FSTUNE_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(data_dir):
    path = data_dir / "weights" / "tiny-rwkv7-834k-L12-D64-V256.pth"
    if not path.is_file():
        pytest.skip(f"no checkpoint at {path}")
    return path
