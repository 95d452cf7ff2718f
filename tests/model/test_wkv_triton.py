"""The Triton kernels of WKV-7 against the loop in float64: in Triton's interpreter, on a GPU."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from wkv_cases import GPU_CASES, QUICK_CASES, make_operands, run

from model.wkv.dispatch import wkv7

triton = pytest.importorskip("triton", reason="the package triton is not installed")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@functools.cache
def interpreted(which):
    """Errors by case and name, of the `quick` cases or the `rest`."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
        pytest.skip(f"the interpreter of triton {triton.__version__} does not work with NumPy 2.4")
    script = Path(__file__).parents[1] / "support" / "wkv_interpreted.py"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "error", str(script), which]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


INTERPRETED_CASES = [
    case if case in QUICK_CASES else pytest.param(case, marks=pytest.mark.slow)
    for case in GPU_CASES
]


@pytest.mark.parametrize("case", INTERPRETED_CASES, ids=str)
def test_the_interpreted_kernels_equal_the_loop_in_float64(case):
    errors = interpreted("quick" if case in QUICK_CASES else "rest")[str(case)]
    assert len(errors) == (9 if case.with_s0 else 8)
    assert case.excess(errors) == {}


def test_a_model_with_future_seed_learns_the_same_by_the_interpreted_kernels():
    errors = interpreted("quick")["model"]
    assert errors["logits"] < 1e-6
    # Two float32 back ends, each with its own rounding, through three layers.
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("case", GPU_CASES, ids=str)
def test_the_kernels_equal_the_loop_in_float64(case):
    assert case.excess(case.errors("triton", "cuda")) == {}


@needs_gpu
@pytest.mark.gpu
def test_offsets_beyond_2_to_the_31_are_reached():
    batch, length, heads, size = 9, 65536, 64, 64
    assert batch * length * heads * size > 2**31
    free, _ = torch.cuda.mem_get_info()
    if free < 60 * 2**30:
        pytest.skip(f"needs 60 GiB of GPU memory, {free / 2**30:.0f} are free")
    # One token's operands over and over, and a last row of its own.
    token = [x.to("cuda", torch.bfloat16) for x in make_operands(1, 1, heads, size)[:6]]
    many = [x.repeat(batch, length, 1, 1) for x in token]
    many[3][-1] *= 2
    y, sT = wkv7(*many, None, backend="triton")
    y_1, sT_1 = wkv7(*(x[-1:] for x in many), None, backend="triton")
    assert torch.equal(y[-1:], y_1)
    assert torch.equal(sT[-1:], sT_1)
    assert not torch.equal(y[-2:-1], y_1)


@needs_gpu
@pytest.mark.gpu
def test_auto_measures_once_per_class_of_shapes():
    from model.wkv.choice import choices

    operands = [x.cuda() for x in make_operands(70)]
    run(operands, torch.float32, "auto")
    measured = choices()
    assert any(shape.length == 128 for shape in measured)
    run(operands, torch.float32, "auto")
    assert choices() == measured


def test_a_cpu_tensor_is_refused_with_the_reason():
    with pytest.raises(
        ValueError, match=r"'triton' cannot run here: it needs a CUDA device.*'cpu'"
    ):
        wkv7(*(x.float() for x in make_operands(3)), backend="triton")


def test_float64_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"'triton' cannot run here: .*float64"):
        wkv7(*make_operands(3), backend="triton")


def test_a_head_size_without_kernels_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"32, 64, 128, with K = V; got \(48, 48\)"):
        wkv7(*(x.float() for x in make_operands(3, size=48)), backend="triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_benchmark_asks_for_a_gpu(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["wkv_gpu.py"])
    import wkv_gpu

    assert wkv_gpu.main() == 2
    assert "needs a CUDA device" in capsys.readouterr().err
