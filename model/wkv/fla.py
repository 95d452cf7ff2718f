"""WKV-7 by the `fla-core` package (extra `fla`): an adapter, imported on use.

It holds states as [B, H, K, V] and takes the log of the decay, as we do. Its chunk form is told the
exact lower bound of RWKV-7's decay, which licenses its tensor-core path at its largest chunk. A
masked step's log decay of 0 lies outside the bound it documents and inside what it computes.
"""

import importlib.util
import math

import torch
from torch import Tensor

LOWER_BOUND = -math.exp(-0.5)
"""Of the log decay: RWKV-7's is -exp(-0.5)·sigmoid(·) (arXiv 2503.14456, section 3)."""


def obstacle(device: torch.device) -> str | None:
    """Why a call on this device cannot be run, if so."""
    if importlib.util.find_spec("fla") is None:
        return "the package fla-core is not installed (pip install 'fstune[fla]')"
    if device.type != "cuda":
        return f"it needs a CUDA device, the operands are on {device.type!r}"
    return None


def wkv7_fla(
    operands: tuple[Tensor, ...], s0_BHVK: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of `model.wkv.reference` in bfloat16, with the states in float32.

    Args:
        operands: r, log_decay, k, v, a, b as of `model.wkv.wkv7`; log_decay >= `LOWER_BOUND`.
        s0_BHVK: float32.
        chunk_size: 16, 32 or 64; None leaves it to the package.

    Returns:
        y_BTHV in v's dtype and the state after the last token, sT_BHVK.
    """
    from fla.ops.rwkv7 import chunk_rwkv7

    r, log_decay, k, v, a, b = operands
    narrow = [x.to(torch.bfloat16) for x in (r, k, v, a, b)]
    y_BTHV, sT_BHKV = chunk_rwkv7(
        r=narrow[0],
        w=log_decay.float(),
        k=narrow[1],
        v=narrow[2],
        a=narrow[3],
        b=narrow[4],
        scale=1.0,
        initial_state=s0_BHVK.mT.contiguous(),
        output_final_state=True,
        safe_gate=True,
        lower_bound=LOWER_BOUND,
        chunk_size=chunk_size,
    )
    return y_BTHV.to(v.dtype), sT_BHKV.mT
