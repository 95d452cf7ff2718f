"""Which backend computes a call that leaves the choice open.

On a CPU by rule. On a GPU by measurement, once per process, device and class of shapes, or once for
all processes that share their choices (`model.wkv.agreement`): the first backend in order of
preference that takes at most `MARGIN` times the quickest one's time. The margin keeps the choice,
and with it the last bits of results, from hanging on a millisecond's noise. One that cannot be
built or launched, as where Triton finds no C compiler, is passed over with its reason.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model.shortage import out_of_memory
from model.wkv.agreement import agreed
from model.wkv.backends import BACKENDS, Backend, Call

PREFERENCE = ("triton", "fla", "chunked", "reference")
MARGIN = 1.2
REPEATS = 5

SHORT = 4
"""Below this many tokens the loop is the quicker form (2 Zen 5 cores, forward and backward)."""

LONGEST = 4096
"""Tokens of a row beyond which the time per token of no backend changes."""


class ShapeClass(NamedTuple):
    """What decides which backend is the quickest; sizes rounded up to powers of two."""

    device: str
    low_precision: bool
    trains: bool
    key_size: int
    value_size: int
    chains: int
    """Heads of all batch rows."""
    length: int


class Choice(NamedTuple):
    name: str
    milliseconds: dict[str, float]
    """Of every backend that ran; infinite where memory ran out."""
    failures: dict[str, str]
    """Why each that could not be built or launched could not."""


_CHOICES: dict[ShapeClass, Choice] = {}


def choose(call: Call) -> str:
    """The name of the backend for a call."""
    r_BTHK = call.operands[0]
    if r_BTHK.device.type != "cuda":
        return "reference" if r_BTHK.shape[1] < SHORT else "chunked"
    shape = _shape_class(call)
    if shape not in _CHOICES:
        able = {n: BACKENDS[n] for n in PREFERENCE if BACKENDS[n].obstacle(call) is None}
        if r_BTHK.shape[1] > SHORT:
            able.pop("reference")
        _CHOICES[shape] = chosen(shape, call, able)
    return _CHOICES[shape].name


def chosen(shape: ShapeClass, call: Call, able: Mapping[str, Backend]) -> Choice:
    """The choice that processes agree on, if this one can launch it; else one of its own."""
    own: list[Choice] = []

    def answer() -> str:
        own.append(measure(shape, call, able))
        return json.dumps(own[0])

    # Each process counts its devices for itself.
    kept = Choice(*json.loads(agreed(repr(shape._replace(device="")), answer)))
    if own and own[0].name == kept.name:
        return own[0]
    again = {name: backend for name, backend in able.items() if name == kept.name}
    try:
        measure(shape, call, again)
    except Exception:  # noqa: BLE001  # as in `measure`
        return own[0] if own else measure(shape, call, able)
    return kept


def choices() -> dict[ShapeClass, Choice]:
    """What has been measured in this process."""
    return dict(_CHOICES)


def failures() -> dict[str, str]:
    """Why backends could not be built or launched for some call of this process, by name."""
    return {name: why for choice in _CHOICES.values() for name, why in choice.failures.items()}


def obstacle_to(name: str, device: torch.device, head_size: int, low_precision: bool) -> str | None:
    """Why a named backend cannot compute a model's layers on a device, if so; not by launching."""
    return BACKENDS[name].obstacle(_layer_call(device, head_size, low_precision))


def survey(device: torch.device) -> dict[str, str]:
    """What a back end makes of a layer's call (12 heads of 64, bfloat16), or why it makes nothing.

    Says which is chosen; on a GPU with the time of a forward and backward over 4 rows of 1024
    tokens.
    """
    shape = ShapeClass(str(device), True, True, 64, 64, 64, 1024)
    call = _layer_call(device, 64, low_precision=True)
    reasons = {name: backend.obstacle(call) for name, backend in BACKENDS.items()}
    told = {name: "runs" if reason is None else reason for name, reason in reasons.items()}
    if device.type == "cuda":
        able = {n: BACKENDS[n] for n in PREFERENCE[:-1] if reasons[n] is None}
        choice = measure(shape, call, able)
        told |= {n: f"{value:.2f} ms" for n, value in choice.milliseconds.items()}
        told |= choice.failures
        chosen = choice.name
    else:
        chosen = choose(call)
    told[chosen] += ", chosen"
    return told


