"""WKV-7 in Triton: the kernels. Buffers, launches and autograd are in `model.wkv.triton`.

Letters: B batch, T time, H heads, K key channels, V value channels (or a block of them), N chunks,
L tokens of a chunk, M = 2L. A name ends with the shape of its tile. The algebra is that of
`model.wkv.chunked`, whose names are used here: P (and `before`, P one token earlier), u, A, q_a and
q_r, z_b and z_k; x = q_a Sᵀ + A_ak v, so that u = (I - A_ab)⁻¹ x; g is the gradient of x.

`invert` and `gradients` have no order among chunks and run all of them at once. `forward` and
`backward_states` walk along the chunks with the state on chip; the rows of a state know nothing of
each other, so that each program holds a block of them. Both write their products transposed: every
sum is then the left operand of the next product, which Triton feeds from registers, and nothing on
the way from state to state passes through shared memory.

Numbers. z grows as 1 / P, at most e^(0.6065 · L): e^19.4 for L = 32, far inside the range of
float32 and of bfloat16, which have the same exponents. Sums, states and (I - A_ab)⁻¹ are float32
and are rounded where they enter a product. The gradient of the decays is a difference of large
sums: `gradients` forms it from the same rounded q and z that entered the products, so that what
cancels does so exactly (an error of 3.6e-3 at the decay's lower bound in bfloat16; exact q and z
give 1.4e-2).

DOT says what enters products: "bfloat16"; "float32", multiplied as such, without tensor cores; and
for Triton's interpreter, which has no product of bfloat16 values, "rounded": bfloat16 values held
in float32.
"""

# ruff: noqa: PLR0913, PLR0915, PLR0917 - a kernel has as many arguments as buffers and sizes

import triton
import triton.language as tl

from model.wkv.triton_tiles import (
    dot,
    dot_float32,
    earlier,
    keep,
    last,
    load,
    load_pair,
    narrow,
    products,
    store,
    store_half,
    upto,
)

COUNTS = ("T", "N")
"""Arguments whose value no kernel is compiled for: Triton would build one more for a count of 1 and
for every multiple of 16, in the middle of training, and gain nothing: strides are constants."""


