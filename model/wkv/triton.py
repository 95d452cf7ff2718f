"""WKV-7 on a GPU: buffers, launches and autograd of the kernels in `model.wkv.triton_kernels`.

Letters: B batch, T time, H heads, K key channels, V value channels, N chunks, L tokens of a chunk.
Triton itself is imported on use: this module loads where it is not installed.

What a call moves and computes, counted, with D = K = V: E = B·T·H·D values of an operand, chunks
of L tokens, states of S = E·D / L float32 values, inverses of E·L / D values. Each tensor counts
once (what a program reads twice, or several of a chain read, is taken from the cache), and the
multiply-adds are those of unsplit walks:

    kernel           reads                              writes              multiply-adds / E
    invert           log_decay a b                      inverse             L + 2 log2(L / 2)·L² / D
    forward          r log_decay k v a b inverse        y u S               7 L + 4 D
    backward_states  r log_decay k a b inverse dy       g dv dS             7 L + 4 D
    gradients        r log_decay k v a b u dy g S dS    dr d(…) dk da db    12 L + 4 D

At B 8, T 4096, H 12, D 64, bfloat16 and L 32 (E is 25.2 million, an operand 50 MB, S 201 MB):
0.81 GB forward and 1.74 GB backward, together 0.85 ms at 3 TB/s, and 89 billion operations, 0.11 ms
at 800 TFLOP/s. Two fifths of the traffic is that of S, dS, u, g and the inverses; L 64 would save
0.33 GB of it. Forward without gradients moves 0.55 GB. Kept for the backward beside the operands:
u, the inverses and S, 277 MB.
"""

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.wkv.triton_launch import CONFIGS, Config, Launch, fitting

HEAD_SIZES = (32, 64, 128)

LEAST_CAPABILITY = (8, 0)
"""Products of bfloat16 on tensor cores came with it."""


def obstacle(device: torch.device, head_sizes: tuple[int, int]) -> str | None:
    """Why a call on this device with these K and V cannot be run, if so."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if head_sizes not in {(size, size) for size in HEAD_SIZES}:
        return f"head sizes are {', '.join(map(str, HEAD_SIZES))}, with K = V; got {head_sizes}"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            return f"it needs compute capability {LEAST_CAPABILITY}, the device has {capability}"
        return None
    return (
        None if _interpreted() else f"it needs a CUDA device, the operands are on {device.type!r}"
    )


def _interpreted() -> bool:
    """Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1), on any device."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def wkv7_triton(
    operands: tuple[Tensor, ...],
    s0_BHVK: Tensor,
    mask_BT: Tensor | None = None,
    low_precision: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of `model.wkv.reference` on a GPU; T >= 1.

    Args:
        operands: r, log_decay, k, v, a, b as of `model.wkv.wkv7`, each in bfloat16, float16 or
            float32. K and V are in `HEAD_SIZES`, and equal.
        s0_BHVK: float32.
        mask_BT: bool; False makes an identity step.
        low_precision: round to bfloat16 what enters products (they add up in float32).

    Returns:
        y_BTHV in v's dtype and the state after the last token, sT_BHVK in float32.
    """
    packed = [x.contiguous() for x in (*operands, s0_BHVK)]
    mask_BT = None if mask_BT is None else mask_BT.contiguous()
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in packed)
    y_BTHV: Tensor
    sT_BHVK: Tensor
    y_BTHV, sT_BHVK = _Triton.apply(*packed, mask_BT, low_precision, trains)  # type: ignore[no-untyped-call]
    return y_BTHV, sT_BHVK


class _Plan(NamedTuple):
    """What the kernels are told besides their tensors."""

    kernels: Any
    config: Config
    chains: int
    """Heads of all batch rows."""
    num_chunks: int
    arguments: dict[str, Any]

    @staticmethod
    def of(r_BTHK: Tensor, has_mask: bool, low_precision: bool) -> "_Plan":
        from model.wkv import triton_kernels

        batch, length, heads, size = r_BTHK.shape
        config = CONFIGS["bfloat16" if low_precision else "float32", size]
        num_chunks = -(-length // config.chunk)
        narrow = "rounded" if _interpreted() else "bfloat16"
        arguments = {
            "T": length,
            "N": num_chunks,
            "H": heads,
            "K": size,
            "L": config.chunk,
            "DOT": narrow if low_precision else "float32",
            "HAS_MASK": has_mask,
        }
        return _Plan(triton_kernels, config, batch * heads, num_chunks, arguments)

    @property
    def product_dtype(self) -> torch.dtype:
        """What enters products, as it is stored."""
        return torch.bfloat16 if self.arguments["DOT"] == "bfloat16" else torch.float32

    def launch(
        self, kernel: str, how: Launch, programs: int, *tensors: Tensor, **constants: Any
    ) -> None:
        with torch.cuda.device(tensors[0].device if tensors[0].is_cuda else -1):
            getattr(self.kernels, kernel)[(programs,)](
                *tensors,
                **self.arguments,
                **how.blocks,
                **constants,
                num_warps=how.num_warps,
                num_stages=how.num_stages,
                enable_fp_fusion=True,
            )

    def per_chunk(self, kernel: str, *tensors: Tensor, **constants: Any) -> None:
        """Launch a kernel that knows no order among chunks."""
        how = getattr(self.config, kernel)
        self.launch(kernel, how, self.chains * self.num_chunks, *tensors, **constants)

    def walk(self, kernel: str, *tensors: Tensor, **constants: Any) -> None:
        """Launch a kernel that walks along chunks."""
        size = self.arguments["K"]
        processors = _multiprocessors(tensors[0].device)
        how = fitting(getattr(self.config, kernel), self.chains, size, processors)
        programs = self.chains * (size // how.block_v)
        self.launch(kernel, how, programs, *tensors, V=size, **constants)


def _multiprocessors(device: torch.device) -> int:
    """Of the device; few where kernels are interpreted, so that tests see wide and narrow walks."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