def _layer_call(device: torch.device, head_size: int, low_precision: bool) -> Call:
    """A call as a model's layers make it, of which only shapes and dtypes are looked at."""
    dtype = torch.bfloat16 if low_precision else torch.float32
    empty = torch.empty(1, SHORT, 1, head_size, dtype=dtype, device=device)
    state = torch.empty(1, 1, head_size, head_size, device=device)
    return Call((empty,) * 6, state, None, low_precision)


def measure(shape: ShapeClass, call: Call, able: Mapping[str, Backend]) -> Choice:
    """Time the backends, best first in preference, on random operands of a class of shapes.

    Raises whatever the last of them raises where none can be built and launched.
    """
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    error: Exception | None = None
    with torch.inference_mode(mode=False), torch.set_grad_enabled(shape.trains):
        sample = _sample(shape, call)
        for name, backend in able.items():
            try:
                seconds[name] = _time(backend, sample, shape.trains)
            except Exception as caught:  # noqa: BLE001  # compilers and packages raise anything
                error, failures[name] = caught, _failure(caught)
    if not seconds:
        raise error or ValueError(f"at least one backend must be able, got {list(able)}")
    limit = MARGIN * min(seconds.values())
    name = next(name for name, value in seconds.items() if value <= limit)
    return Choice(name, {n: 1e3 * value for n, value in seconds.items()}, failures)


def _failure(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"cannot be built or launched: {type(error).__name__}: {lines[0] if lines else ''}"


def _shape_class(call: Call) -> ShapeClass:
    r_BTHK, _, _, v_BTHV, _, _ = call.operands
    batch, length, heads, keys = r_BTHK.shape
    trains = torch.is_grad_enabled() and any(
        x.requires_grad for x in (*call.operands, call.s0_BHVK)
    )
    device = str(r_BTHK.device)
    chains, length = _round_up(batch * heads), min(_round_up(length), LONGEST)
    return ShapeClass(device, call.low_precision, trains, keys, v_BTHV.shape[-1], chains, length)


def _round_up(count: int) -> int:
    return 1 << math.ceil(math.log2(count)) if count > 1 else 1


def _sample(shape: ShapeClass, call: Call) -> Call:
    """Operands as RWKV-7 makes them, in the dtypes of the call."""
    generator = torch.Generator(call.s0_BHVK.device).manual_seed(0)

    def normal(like: Tensor, *sizes: int) -> Tensor:
        values = torch.randn(sizes, generator=generator, device=like.device)
        return values.to(like.dtype)

    r, log_decay, k, v, a, b = (
        normal(x, 1, shape.length, shape.chains, x.shape[-1]) for x in call.operands
    )
    log_decay = -math.exp(-0.5) * log_decay.sigmoid()
    a = torch.nn.functional.normalize(a, dim=-1)
    b = -a * b.sigmoid()
    s0 = normal(call.s0_BHVK, 1, shape.chains, shape.value_size, shape.key_size)
    mask = None
    if call.mask_BT is not None:
        mask = torch.ones(1, shape.length, dtype=torch.bool, device=r.device)
    leaves = [x.requires_grad_(shape.trains) for x in (r, log_decay, k, v, a, b, s0)]
    return Call((*leaves[:6],), leaves[6], mask, call.low_precision)  # type: ignore[arg-type]


def _time(backend: Backend, sample: Call, trains: bool) -> float:
    """Seconds of a call, with its backward where it trains; infinite where memory runs out."""

    def once() -> None:
        y, sT = backend.run(sample)
        if trains:
            torch.autograd.grad(
                [y, sT], [*sample.operands, sample.s0_BHVK], [y.detach(), sT.detach()]
            )

    try:
        # Twice first: compilation, then the clock of the device.
        for _ in range(2):
            once()
        return min(_seconds(once, sample.s0_BHVK.device) for _ in range(REPEATS))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return math.inf


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
