"""WKV-7 on a GPU: buffers, launches and autograd of the kernels in `model.wkv.triton_kernels`.

Letters: B batch, T time, H heads, K key channels, V value channels, N chunks, L tokens of a chunk.
Triton itself is imported on use: this module loads where it is not installed.

What one call moves and computes (bytes of bfloat16 operands, E = B·T·H·D elements of a tensor,
D = K = V, multiply and add counted as two; c = L / D and states of 4·E / c bytes):

    kernel            reads                          writes           products per element, / D
    invert            3 tensors                      inverse          2c + 4 log2(L/2) c²
    forward           6 tensors, inverse             y, states        14c + 6
    backward_states   5 tensors, inverse             states           8c + 8 ...
    gradients         7 tensors, inverse, 2 states   6 tensors        ...
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HEAD_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class Launch:
    """How one kernel is launched."""

    block_v: int
    """Value channels that a program holds at a time."""
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Config:
    """How all four are."""

    chunk: int
    invert: Launch
    forward: Launch
    backward_states: Launch
    gradients: Launch


CONFIGS = {
    ("bfloat16", 32): Config(32, Launch(32, 2, 2), Launch(16, 2, 2), Launch(16, 2, 2), Launch(32, 2, 1)),
    ("bfloat16", 64): Config(32, Launch(64, 4, 2), Launch(32, 4, 2), Launch(32, 4, 2), Launch(32, 4, 1)),
    ("bfloat16", 128): Config(32, Launch(128, 4, 2), Launch(32, 4, 2), Launch(32, 4, 2), Launch(32, 8, 1)),
    ("float32", 32): Config(16, Launch(32, 2, 1), Launch(16, 2, 1), Launch(16, 2, 1), Launch(32, 2, 1)),
    ("float32", 64): Config(16, Launch(64, 4, 1), Launch(16, 4, 1), Launch(16, 4, 1), Launch(32, 4, 1)),
    ("float32", 128): Config(16, Launch(128, 4, 1), Launch(16, 4, 1), Launch(16, 4, 1), Launch(16, 8, 1)),
}


def wkv7_triton(  # noqa: PLR0913, PLR0917 - the operator has this many operands
    r_BTHK: Tensor,
    log_decay_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    s0_BHVK: Tensor,
    mask_BT: Tensor | None = None,
    low_precision: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of `model.wkv.reference` on a GPU; T >= 1.

    Args:
        low_precision: enter products as bfloat16 (accumulated in float32) instead of float32.

    Returns:
        y_BTHV in v's dtype and the state after the last token, sT_BHVK in float32.
    """
    operands = [
        x.contiguous() for x in (r_BTHK, log_decay_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK)
    ]
    s0_BHVK = s0_BHVK.contiguous()
    mask_BT = None if mask_BT is None else mask_BT.contiguous()
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in (*operands, s0_BHVK))
    config = CONFIGS["bfloat16" if low_precision else "float32", max(r_BTHK.shape[-1], v_BTHV.shape[-1])]
    y_BTHV: Tensor
    sT_BHVK: Tensor
    y_BTHV, sT_BHVK = _Wkv7.apply(  # type: ignore[no-untyped-call]
        *operands, s0_BHVK, mask_BT, low_precision, trains, config
    )
    return y_BTHV, sT_BHVK


def _kernels() -> Any:
    from model.wkv import triton_kernels

    return triton_kernels


def _interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def _sizes(r_BTHK: Tensor, v_BTHV: Tensor, mask_BT: Tensor | None, chunk: int, low: bool) -> dict[str, Any]:
    """What every kernel is told."""
    length, heads, keys = r_BTHK.shape[1:]
    narrow = "rounded" if _interpreted() else "bfloat16"
    return {
        "T": length,
        "N": -(-length // chunk),
        "H": heads,
        "K": keys,
        "L": chunk,
        "DOT": narrow if low else "float32",
        "HAS_MASK": mask_BT is not None,
    }


class _Wkv7(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
        ctx: Any,
        r: Tensor,
        log_decay: Tensor,
        k: Tensor,
        v: Tensor,
        a: Tensor,
        b: Tensor,
        s0: Tensor,
        mask: Tensor | None,
        low_precision: bool,
        trains: bool,
        config: Config,
    ) -> tuple[Tensor, Tensor]:
        kernels = _kernels()
        sizes = _sizes(r, v, mask, config.chunk, low_precision)
        batch, heads, values, keys = s0.shape
        chains, N, L = batch * heads, sizes["N"], sizes["L"]
        inverse = r.new_empty(
            (batch, heads, N, L, L),
            dtype=torch.bfloat16 if sizes["DOT"] == "bfloat16" else torch.float32,
        )
        y, sT = torch.empty_like(v), torch.empty_like(s0)
        u = torch.empty_like(v, dtype=inverse.dtype) if trains else inverse
        states = s0.new_empty((batch, heads, N, values, keys) if trains else (1,))
        mask_ptr = r if mask is None else mask
        with torch.cuda.device_of(r):
            launch = config.invert
            kernels.invert[(chains * N,)](
                log_decay, a, b, mask_ptr, inverse, **sizes, LOG2_L=L.bit_length() - 1,
                num_warps=launch.num_warps, num_stages=launch.num_stages,
            )
            launch = config.forward
            kernels.forward[(chains * (values // launch.block_v),)](
                r, log_decay, k, v, a, b, mask_ptr, s0, inverse, y, sT, u, states, **sizes,
                V=values, BLOCK_V=launch.block_v, FOR_BACKWARD=trains,
                num_warps=launch.num_warps, num_stages=launch.num_stages,
            )
        if trains:
            ctx.save_for_backward(r, log_decay, k, v, a, b, mask, inverse, u, states)
            ctx.config, ctx.sizes = config, sizes
        return y, sT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dsT: Tensor) -> tuple[Tensor | None, ...]:
        kernels = _kernels()
        r, log_decay, k, v, a, b, mask, inverse, u, states = ctx.saved_tensors
        config, sizes = ctx.config, ctx.sizes
        dy, dsT = dy.contiguous(), dsT.contiguous()
        batch, heads, N, values, keys = states.shape
        chains = batch * heads
        g, dstates, ds0 = torch.empty_like(u), torch.empty_like(states), torch.empty_like(dsT)
        grads = [torch.empty_like(x) for x in (r, log_decay, k, v, a, b)]
        mask_ptr = r if mask is None else mask
        with torch.cuda.device_of(r):
            launch = config.backward_states
            kernels.backward_states[(chains * (values // launch.block_v),)](
                r, log_decay, a, b, mask_ptr, inverse, dy, dsT, g, dstates, ds0, **sizes,
                V=values, BLOCK_V=launch.block_v,
                num_warps=launch.num_warps, num_stages=launch.num_stages,
            )
            launch = config.gradients
            kernels.gradients[(chains * N,)](
                r, log_decay, k, v, a, b, mask_ptr, u, states, dy, g, dstates, *grads, **sizes,
                V=values, BLOCK_V=launch.block_v,
                num_warps=launch.num_warps, num_stages=launch.num_stages,
            )
        return (*grads, ds0, None, None, None, None)