@triton.jit(do_not_specialize=COUNTS)
def invert(
    log_decay_ptr,
    a_ptr,
    b_ptr,
    mask_ptr,
    inverse_ptr,  # [B, H, N, L, L], in the type that enters products
    T,
    N,
    H: tl.constexpr,
    K: tl.constexpr,
    L: tl.constexpr,
    LOG2_L: tl.constexpr,
    DOT: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """(I - A_ab)⁻¹ of every chunk; one program each.

    The inverses of diagonal blocks of 1, 2, 4 … tokens are joined in pairs: [[X, 0], [Y A X, Y]].
    Unlike the series Π (I + A^2^i) this stays exact where keys repeat and powers of A are huge.
    """
    program = tl.program_id(0).to(tl.int64)
    chain, n = program // N, program % N
    row = (chain // H) * T + n * L
    base = (row * H + chain % H) * K
    _, keep_L = keep(mask_ptr, row, n, T, L, HAS_MASK)
    P_LK, before_LK = products(load(log_decay_ptr, base, H * K, keep_L, L, K))
    q_a_LK = narrow(load(a_ptr, base, H * K, keep_L, L, K) * before_LK, DOT)
    z_b_LK = narrow(load(b_ptr, base, H * K, keep_L, L, K) / P_LK, DOT)
    A_LL = earlier(dot(q_a_LK, tl.trans(z_b_LK)), L)

    t_L1, j_1L = tl.arange(0, L)[:, None], tl.arange(0, L)[None, :]
    X_LL = tl.where(t_L1 == j_1L, 1.0, tl.where(t_L1 // 2 == j_1L // 2, A_LL, 0.0))
    for level in tl.static_range(1, LOG2_L):
        is_pair_LL = t_L1 // (2 << level) == j_1L // (2 << level)
        is_same_LL = t_L1 // (1 << level) == j_1L // (1 << level)
        link_LL = tl.where(is_pair_LL & (is_same_LL == 0), A_LL, 0.0)
        X_LL += dot_float32(dot_float32(X_LL, link_LL, DOT), X_LL, DOT)
    offset_LL = t_L1 * L + j_1L
    tl.store(inverse_ptr + program * L * L + offset_LL, narrow(X_LL, DOT))


@triton.jit(do_not_specialize=COUNTS)
def forward(
    r_ptr,
    log_decay_ptr,
    k_ptr,
    v_ptr,
    a_ptr,
    b_ptr,
    mask_ptr,
    s0_ptr,  # [B, H, V, K] float32
    inverse_ptr,
    y_ptr,
    sT_ptr,  # [B, H, V, K] float32
    u_ptr,  # [B, T, H, V], in the type that enters products
    states_ptr,  # [B, H, N, V, K] float32, the state before each chunk
    T,
    N,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    L: tl.constexpr,
    DOT: tl.constexpr,
    HAS_MASK: tl.constexpr,
    FOR_BACKWARD: tl.constexpr,
):
    """Y and states, for one head of one batch row and BLOCK_V of its value channels."""
    first_v = tl.program_id(0) % (V // BLOCK_V) * BLOCK_V
    chain = (tl.program_id(0) // (V // BLOCK_V)).to(tl.int64)
    offset_VK = (first_v + tl.arange(0, BLOCK_V))[:, None] * K + tl.arange(0, K)[None, :]
    offset_LL = tl.arange(0, L)[:, None] * L + tl.arange(0, L)[None, :]
    S_VK = tl.load(s0_ptr + chain * V * K + offset_VK)
    for n in range(N):
        row = (chain // H) * T + n * L
        head = row * H + chain % H
        if FOR_BACKWARD:
            tl.store(states_ptr + (chain * N + n) * V * K + offset_VK, S_VK)
        inside_L, keep_L = keep(mask_ptr, row, n, T, L, HAS_MASK)
        P_LK, before_LK = products(load(log_decay_ptr, head * K, H * K, keep_L, L, K))
        q_a_LK = narrow(load(a_ptr, head * K, H * K, keep_L, L, K) * before_LK, DOT)
        q_r_LK = narrow(load(r_ptr, head * K, H * K, inside_L, L, K) * P_LK, DOT)
        z_b_LK = narrow(load(b_ptr, head * K, H * K, keep_L, L, K) / P_LK, DOT)
        z_k_LK = narrow(load(k_ptr, head * K, H * K, keep_L, L, K) / P_LK, DOT)
        v_LV = load(v_ptr, head * V + first_v, H * V, keep_L, L, BLOCK_V)
        v_VL = tl.trans(narrow(v_LV, DOT))
        inverse_LL = tl.load(inverse_ptr + (chain * N + n) * L * L + offset_LL)
        A_ak_LL = narrow(earlier(dot(q_a_LK, tl.trans(z_k_LK)), L), DOT)
        A_rk_LL = narrow(upto(dot(q_r_LK, tl.trans(z_k_LK)), L), DOT)
        A_rb_LL = narrow(upto(dot(q_r_LK, tl.trans(z_b_LK)), L), DOT)

        S_in_VK = narrow(S_VK, DOT)
        x_VL = dot(S_in_VK, tl.trans(q_a_LK)) + dot(v_VL, tl.trans(A_ak_LL))
        u_VL = narrow(dot(narrow(x_VL, DOT), tl.trans(inverse_LL)), DOT)
        y_VL = dot(S_in_VK, tl.trans(q_r_LK)) + dot(v_VL, tl.trans(A_rk_LL))
        y_VL += dot(u_VL, tl.trans(A_rb_LL))
        y_LV = tl.trans(y_VL)
        store(y_ptr, head * V + first_v, y_LV, H * V, inside_L, L, BLOCK_V, DOT)
        if FOR_BACKWARD:
            u_LV = tl.trans(u_VL)
            store(u_ptr, head * V + first_v, u_LV, H * V, inside_L, L, BLOCK_V, DOT)
        S_VK += dot(u_VL, z_b_LK) + dot(v_VL, z_k_LK)
        S_VK *= last(P_LK, L)[None, :]
    tl.store(sT_ptr + chain * V * K + offset_VK, S_VK)


@triton.jit(do_not_specialize=COUNTS)
def backward_states(
    r_ptr,
    log_decay_ptr,
    k_ptr,
    a_ptr,
    b_ptr,
    mask_ptr,
    inverse_ptr,
    dy_ptr,
    dsT_ptr,  # [B, H, V, K] float32
    dv_ptr,
    g_ptr,  # [B, T, H, V], in the type that enters products
    dstates_ptr,  # [B, H, N, V, K] float32, the gradient of the state after each chunk
    ds0_ptr,  # [B, H, V, K] float32
    T,
    N,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    L: tl.constexpr,
    DOT: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """Gradients of states, x and v, last chunk first; programs as in `forward`."""
    first_v = tl.program_id(0) % (V // BLOCK_V) * BLOCK_V
    chain = (tl.program_id(0) // (V // BLOCK_V)).to(tl.int64)
    offset_VK = (first_v + tl.arange(0, BLOCK_V))[:, None] * K + tl.arange(0, K)[None, :]
    offset_LL = tl.arange(0, L)[:, None] * L + tl.arange(0, L)[None, :]
    dS_VK = tl.load(dsT_ptr + chain * V * K + offset_VK)
    for i in range(N):
        n = N - 1 - i
        row = (chain // H) * T + n * L
        head = row * H + chain % H
        tl.store(dstates_ptr + (chain * N + n) * V * K + offset_VK, dS_VK)
        inside_L, keep_L = keep(mask_ptr, row, n, T, L, HAS_MASK)
        P_LK, before_LK = products(load(log_decay_ptr, head * K, H * K, keep_L, L, K))
        q_a_LK = narrow(load(a_ptr, head * K, H * K, keep_L, L, K) * before_LK, DOT)
        q_r_LK = narrow(load(r_ptr, head * K, H * K, inside_L, L, K) * P_LK, DOT)
        z_b_LK = narrow(load(b_ptr, head * K, H * K, keep_L, L, K) / P_LK, DOT)
        dy_LV = load(dy_ptr, head * V + first_v, H * V, inside_L, L, BLOCK_V)
        dy_VL = tl.trans(narrow(dy_LV, DOT))
        inverse_LL = tl.load(inverse_ptr + (chain * N + n) * L * L + offset_LL)
        z_k_LK = narrow(load(k_ptr, head * K, H * K, keep_L, L, K) / P_LK, DOT)
        A_rb_LL = narrow(upto(dot(q_r_LK, tl.trans(z_b_LK)), L), DOT)
        A_rk_LL = narrow(upto(dot(q_r_LK, tl.trans(z_k_LK)), L), DOT)
        A_ak_LL = narrow(earlier(dot(q_a_LK, tl.trans(z_k_LK)), L), DOT)

        dS_VK *= last(P_LK, L)[None, :]
        dS_out_VK = narrow(dS_VK, DOT)
        du_VL = dot(dS_out_VK, tl.trans(z_b_LK)) + dot(dy_VL, A_rb_LL)
        g_VL = narrow(dot(narrow(du_VL, DOT), inverse_LL), DOT)
        dv_VL = dot(dS_out_VK, tl.trans(z_k_LK)) + dot(dy_VL, A_rk_LL)
        dv_LV = tl.trans(dv_VL + dot(g_VL, A_ak_LL))
        store(dv_ptr, head * V + first_v, dv_LV, H * V, inside_L, L, BLOCK_V, DOT)
        g_LV = tl.trans(g_VL)
        store(g_ptr, head * V + first_v, g_LV, H * V, inside_L, L, BLOCK_V, DOT)
        dS_VK += dot(dy_VL, q_r_LK) + dot(g_VL, q_a_LK)
    tl.store(ds0_ptr + chain * V * K + offset_VK, dS_VK)


@triton.jit(do_not_specialize=COUNTS)
def gradients(
    r_ptr,
    log_decay_ptr,
    k_ptr,
    v_ptr,
    a_ptr,
    b_ptr,
    mask_ptr,
    u_ptr,
    states_ptr,
    dy_ptr,
    g_ptr,
    dstates_ptr,
    dr_ptr,
    dlog_decay_ptr,
    dk_ptr,
    da_ptr,
    db_ptr,
    T,
    N,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    L: tl.constexpr,
    DOT: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """Gradients of the operands (but v) of every chunk, from S before it and dS after it.

    Products are of pairs, M = 2L rows: q = [q_a; q_r], z = [z_b; z_k], o = [u; v], e = [g; dy].
    At an identity step u, v and g are read as 0, and with them the gradients of a, b and k are.
    """
    program = tl.program_id(0).to(tl.int64)
    chain, n = program // N, program % N
    row = (chain // H) * T + n * L
    head = row * H + chain % H
    inside_L, keep_L = keep(mask_ptr, row, n, T, L, HAS_MASK)
    is_first_211 = tl.arange(0, 2)[:, None, None] == 0
    is_end_1L1 = tl.arange(0, L)[None, :, None] == L - 1
    m_M1, j_1M = tl.arange(0, 2 * L)[:, None], tl.arange(0, 2 * L)[None, :]
    earlier_MM = (m_M1 % L + m_M1 // L) > j_1M % L
    offset_VK = tl.arange(0, BLOCK_V)[:, None] * K + tl.arange(0, BLOCK_K)[None, :]

    dA_MM = tl.zeros((2 * L, 2 * L), tl.float32)
    for first_v in range(0, V, BLOCK_V):
        base_v = head * V + first_v
        e_2LV = load_pair(g_ptr, dy_ptr, base_v, H * V, keep_L, inside_L, L, BLOCK_V)
        o_2LV = load_pair(u_ptr, v_ptr, base_v, H * V, keep_L, keep_L, L, BLOCK_V)
        e_MV = narrow(e_2LV, DOT).reshape(2 * L, BLOCK_V)
        o_MV = narrow(o_2LV, DOT).reshape(2 * L, BLOCK_V)
        dA_MM += dot(e_MV, tl.trans(o_MV))
    dA_MM = narrow(tl.where(earlier_MM, dA_MM, 0.0), DOT)

    for first_k in range(0, K, BLOCK_K):
        base = head * K + first_k
        log_decay_2LK = load_pair(
            log_decay_ptr, log_decay_ptr, base, H * K, keep_L, keep_L, L, BLOCK_K
        )
        decay_2LK = tl.exp(log_decay_2LK)
        P_2LK = tl.cumprod(decay_2LK, axis=1)
        reads_2LK = tl.where(is_first_211, P_2LK / decay_2LK, P_2LK)
        P_end_K = tl.sum(tl.sum(tl.where(is_end_1L1 & is_first_211, P_2LK, 0.0), axis=1), axis=0)

        dq_MK = tl.zeros((2 * L, BLOCK_K), tl.float32)
        dz_MK = tl.zeros((2 * L, BLOCK_K), tl.float32)
        dlog_P_end_K = tl.zeros((BLOCK_K,), tl.float32)
        for first_v in range(0, V, BLOCK_V):
            base_v = head * V + first_v
            e_2LV = load_pair(g_ptr, dy_ptr, base_v, H * V, keep_L, inside_L, L, BLOCK_V)
            o_2LV = load_pair(u_ptr, v_ptr, base_v, H * V, keep_L, keep_L, L, BLOCK_V)
            block = (program * V + first_v) * K + first_k
            S_VK = tl.load(states_ptr + block + offset_VK)
            dS_VK = tl.load(dstates_ptr + block + offset_VK) * P_end_K[None, :]
            dlog_P_end_K += tl.sum(S_VK * dS_VK, axis=0)
            dq_MK += dot(narrow(e_2LV, DOT).reshape(2 * L, BLOCK_V), narrow(S_VK, DOT))
            dz_MK += dot(narrow(o_2LV, DOT).reshape(2 * L, BLOCK_V), narrow(dS_VK, DOT))

        z_2LK = load_pair(b_ptr, k_ptr, base, H * K, keep_L, keep_L, L, BLOCK_K) / P_2LK
        z_MK = narrow(z_2LK, DOT).reshape(2 * L, BLOCK_K)
        dlog_P_end_K += tl.sum(dz_MK * z_MK.to(tl.float32), axis=0)
        dq_2LK = (dq_MK + dot(dA_MM, z_MK)).reshape(2, L, BLOCK_K)
        da_dr_2LK = dq_2LK * reads_2LK
        store_half(da_ptr, base, da_dr_2LK, 0, H * K, inside_L, L, BLOCK_K, DOT)
        store_half(dr_ptr, base, da_dr_2LK, 1, H * K, inside_L, L, BLOCK_K, DOT)
        q_2LK = load_pair(a_ptr, r_ptr, base, H * K, keep_L, inside_L, L, BLOCK_K) * reads_2LK
        q_MK = narrow(q_2LK, DOT).reshape(2 * L, BLOCK_K)
        dz_2LK = (dz_MK + dot(tl.trans(dA_MM), q_MK)).reshape(2, L, BLOCK_K)
        db_dk_2LK = dz_2LK / P_2LK
        store_half(db_ptr, base, db_dk_2LK, 0, H * K, inside_L, L, BLOCK_K, DOT)
        store_half(dk_ptr, base, db_dk_2LK, 1, H * K, inside_L, L, BLOCK_K, DOT)

        # log P_t gathers what enters by P_t, and token t + 1's what enters by P before it.
        dlog_q_2LK = dq_2LK * narrow(q_2LK, DOT).to(tl.float32)
        dlog_z_2LK = dz_2LK * narrow(z_2LK, DOT).to(tl.float32)
        dlog_P_LK = tl.sum(dlog_q_2LK - dlog_z_2LK, axis=0)
        dlog_before_LK = tl.sum(tl.where(is_first_211, dlog_q_2LK, 0.0), axis=0)
        dlog_decay_LK = tl.cumsum(dlog_P_LK, axis=0, reverse=True) - dlog_before_LK
        dlog_decay_LK = tl.where(keep_L[:, None], dlog_decay_LK + dlog_P_end_K[None, :], 0.0)
        store(dlog_decay_ptr, base, dlog_decay_LK, H * K, inside_L, L, BLOCK_K, DOT)
