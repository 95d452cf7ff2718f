"""The ways to compute the WKV-7 recurrence behind one face, and what stands in the way of each.

Letters: B batch, T time, H heads, K key channels, V value channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.wkv import fla, triton
from model.wkv.chunked import wkv7_chunked
from model.wkv.reference import wkv7_reference


class Call(NamedTuple):
    """One call of the operator, T >= 1."""

    operands: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    """r, log_decay, k, v, a, b as the caller holds them."""
    s0_BHVK: Tensor
    """In float64 where an operand is, in float32 else."""
    mask_BT: Tensor | None
    low_precision: bool
    """Whether operands may be rounded to bfloat16 where they enter products."""


Result = tuple[Tensor, Tensor]
"""y in v's dtype and the state after the last token, in the dtype of s0."""


@dataclass(frozen=True)
class Backend:
    run: Callable[[Call], Result]
    obstacle: Callable[[Call], str | None]
    """Why the call cannot be run, if so."""


def without_masked(call: Call) -> tuple[Tensor, ...]:
    """The operands with identity steps where the mask says so: all but r are 0 there."""
    if call.mask_BT is None:
        return call.operands
    r, *written = call.operands
    skip_BT11 = ~call.mask_BT[:, :, None, None]
    # r reads the state and does not write it.
    return (r, *(x.masked_fill(skip_BT11, 0.0) for x in written))


def in_torch(recurrence: Callable[..., Result]) -> Backend:
    """A recurrence of the signature of `wkv7_reference`, in the dtype of s0 whatever comes in."""

    def run(call: Call) -> Result:
        cast = (x.to(call.s0_BHVK.dtype) for x in without_masked(call))
        y, sT = recurrence(*cast, call.s0_BHVK)
        return y.to(call.operands[3].dtype), sT

    return Backend(run, lambda _: None)


def _run_triton(call: Call) -> Result:
    return triton.wkv7_triton(call.operands, call.s0_BHVK, call.mask_BT, call.low_precision)


def _run_fla(call: Call) -> Result:
    return fla.wkv7_fla(without_masked(call), call.s0_BHVK)


def _triton_obstacle(call: Call) -> str | None:
    r, _, _, v, _, _ = call.operands
    if call.s0_BHVK.dtype == torch.float64:
        return "it does not compute in float64"
    return triton.obstacle(r.device, (r.shape[-1], v.shape[-1]))


def _fla_obstacle(call: Call) -> str | None:
    if not call.low_precision:
        return "it computes in bfloat16 and these operands ask for float32"
    return fla.obstacle(call.operands[0].device)


BACKENDS = {
    "reference": in_torch(wkv7_reference),
    "chunked": in_torch(wkv7_chunked),
    "triton": Backend(_run_triton, _triton_obstacle),
    "fla": Backend(_run_fla, _fla_obstacle),
}
