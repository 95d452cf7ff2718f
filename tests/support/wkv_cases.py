"""Operands of the WKV-7 operator, its gradients, and how far from the formulae they may be."""

import math
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional

from model.wkv.dispatch import wkv7

NAMES = ("r", "log_decay", "k", "v", "a", "b", "s0")

TOLERANCES = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 8e-3}
"""Largest relative error (Frobenius norm) of an output or a gradient, by the precision of products.

Largest seen: 8.2e-7 in float32 (log_decay at its lower bound), 7.6e-3 in bfloat16 (y of one token).
"""


def make_operands(length, batch=2, heads=2, size=64, kind="weak", seed=0):
    """RWKV-7's operands, exact in float32 and held in float64.

    Kinds: "weak" decay near 1; "strong", near its lower bound; "repeated", in which every token
    replaces the value of one and the same key, so that powers of the chunk's matrix are huge.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, length, heads, size)
    kk = functional.normalize(normal(*shape), dim=-1)
    rate = normal(*shape).sigmoid()
    shift = {"weak": -6.0, "strong": 100.0, "repeated": -8.0}[kind]
    log_decay = -math.exp(-0.5) * (2 * normal(*shape) + shift).sigmoid()
    if kind == "repeated" and length:
        kk, rate = kk[:, :1].expand(shape), torch.ones(shape, dtype=torch.float64)
    s0 = normal(batch, heads, size, size)
    operands = (normal(*shape), log_decay, normal(*shape), normal(*shape), -kk, kk * rate, s0)
    # Rounding must not take the strongest decay below RWKV-7's bound.
    return [x.float().double() for x in operands]


def run(operands, dtypes, backend, mask=None, with_s0=True):
    """Outputs and gradients by name, for a loss through both y and sT.

    `dtypes` are those of the seven operands, or one for all.
    """
    dtypes = (dtypes,) * 7 if isinstance(dtypes, torch.dtype) else dtypes
    pairs = list(zip(operands, dtypes, strict=True))
    leaves = [x.to(dtype).requires_grad_() for x, dtype in pairs[: 7 if with_s0 else 6]]
    s0 = leaves[6] if with_s0 else None
    y, sT = wkv7(*leaves[:6], s0, mask, backend)
    generator = torch.Generator().manual_seed(5)
    cotangents = [
        torch.randn(x.shape, generator=generator).bfloat16().to(x.device, x.dtype) for x in (y, sT)
    ]
    grads = torch.autograd.grad([y, sT], leaves, cotangents)
    return {"y": y, "sT": sT} | {f"d{n}": g for n, g in zip(NAMES, grads, strict=False)}


def make_mask(kind, length, batch=2):
    """Which tokens are valid: "none" is no mask; in the last row of "random" nothing is."""
    if kind == "none":
        return None
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(batch, length, generator=generator) < 0.6
    if kind == "last row empty":
        mask[-1] = False
    return mask


def spoil(operands, mask):
    """NaN where the mask says that what is there does not count."""
    if mask is None:
        return operands
    r, *written, s0 = operands
    return [r, *(x.where(mask[:, :, None, None], torch.nan) for x in written), s0]


def error(found, wanted):
    """‖found - wanted‖ / ‖wanted‖; where nothing but zero is wanted, the operands' size is 1."""
    wanted = wanted.detach().double().cpu()
    scale = wanted.norm() if wanted.norm() > 0 else wanted.numel() ** 0.5
    return float((found.detach().double().cpu() - wanted).norm() / scale)


BFLOAT16 = (torch.bfloat16,) * 6 + (torch.float32,)
MIXED = (torch.bfloat16, torch.float32) + (torch.bfloat16,) * 2 + (torch.float32,) * 3
FLOAT32 = (torch.float32,) * 7


@dataclass(frozen=True)
class Case:
    """One comparison of a back end with the loop in float64."""

    length: int
    size: int
    kind: str = "weak"
    mask: str = "none"
    dtypes: str = "FLOAT32"
    with_s0: bool = True
    batch: int = 1
    heads: int = 1

    def __str__(self):
        return "-".join(str(value) for value in asdict(self).values())

    def excess(self, errors):
        """What of the errors the tolerance does not allow, by name; a NaN is never allowed."""
        tolerance = TOLERANCES[torch.float32 if self.dtypes == "FLOAT32" else torch.bfloat16]
        if (self.kind, self.dtypes) == ("repeated", "BFLOAT16"):
            # A key erased and written at every token: gradients of a and b are small differences of
            # large sums over states, each rounded (1.4e-2 seen, in the interpreter).
            errors = {name: e for name, e in errors.items() if name not in {"da", "db"}}
        return {name: e for name, e in errors.items() if not e <= tolerance}

    def errors(self, backend, device="cpu"):
        """The error of every output and gradient, by name."""
        dtypes = {"FLOAT32": FLOAT32, "BFLOAT16": BFLOAT16, "MIXED": MIXED}[self.dtypes]
        operands = make_operands(self.length, self.batch, self.heads, self.size, self.kind)
        operands = [x.to(t).double() for x, t in zip(operands, dtypes, strict=True)]
        mask = make_mask(self.mask, self.length, self.batch)
        wanted = run(operands, torch.float64, "reference", mask, self.with_s0)
        operands = [x.to(device) for x in spoil(operands, mask)]
        mask = None if mask is None else mask.to(device)
        found = run(operands, dtypes, backend, mask, self.with_s0)
        return {name: error(found[name], value) for name, value in wanted.items()}


def _cases(dtypes):
    return [
        Case(1, 32, "strong", dtypes=dtypes),
        Case(1, 64, dtypes=dtypes, with_s0=False),
        Case(5, 64, mask="random", dtypes=dtypes),
        Case(33, 32, "repeated", dtypes=dtypes),
        Case(33, 64, "strong", dtypes=dtypes),
        Case(41, 32, "strong", "last row empty", dtypes, batch=2, heads=2),
        Case(35, 64, mask="random", dtypes=dtypes, with_s0=False, heads=2),
        Case(17, 128, mask="random", dtypes=dtypes),
    ]


GPU_CASES = [*_cases("FLOAT32"), *_cases("BFLOAT16"), Case(33, 64, "strong", "random", "MIXED")]
"""For kernels; small enough for Triton's interpreter."""

QUICK_CASES = [
    *(_cases("FLOAT32")[at] for at in (0, 1, 2, 3, 5)),
    *(_cases("BFLOAT16")[at] for at in (6, 7)),
    GPU_CASES[-1],
]
"""Every size, kind, mask and dtype, less than a chunk and more, in as few steps as that takes."""
