"""The WKV-7 operator: dtypes, precision, and the hand-over to a backend.

Letters: B batch, T time, H heads, K key channels, V value channels. The formulae are in
`model.wkv.reference`.
"""

from collections import Counter

import torch
from torch import Tensor

from model.wkv.backends import BACKENDS, Call
from model.wkv.choice import choose

_CALLS: Counter[str] = Counter()


def calls_by_backend() -> dict[str, int]:
    """How many calls each backend has computed in this process."""
    return dict(_CALLS)


def wkv7(  # noqa: PLR0913, PLR0917 - the operator has this many operands
    r: Tensor,
    log_decay: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    s0: Tensor | None,
    mask: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run S_t = S_{t-1}·diag(w_t) + (S_{t-1} a_t) b_tᵀ + v_t k_tᵀ and y_t = S_t r_t.

    The recurrence runs in float32 (float64 where an operand is float64), under autocast too. The
    GPU backends, "triton" and "fla", round to bfloat16 what enters products where autocast to
    bfloat16 is on or r, k and v are in bfloat16; sums and states stay in float32.

    Args:
        r: [B, T, H, K]; any T, also 0.
        log_decay: [B, T, H, K], log of the decay w, <= 0. The chunk forms need its sum over 32
            tokens to stay above -85 (RWKV-7's lower bound of -0.6065 per token gives -19.4).
        k: [B, T, H, K].
        v: [B, T, H, V].
        a: [B, T, H, K]; RWKV-7 gives -kk.
        b: [B, T, H, K]; RWKV-7 gives kk · in-context rate.
        s0: [B, H, V, K] state before the first token (row = value, column = key); None is zeros.
        mask: [B, T] bool; False makes an identity step, whatever the operands hold there. Its y is
            the unchanged state times r.
        backend: "auto" (see `model.wkv.choice`) or a name in `BACKENDS`.

    Returns:
        y [B, T, H, V] in v's dtype and the state after the last token, [B, H, V, K] float32
        (float64 where an operand is float64).

    Raises:
        ValueError: for an unknown backend, and for one that cannot run this call.
    """
    if backend != "auto" and backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise ValueError(f"unknown wkv backend {backend!r}; known are {known}")
    operands = (r, log_decay, k, v, a, b)
    low_precision = _low_precision(r, k, v)
    with torch.autocast(r.device.type, enabled=False):
        wide = any(x.dtype == torch.float64 for x in operands)
        dtype = torch.float64 if wide else torch.float32
        if s0 is None:
            batch, _, heads, keys = r.shape
            s0 = r.new_zeros((batch, heads, v.shape[-1], keys), dtype=dtype)
        if r.numel() == 0:
            return torch.zeros_like(v), s0.to(dtype)
        call = Call(operands, s0.to(dtype), mask, low_precision)
        name = choose(call) if backend == "auto" else backend
        obstacle = BACKENDS[name].obstacle(call)
        if obstacle is not None:
            raise ValueError(f"wkv backend {name!r} cannot run here: {obstacle}")
        result = BACKENDS[name].run(call)
    _CALLS[name] += 1
    return result


def _low_precision(r: Tensor, k: Tensor, v: Tensor) -> bool:
    device = r.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device) == torch.bfloat16
    return all(x.dtype == torch.bfloat16 for x in (r, k, v))
