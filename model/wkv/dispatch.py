"""One face for every way to compute the WKV-7 recurrence: dtypes, masks and the choice of backend.

Letters: B batch, T time, H heads, K key channels, V value channels. The formulae are in
`model.wkv.reference`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.wkv.chunked import wkv7_chunked
from model.wkv.reference import wkv7_reference

Backend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

BACKENDS: dict[str, Backend] = {"reference": wkv7_reference, "chunked": wkv7_chunked}
"""Each takes (r, log_decay, k, v, a, b, s0) in one dtype and gives (y, sT)."""

# Below this many tokens the loop is the quicker form (2 Zen 5 cores, forward and backward).
_SHORT = 4


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

    The recurrence runs in float32 (float64 where an operand is float64), under autocast too.

    Args:
        r: [B, T, H, K]; any T, also 0.
        log_decay: [B, T, H, K], log of the decay w, <= 0. The chunk form needs its sum over 32
            tokens to stay above -85 (RWKV-7's lower bound of -0.6065 per token gives -19.4).
        k: [B, T, H, K].
        v: [B, T, H, V].
        a: [B, T, H, K]; RWKV-7 gives -kk.
        b: [B, T, H, K]; RWKV-7 gives kk · in-context rate.
        s0: [B, H, V, K] state before the first token (row = value, column = key); None is zeros.
        mask: [B, T] bool; False makes an identity step, whatever the operands hold there. Its y is
            the unchanged state times r.
        backend: "auto" or a name in `BACKENDS`.

    Returns:
        y [B, T, H, V] in v's dtype and the state after the last token, [B, H, V, K] float32
        (float64 where an operand is float64).

    Raises:
        ValueError: for an unknown backend.
    """
    if backend != "auto" and backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise ValueError(f"unknown wkv backend {backend!r}; known are {known}")
    with torch.autocast(r.device.type, enabled=False):
        operands = (r, log_decay, k, v, a, b)
        wide = any(x.dtype == torch.float64 for x in operands)
        dtype = torch.float64 if wide else torch.float32
        if s0 is None:
            batch, _, heads, keys = r.shape
            s0 = r.new_zeros((batch, heads, v.shape[-1], keys), dtype=dtype)
        if r.shape[1] == 0:
            return torch.zeros_like(v), s0.to(dtype)
        cast = [x.to(dtype) for x in operands]
        if mask is not None:
            # r is left as it is: it reads the state and does not write it.
            skip_BT11 = ~mask[:, :, None, None]
            cast[1:] = [x.masked_fill(skip_BT11, 0.0) for x in cast[1:]]
        name = backend
        if name == "auto":
            name = "reference" if r.shape[1] < _SHORT else "chunked"
        y, sT = BACKENDS[name](cast[0], cast[1], cast[2], cast[3], cast[4], cast[5], s0.to(dtype))
        return y.to(v.dtype), sT
