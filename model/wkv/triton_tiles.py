"""What the Triton kernels of WKV-7 do with tiles: load, store, round, multiply, mask.

Letters: L tokens of a chunk, K key channels, D channels of any kind. The kernels, and what DOT is,
are in `model.wkv.triton_kernels`.
"""

# ruff: noqa: PLR0913, PLR0917 - sizes are arguments, for they must be known at compile time

import triton
import triton.language as tl


@triton.jit
def narrow(x, DOT: tl.constexpr):
    """Round to what enters products."""
    if DOT == "float32":
        return x.to(tl.float32)
    elif DOT == "bfloat16":  # noqa: RET505 - a branch at compile time
        return x.to(tl.bfloat16)
    else:
        # To nearest, ties to even; the interpreter's own conversion cuts off.
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.to(tl.float32, bitcast=True)


@triton.jit
def dot(x, y):
    """Product of narrowed tiles, accumulated in float32; float32 ones without rounding to TF32."""
    return tl.dot(x, y, input_precision="ieee")


@triton.jit
def dot_float32(x, y, DOT: tl.constexpr):
    """Product of float32 tiles, at a precision above that of narrowed ones."""
    if DOT == "float32":
        return tl.dot(x, y, input_precision="ieee")
    else:  # noqa: RET505 - a branch at compile time
        return tl.dot(x, y, input_precision="tf32")


@triton.jit
def load(ptr, base, ROW: tl.constexpr, keep_L, L: tl.constexpr, D: tl.constexpr):
    """Rows [L, D] of a [B, T, H, D] tensor in float32; zeros, whatever is there, where not kept."""
    offset_LD = tl.arange(0, L)[:, None] * ROW + tl.arange(0, D)[None, :]
    return tl.load(ptr + base + offset_LD, mask=keep_L[:, None], other=0.0).to(tl.float32)


@triton.jit
def store(
    ptr, base, x_LD, ROW: tl.constexpr, keep_L, L: tl.constexpr, D: tl.constexpr, DOT: tl.constexpr
):
    offset_LD = tl.arange(0, L)[:, None] * ROW + tl.arange(0, D)[None, :]
    if DOT == "rounded" and ptr.dtype.element_ty == tl.bfloat16:
        x_LD = narrow(x_LD, DOT)
    tl.store(ptr + base + offset_LD, x_LD.to(ptr.dtype.element_ty), mask=keep_L[:, None])


@triton.jit
def keep(mask_ptr, row, n, T, L: tl.constexpr, HAS_MASK: tl.constexpr):
    """Which tokens of the chunk exist, and which of them are not identity steps."""
    inside_L = n * L + tl.arange(0, L) < T
    if HAS_MASK:
        valid_L = tl.load(mask_ptr + row + tl.arange(0, L), mask=inside_L, other=0) != 0
        return inside_L, valid_L
    return inside_L, inside_L


@triton.jit
def products(log_decay_LK):
    """P up to and with each token, and up to the token before.

    A running product keeps a relative error of a few roundings, unlike the exp of a running sum.
    """
    decay_LK = tl.exp(log_decay_LK)
    P_LK = tl.cumprod(decay_LK, axis=0)
    return P_LK, P_LK / decay_LK


@triton.jit
def last(x_LK, L: tl.constexpr):
    """The last row."""
    is_last_L1 = tl.arange(0, L)[:, None] == L - 1
    return tl.sum(tl.where(is_last_L1, x_LK, 0.0), axis=0)


@triton.jit
def earlier(x_LL, L: tl.constexpr):
    """Keep columns of earlier tokens than the row's."""
    return tl.where(tl.arange(0, L)[:, None] > tl.arange(0, L)[None, :], x_LL, 0.0)


@triton.jit
def upto(x_LL, L: tl.constexpr):
    """Keep columns of earlier tokens and of the row's own."""
    return tl.where(tl.arange(0, L)[:, None] >= tl.arange(0, L)[None, :], x_LL, 0.0)


@triton.jit
def load_pair(
    x_ptr, y_ptr, base, ROW: tl.constexpr, keep_x_L, keep_y_L, L: tl.constexpr, D: tl.constexpr
):
    """The same rows of two tensors, [2, L, D], as `load` gives them."""
    is_x_2LD = tl.broadcast_to(tl.arange(0, 2)[:, None, None] == 0, (2, L, D))
    offset_1LD = tl.arange(0, L)[None, :, None] * ROW + tl.arange(0, D)[None, None, :]
    offset_2LD = tl.broadcast_to(offset_1LD, (2, L, D))
    x_2LD = tl.load(x_ptr + base + offset_2LD, mask=is_x_2LD & keep_x_L[None, :, None], other=0.0)
    y_2LD = tl.load(
        y_ptr + base + offset_2LD, mask=(is_x_2LD == 0) & keep_y_L[None, :, None], other=0.0
    )
    return tl.where(is_x_2LD, x_2LD.to(tl.float32), y_2LD.to(tl.float32))


@triton.jit
def store_half(
    ptr,
    base,
    x_2LD,
    HALF: tl.constexpr,
    ROW: tl.constexpr,
    inside_L,
    L: tl.constexpr,
    D: tl.constexpr,
    DOT: tl.constexpr,
):
    """Store one half of a pair."""
    is_it_211 = tl.arange(0, 2)[:, None, None] == HALF
    offset_1LD = tl.arange(0, L)[None, :, None] * ROW + tl.arange(0, D)[None, None, :]
    offset_2LD = tl.broadcast_to(offset_1LD, (2, L, D))
    if DOT == "rounded" and ptr.dtype.element_ty == tl.bfloat16:
        x_2LD = narrow(x_2LD, DOT)
    mask_2LD = tl.broadcast_to(is_it_211 & inside_L[None, :, None], (2, L, D))
    tl.store(ptr + base + offset_2LD, x_2LD.to(ptr.dtype.element_ty), mask=mask_2LD)
