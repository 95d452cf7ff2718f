"""The WKV-7 recurrence in chunks (WY / UT transform), in plain torch, with a backward by hand.

Letters: B batch, T time, H heads, K key channels, V value channels, N chunks, L tokens of a chunk,
M = 2L, G = N·B·H. Names say what a tensor holds:

    P_t   product of the decays of the chunk up to and with token t; P_end that of the whole chunk
    q     [P_{t-1} a_t; P_t r_t], what reads the state           [M, K]
    z     [b_t / P_t; k_t / P_t], what writes it                 [M, K]
    u_t   S_{t-1} a_t, so that o = [u; v] are the written values  [M, V]

Within a chunk that starts from S, with A = q zᵀ cut to earlier tokens (rows of r: and its own):

    u = q_a Sᵀ + A_ab u + A_ak v = w Sᵀ + u0,   w = (I - A_ab)⁻¹ q_a,   u0 = (I - A_ab)⁻¹ A_ak v
    y = q_r Sᵀ + [A_rb A_rk] o
    S_end = (S + oᵀ z) · diag(P_end) = S F + E,   F = (I + wᵀ z_b)·diag(P_end)

so that one product per chunk is left in the scan S_{n+1} = S_n F_n + E_n, and the same, transposed,
in the backward scan. A single chunk needs neither F nor E. 1 / P is at most e^19.4 for RWKV-7's
decay and L = 32: far inside float32.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 32
"""Most tokens of a chunk: the quickest of 16, 32 and 64 on CPU, and exact to 1e-6 in float32."""


def wkv7_chunked(
    r_BTHK: Tensor,
    log_decay_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    s0_BHVK: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of `model.wkv.reference` chunk by chunk; T >= 1, one dtype.

    Returns:
        y_BTHV and the state after the last token, sT_BHVK.
    """
    length = r_BTHK.shape[1]
    num_chunks = -(-length // CHUNK)
    chunk = -(-length // num_chunks)
    operands = [r_BTHK, log_decay_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK]
    surplus = num_chunks * chunk - length
    if surplus:
        # Zeros are identity steps.
        operands = [torch.nn.functional.pad(x, (0, 0, 0, 0, 0, surplus)) for x in operands]
    y_BTHV: Tensor
    sT_BHVK: Tensor
    y_BTHV, sT_BHVK = _Chunked.apply(*operands, s0_BHVK, num_chunks)  # type: ignore[no-untyped-call]
    return (y_BTHV[:, :length] if surplus else y_BTHV), sT_BHVK


def _split(x_BTHD: Tensor, num_chunks: int) -> Tensor:
    """View [B, T, H, D] as [N, B, H, L, D]."""
    batch, length, heads, channels = x_BTHD.shape
    x_BNLHD = x_BTHD.reshape(batch, num_chunks, length // num_chunks, heads, channels)
    return x_BNLHD.permute(1, 0, 3, 2, 4)


def _join(x_NBHLD: Tensor) -> Tensor:
    """Copy [N, B, H, L, D] to [B, T, H, D]."""
    return x_NBHLD.permute(1, 0, 3, 2, 4).flatten(1, 2)


class _Constants(NamedTuple):
    """What depends on the size of a chunk alone; made once, since a small step is all overhead."""

    earlier_MM: Tensor
    """0/1 mask of A: token t of a row sees columns j < t, rows of r also j = t."""
    I_LL: Tensor
    from_1LL: Tensor
    """Sums over the tokens t >= j."""


@lru_cache(maxsize=16)
def _constants(chunk: int, dtype: torch.dtype, device: torch.device) -> _Constants:
    with torch.inference_mode(False):
        ones_LL = torch.ones(chunk, chunk, dtype=dtype, device=device)
        before_LM, upto_LM = ones_LL.tril(-1).repeat(1, 2), ones_LL.tril().repeat(1, 2)
        I_LL = torch.eye(chunk, dtype=dtype, device=device)
        return _Constants(torch.cat([before_LM, upto_LM]), I_LL, ones_LL.triu()[None])


def _decay_products(log_decay_NBHLK: Tensor) -> Tensor:
    """P with a leading 1: entry t is the product before token t, entry t + 1 that up to it.

    A running product keeps a relative error of a few roundings; exp of a running sum of logs loses
    the absolute rounding of a sum near -19.
    """
    num_chunks, batch, heads, chunk, keys = log_decay_NBHLK.shape
    P_NBHlK = log_decay_NBHLK.new_ones((num_chunks, batch, heads, chunk + 1, keys))
    torch.cumprod(log_decay_NBHLK.exp(), dim=3, out=P_NBHlK[..., 1:, :])
    return P_NBHlK


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - the operator has this many operands
        ctx: Any,
        r_BTHK: Tensor,
        log_decay_BTHK: Tensor,
        k_BTHK: Tensor,
        v_BTHV: Tensor,
        a_BTHK: Tensor,
        b_BTHK: Tensor,
        s0_BHVK: Tensor,
        num_chunks: int,
    ) -> tuple[Tensor, Tensor]:
        r, log_decay, k, v, a, b = (
            _split(x, num_chunks) for x in (r_BTHK, log_decay_BTHK, k_BTHK, v_BTHV, a_BTHK, b_BTHK)
        )
        groups, chunk, keys = r.shape[:3], r.shape[3], r.shape[4]
        P_NBHlK = _decay_products(log_decay)
        inverse_P_NBHLK = P_NBHlK[..., 1:, :].reciprocal()
        q_NBH2LK = r.new_empty((*groups, 2, chunk, keys))
        torch.mul(a, P_NBHlK[..., :-1, :], out=q_NBH2LK[..., 0, :, :])
        torch.mul(r, P_NBHlK[..., 1:, :], out=q_NBH2LK[..., 1, :, :])
        z_NBH2LK = r.new_empty((*groups, 2, chunk, keys))
        torch.mul(b, inverse_P_NBHLK, out=z_NBH2LK[..., 0, :, :])
        torch.mul(k, inverse_P_NBHLK, out=z_NBH2LK[..., 1, :, :])
        o_NBH2LV = v.new_empty((*groups, 2, chunk, v.shape[-1]))
        o_NBH2LV[..., 1, :, :] = v

        q_GMK, z_GMK = q_NBH2LK.view(-1, 2 * chunk, keys), z_NBH2LK.view(-1, 2 * chunk, keys)
        o_GMV, P_GlK = o_NBH2LV.view(-1, 2 * chunk, v.shape[-1]), P_NBHlK.flatten(0, 2)
        earlier_MM, I_LL, _ = _constants(chunk, r.dtype, r.device)
        A_GMM = torch.bmm(q_GMK, z_GMK.mT).mul_(earlier_MM)
        inverse_GLL = torch.linalg.solve_triangular(
            I_LL - A_GMM[:, :chunk, :chunk], I_LL, upper=False, unitriangular=True
        )
        w_GLK = torch.bmm(inverse_GLL, q_GMK[:, :chunk])
        u0_GLV = torch.bmm(inverse_GLL, torch.bmm(A_GMM[:, :chunk, chunk:], o_GMV[:, chunk:]))

        F_GKK = None
        if num_chunks > 1:
            F_GKK, E_GVK = _steps(w_GLK, u0_GLV, o_GMV[:, chunk:], z_GMK, P_GlK[:, -1:])
            S_nBHVK = _scan(s0_BHVK, F_GKK, E_GVK, num_chunks)
            S_GVK, sT_BHVK = S_nBHVK[:-1].flatten(0, 2), S_nBHVK[-1].clone()
        else:
            S_GVK = s0_BHVK.flatten(0, 1)
        torch.baddbmm(u0_GLV, w_GLK, S_GVK.mT, out=o_GMV[:, :chunk])
        y_GLV = torch.bmm(q_GMK[:, chunk:], S_GVK.mT)
        y_GLV.baddbmm_(A_GMM[:, chunk:], o_GMV)
        ctx.save_for_backward(q_GMK, z_GMK, o_GMV, P_GlK, A_GMM, inverse_GLL, w_GLK, F_GKK, S_GVK)
        ctx.groups = groups
        if num_chunks == 1:
            S_end_GVK = torch.baddbmm(S_GVK, o_GMV.mT, z_GMK).mul_(P_GlK[:, -1:])
            sT_BHVK = S_end_GVK.view_as(s0_BHVK)
        return _join(y_GLV.view(*groups, chunk, -1)), sT_BHVK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BTHV: Tensor, dsT_BHVK: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dy_BTHV.device.type, enabled=False):
            return _backward(ctx, dy_BTHV, dsT_BHVK)


def _steps(
    w_GLK: Tensor, u0_GLV: Tensor, v_GLV: Tensor, z_GMK: Tensor, P_end_G1K: Tensor
) -> tuple[Tensor, Tensor]:
    """F and E of every chunk: S_end = S F + E."""
    chunk = w_GLK.shape[1]
    F_GKK = torch.bmm(w_GLK.mT, z_GMK[:, :chunk])
    F_GKK.diagonal(dim1=1, dim2=2).add_(1.0)
    E_GVK = torch.bmm(u0_GLV.mT, z_GMK[:, :chunk])
    E_GVK.baddbmm_(v_GLV.mT, z_GMK[:, chunk:])
    return F_GKK.mul_(P_end_G1K), E_GVK.mul_(P_end_G1K)


def _scan(s0_BHVK: Tensor, F_GKK: Tensor, E_GVK: Tensor, num_chunks: int) -> Tensor:
    """The states at all chunk borders, [N + 1, B, H, V, K]."""
    S_nBHVK = s0_BHVK.new_empty((num_chunks + 1, *s0_BHVK.shape))
    S_nBHVK[0] = s0_BHVK
    F_NXKK, E_NXVK = (x.view(num_chunks, -1, *x.shape[1:]) for x in (F_GKK, E_GVK))
    S_nXVK = S_nBHVK.flatten(1, 2)
    for n in range(num_chunks):
        torch.baddbmm(E_NXVK[n], S_nXVK[n], F_NXKK[n], out=S_nXVK[n + 1])
    return S_nBHVK


def _scan_back(dsT_BHVK: Tensor, F_GKK: Tensor, D_GVK: Tensor, num_chunks: int) -> Tensor:
    """The gradients at all chunk borders, [N + 1, B, H, V, K]; D is y's part at a chunk's start."""
    dS_nBHVK = dsT_BHVK.new_empty((num_chunks + 1, *dsT_BHVK.shape))
    dS_nBHVK[-1] = dsT_BHVK
    F_NXKK, D_NXVK = (x.view(num_chunks, -1, *x.shape[1:]) for x in (F_GKK, D_GVK))
    dS_nXVK = dS_nBHVK.flatten(1, 2)
    for n in reversed(range(num_chunks)):
        torch.baddbmm(D_NXVK[n], dS_nXVK[n + 1], F_NXKK[n].mT, out=dS_nXVK[n])
    return dS_nBHVK


def _backward(ctx: Any, dy_BTHV: Tensor, dsT_BHVK: Tensor) -> tuple[Tensor | None, ...]:
    q_GMK, z_GMK, o_GMV, P_GlK, A_GMM, inverse_GLL, w_GLK, F_GKK, S_GVK = ctx.saved_tensors
    groups, chunk = ctx.groups, w_GLK.shape[1]
    # g holds the gradients of x = q_a Sᵀ + A_ak v (so that u = (I - A_ab)⁻¹ x) and of y.
    g_NBH2LV = o_GMV.new_empty((*groups, 2, chunk, o_GMV.shape[-1]))
    g_NBH2LV[..., 1, :, :] = _split(dy_BTHV, groups[0])
    g_GMV = g_NBH2LV.view(-1, 2 * chunk, o_GMV.shape[-1])
    dy_GLV = g_GMV[:, chunk:]

    if groups[0] > 1:
        reads_GLK = torch.baddbmm(q_GMK[:, chunk:], A_GMM[:, chunk:, :chunk], w_GLK)
        D_GVK = torch.bmm(dy_GLV.mT, reads_GLK)
        dS_nBHVK = _scan_back(dsT_BHVK, F_GKK, D_GVK, groups[0])
        dS_end_GVK, ds0_BHVK = dS_nBHVK[1:].flatten(0, 2), dS_nBHVK[0].clone()
    else:
        dS_end_GVK = dsT_BHVK.flatten(0, 1)
    dS_end_GVK = dS_end_GVK * P_GlK[:, -1:]

    do_GMV = torch.bmm(z_GMK, dS_end_GVK.mT)
    do_GMV.baddbmm_(A_GMM[:, chunk:].mT, dy_GLV)
    torch.bmm(inverse_GLL.mT, do_GMV[:, :chunk], out=g_GMV[:, :chunk])
    dv_GLV = do_GMV[:, chunk:].baddbmm_(A_GMM[:, :chunk, chunk:].mT, g_GMV[:, :chunk])
    if groups[0] == 1:
        ds0_BHVK = torch.baddbmm(dS_end_GVK, g_GMV.mT, q_GMK).view_as(dsT_BHVK)
    earlier_MM, _, from_1LL = _constants(chunk, q_GMK.dtype, q_GMK.device)
    dA_GMM = torch.bmm(g_GMV, o_GMV.mT).mul_(earlier_MM)
    dq_GMK = torch.bmm(g_GMV, S_GVK).baddbmm_(dA_GMM, z_GMK)
    dz_GMK = torch.bmm(o_GMV, dS_end_GVK)
    dlog_P_end_GK = (dz_GMK * z_GMK).sum(1) + (dS_end_GVK * S_GVK).sum(1)
    dz_GMK.baddbmm_(dA_GMM.mT, q_GMK)

    dlog_decay_GLK = _grad_log_decay(dq_GMK * q_GMK, dz_GMK * z_GMK, dlog_P_end_GK, from_1LL)
    dq_a_GLK, dq_r_GLK = dq_GMK.mul_(torch.cat([P_GlK[:, :-1], P_GlK[:, 1:]], 1)).chunk(2, 1)
    dz_b_GLK, dz_k_GLK = dz_GMK.div_(P_GlK[:, 1:].repeat(1, 2, 1)).chunk(2, 1)
    grads = (dq_r_GLK, dlog_decay_GLK, dz_k_GLK, dv_GLV, dq_a_GLK, dz_b_GLK)
    joined = (_join(x.reshape(*groups, *x.shape[1:])) for x in grads)
    return (*joined, ds0_BHVK, None)


def _grad_log_decay(
    dlog_q_GMK: Tensor, dlog_z_GMK: Tensor, dlog_P_end_GK: Tensor, from_1LL: Tensor
) -> Tensor:
    """Gradient of every log P_t, then its sum over the tokens t >= j, whose P_t holds decay j."""
    chunk = dlog_q_GMK.shape[1] // 2
    dlog_P_GLK = dlog_q_GMK[:, chunk:] - dlog_z_GMK[:, :chunk] - dlog_z_GMK[:, chunk:]
    dlog_P_GLK[:, :-1] += dlog_q_GMK[:, 1:chunk]
    dlog_P_GLK[:, -1] += dlog_P_end_GK
    return torch.bmm(from_1LL.expand(dlog_P_GLK.shape[0], -1, -1), dlog_P_GLK)
