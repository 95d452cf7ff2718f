"""The adapter to `fla-core` against the loop in float64; its kernels need a GPU."""

import importlib.util

import pytest
import torch
from wkv_cases import BFLOAT16, Case, make_operands

from model.wkv.dispatch import wkv7

needs_fla = pytest.mark.skipif(
    importlib.util.find_spec("fla") is None or not torch.cuda.is_available(),
    reason="no fla-core or no CUDA device",
)


@needs_fla
@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of its own modules
@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize("mask", ["none", "random"])
@pytest.mark.parametrize("length", [1, 33, 100])
def test_it_equals_the_loop_in_float64(length, mask, kind):
    # A state of rows and columns that differ: transposing it once too often would show.
    case = Case(length, 64, kind, mask, "BFLOAT16", batch=2, heads=2)
    assert case.excess(case.errors("fla", "cuda")) == {}


def test_float32_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"'fla' cannot run here: it computes in bfloat16"):
        wkv7(*(x.float() for x in make_operands(3)), backend="fla")


def test_where_it_cannot_run_the_reason_is_told():
    operands = [x.to(t) for x, t in zip(make_operands(3), BFLOAT16, strict=True)]
    with pytest.raises(ValueError, match=r"'fla' cannot run here: .*(fstune\[fla\]|CUDA device)"):
        wkv7(*operands, backend="fla")