class _Triton(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - the operator has this many operands
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
    ) -> tuple[Tensor, Tensor]:
        plan = _Plan.of(r, mask is not None, low_precision)
        chunk, per_chunk = plan.config.chunk, (plan.chains, plan.num_chunks)
        inverse = torch.empty(*per_chunk, chunk, chunk, dtype=plan.product_dtype, device=r.device)
        y, sT = torch.empty_like(v), torch.empty_like(s0)
        u, states = inverse, sT
        if trains:
            u = torch.empty_like(v, dtype=plan.product_dtype)
            states = torch.empty(*per_chunk, *s0.shape[2:], dtype=s0.dtype, device=r.device)
        # Any pointer will do where no mask is read.
        masked = r if mask is None else mask
        plan.per_chunk(
            "invert",
            log_decay,
            a,
            b,
            masked,
            inverse,
            LOG2_L=chunk.bit_length() - 1,
        )
        plan.walk(
            "forward",
            r,
            log_decay,
            k,
            v,
            a,
            b,
            masked,
            s0,
            inverse,
            y,
            sT,
            u,
            states,
            FOR_BACKWARD=trains,
        )
        if trains:
            ctx.save_for_backward(r, log_decay, k, v, a, b, mask, inverse, u, states)
            ctx.plan = plan
        return y, sT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dsT: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        r, log_decay, k, v, a, b, mask, inverse, u, states = ctx.saved_tensors
        dy, dsT = dy.contiguous(), dsT.contiguous()
        dr, dlog_decay, dk, dv, da, db = (torch.empty_like(x) for x in (r, log_decay, k, v, a, b))
        g, dstates, ds0 = (torch.empty_like(x) for x in (u, states, dsT))
        masked = r if mask is None else mask
        plan.walk(
            "backward_states", r, log_decay, k, a, b, masked, inverse, dy, dsT, dv, g, dstates, ds0
        )
        plan.per_chunk(
            "gradients",
            r,
            log_decay,
            k,
            v,
            a,
            b,
            masked,
            u,
            states,
            dy,
            g,
            dstates,
            dr,
            dlog_decay,
            dk,
            da,
            db,
            V=v.shape[-1],
        )
        return dr, dlog_decay, dk, dv, da, db, ds0, None, None, None
