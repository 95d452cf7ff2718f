"""What is told of this machine and of the code, and what is switched on because it pays here."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from fstune import machine
from fstune.cli.doctor import workbench_facts
from fstune.machine import (
    arm_device,
    code_digest,
    commit_of,
    describe,
    gpu_obstacle,
    use_fast_matmul,
)


@pytest.fixture(autouse=True)
def precision():
    """The setting is the process's; other tests have the default."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=x", "-c", "user.email=x@y.z")
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_repository_that_only_lies_around_the_code_does_not_give_its_commit(tmp_path):
    git(tmp_path, "init", "--quiet")
    own, installed = tmp_path / "own", tmp_path / "venv" / "fstune"
    for folder in (own, installed):
        folder.mkdir(parents=True)
        (folder / "code.py").write_text("")
    git(tmp_path, "add", "own")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    assert commit_of(installed) == "unknown"
    assert commit_of(own) == git(tmp_path, "rev-parse", "--short=12", "HEAD")
    (own / "code.py").write_text("changed")
    assert commit_of(own).endswith("-dirty")
    assert commit_of(tmp_path / "nowhere") == "unknown"


def test_code_is_told_by_its_content_wherever_it_lies(tmp_path):
    for place in ("one", "other"):
        (tmp_path / place / "pack" / "inner").mkdir(parents=True)
        (tmp_path / place / "pack" / "a.py").write_text("a = 1\n")
        (tmp_path / place / "pack" / "inner" / "b.py").write_text("")
    one, other = (tmp_path / place / "pack" for place in ("one", "other"))
    first = code_digest(one)
    assert code_digest(other) == first
    (other / "a.py").rename(other / "inner" / "a.py")
    assert code_digest(other) != first
    (one / "a.py").write_text("a = 2\n")
    assert code_digest(one) != first
    assert re.fullmatch("[0-9a-f]{16}", describe()["code"])


def test_fast_products_are_left_alone_where_they_err_too_much(monkeypatch):
    monkeypatch.setattr(machine, "MATMUL_TOLERANCE", 0.0)
    assert not use_fast_matmul()
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_is_switched_on_is_told():
    facts = workbench_facts()
    switched_on = torch.get_float32_matmul_precision() == "medium"
    assert ("oneDNN" in facts["float32 matrix products on the CPU"]) == switched_on
    assert facts["malloc of the workers"].startswith("MALLOC_MMAP_MAX_=0 ")
    assert any("chosen" in value for name, value in facts.items() if name.startswith("WKV"))


def test_what_cannot_be_switched_on_is_told(monkeypatch):
    monkeypatch.setattr(machine, "MATMUL_TOLERANCE", 0.0)
    assert "default" in workbench_facts()["float32 matrix products on the CPU"]


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_no_gpu_asked_for_is_none_got(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert arm_device(0) == ("cpu", "no GPU is asked for (resources.gpus: 0)", None)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built with CUDA")
def test_a_wheel_without_cuda_is_named_before_all_else(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_obstacle().startswith(f"PyTorch {torch.__version__} is built without CUDA; install")


@no_gpu
@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_are_told_from_gpus_that_are_not_there(monkeypatch, hidden):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert f"CUDA_VISIBLE_DEVICES={hidden} hides all GPUs" in gpu_obstacle()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises((AssertionError, RuntimeError)) as driver:
        torch.cuda.init()
    assert gpu_obstacle() == f"PyTorch finds none: {' '.join(str(driver.value).split())}"


@no_gpu
def test_what_is_asked_for_and_not_there_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert arm_device(None) == ("cpu", gpu_obstacle(), None)
    refusal = arm_device(2).refusal
    assert refusal.startswith(f"resources.gpus: 2 asked, 0 here ({gpu_obstacle()}); leave")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    told = f"CUDA_VISIBLE_DEVICES=0,1 names GPUs, and none can be used: {gpu_obstacle()}; unset"
    assert arm_device(None).refusal.startswith(told)
