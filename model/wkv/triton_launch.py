"""How the Triton kernels of WKV-7 are launched: tokens of a chunk, blocks of channels, warps.

Chosen by what compiles without spilled registers on compute capabilities 8.0 and 9.0, within the
shared memory of 8.6 (`tests/model/test_wkv_triton_compile.py`), and not yet by a clock;
`tests/benchmarks/wkv_gpu.py --sweep` times the neighbours. Float32 at head size 128 spills in the
walks over chunks: right, and slow.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """How one kernel is launched."""

    num_warps: int
    num_stages: int
    block_v: int
    """Value channels that a program holds at a time; 0 where the kernel knows none."""
    block_k: int = 0

    @property
    def blocks(self) -> dict[str, int]:
        """The blocks by the kernel's names."""
        named = {"BLOCK_V": self.block_v, "BLOCK_K": self.block_k}
        return {name: size for name, size in named.items() if size}


@dataclass(frozen=True)
class Config:
    """How the four are."""

    chunk: int
    invert: Launch
    forward: tuple[Launch, ...]
    """From the widest block of value channels to the narrowest."""
    backward_states: tuple[Launch, ...]
    gradients: Launch


def fitting(launches: tuple[Launch, ...], chains: int, size: int, multiprocessors: int) -> Launch:
    """The launch of a walk: the narrowest whose programs find a multiprocessor each.

    Else the widest: programs of one chain repeat the work that is not of its rows, and a walk takes
    as long as the multiprocessor with the most of them.
    """
    for launch in reversed(launches):
        if chains * (size // launch.block_v) <= multiprocessors:
            return launch
    return launches[0]


CONFIGS = {
    ("bfloat16", 32): Config(
        chunk=32,
        invert=Launch(2, 1, 0),
        forward=(Launch(4, 2, 32), Launch(4, 2, 16)),
        backward_states=(Launch(4, 2, 32), Launch(4, 2, 16)),
        gradients=Launch(4, 1, 32, 32),
    ),
    ("bfloat16", 64): Config(
        chunk=32,
        invert=Launch(4, 1, 0),
        # On 9.0 the wide ones are products of warp groups, with operands in shared memory.
        forward=(Launch(4, 2, 64), Launch(4, 2, 16)),
        backward_states=(Launch(4, 2, 64), Launch(4, 2, 16)),
        gradients=Launch(4, 1, 32, 32),
    ),
    ("bfloat16", 128): Config(
        chunk=32,
        invert=Launch(4, 1, 0),
        forward=(Launch(8, 1, 16),),
        backward_states=(Launch(8, 1, 16),),
        gradients=Launch(8, 1, 16, 32),
    ),
    ("float32", 32): Config(
        chunk=16,
        invert=Launch(4, 1, 0),
        forward=(Launch(4, 1, 16),),
        backward_states=(Launch(4, 1, 16),),
        gradients=Launch(8, 1, 16, 32),
    ),
    ("float32", 64): Config(
        chunk=16,
        invert=Launch(8, 1, 0),
        forward=(Launch(8, 1, 16),),
        backward_states=(Launch(8, 1, 16),),
        gradients=Launch(8, 1, 16, 32),
    ),
    ("float32", 128): Config(
        chunk=16,
        invert=Launch(8, 1, 0),
        forward=(Launch(8, 2, 8),),
        backward_states=(Launch(8, 1, 16),),
        gradients=Launch(8, 1, 16, 32),
    ),
}
"""By what enters products and the head size."""
