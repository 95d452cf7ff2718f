"""The WKV-7 recurrence token by token: the statement of the operator, in any dtype.

Letters: B batch, T time, H heads, K key channels (columns), V value channels (rows).

For every batch row and head, with S a V × K matrix and w_t = exp(log_decay_t):

    S_t = S_{t-1} · diag(w_t) + (S_{t-1} a_t) b_tᵀ + v_t k_tᵀ
    y_t = S_t r_t

(RWKV-7 "Goose", arXiv 2503.14456, section 3; there a = -kk and b = kk · in-context rate.) A step
with log_decay = 0 and k = v = a = b = 0 leaves S as it is: the identity step.
"""

import torch
from torch import Tensor


def wkv7_reference(
    r_BTHK: Tensor,
    log_decay_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    s0_BHVK: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence from `s0`; all tensors share one dtype.

    Products and sums, no matrix products: autocast, also around the backward, leaves those alone.

    Returns:
        y_BTHV and the state after the last token, sT_BHVK.
    """
    s_BHVK = s0_BHVK
    w_BTHK = log_decay_BTHK.exp()
    ys_BHV: list[Tensor] = []
    for t in range(r_BTHK.shape[1]):
        u_BHV1 = (s_BHVK * a_BTHK[:, t].unsqueeze(-2)).sum(-1, keepdim=True)
        s_BHVK = (
            s_BHVK * w_BTHK[:, t].unsqueeze(-2)
            + u_BHV1 * b_BTHK[:, t].unsqueeze(-2)
            + v_BTHV[:, t].unsqueeze(-1) * k_BTHK[:, t].unsqueeze(-2)
        )
        ys_BHV.append((s_BHVK * r_BTHK[:, t].unsqueeze(-2)).sum(-1))
    y_BTHV = torch.stack(ys_BHV, dim=1) if ys_BHV else torch.zeros_like(v_BTHV)
    return y_BTHV, s_BHVK
