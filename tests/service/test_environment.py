"""What is told of this machine, and what is switched on because it pays here."""

import re
import subprocess

import pytest
import torch

from fstune import environment
from fstune.environment import _commit, use_fast_matmul, workbench_facts


@pytest.fixture(autouse=True)
def precision():
    """The setting is the process's; other tests have the default."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_file_and_not_of_a_repository_around_it(tmp_path):
    assert _commit(tmp_path / "own.py") == "unknown"
    (tmp_path / "own.py").write_text("")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "theirs.py").write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", "own.py")
    git(tmp_path, "commit", "-m", "first")
    assert _commit(tmp_path / "own.py") == git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert _commit(tmp_path / "installed" / "theirs.py") == "unknown"


def test_fast_products_are_left_alone_where_they_err_too_much(monkeypatch):
    monkeypatch.setattr(environment, "MATMUL_TOLERANCE", 0.0)
    assert not use_fast_matmul()
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_is_switched_on_is_told_with_what_it_gives_here():
    facts = workbench_facts()
    assert re.search(r"model.precision.*[\d.]+ times as fast$", facts["precision"])
    assert re.search(r"times as fast|default", facts["float32 matrix products on the CPU"])
    malloc = facts["malloc of the workers"]
    assert re.match(r"MALLOC_MMAP_MAX_=0 \S+: (64 MiB [\d.]+ times|not measured)", malloc)
    assert any("chosen" in value for name, value in facts.items() if name.startswith("WKV"))
