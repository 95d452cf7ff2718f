"""The Triton kernels of WKV-7, compiled ahead of time for GPUs that need not be there.

What every shipped configuration takes of a multiprocessor: registers without spills, and shared
memory up to what a block may have (CUDA C++ Programming Guide, technical specifications per compute
capability).
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from model.wkv.triton_launch import CONFIGS, fitting

triton = pytest.importorskip("triton", reason="the package triton is not installed")

KIB = 1024
SHARED_MEMORY = {80: 163 * KIB, 90: 227 * KIB}
LEAST_SHARED_MEMORY = 99 * KIB
"""Of compute capabilities 8.6 and 8.9, which run what is built for 8.0."""

SPILLS = {
    ("forward", "bfloat16", 128): 24,
    ("backward_states", "bfloat16", 128): 24,
    ("forward", "float32", 128): 8,
    ("backward_states", "float32", 128): 4 * KIB,
}
"""Bytes of stack of those that do not fit; RWKV-7's models have heads of 64."""

FLOAT32_ALWAYS = {"s0_ptr", "sT_ptr", "states_ptr", "dsT_ptr", "dstates_ptr", "ds0_ptr"}
NARROW_UNDER_AUTOCAST = {"r_ptr", "dr_ptr", "inverse_ptr", "u_ptr", "g_ptr"}
"""In a model under autocast to bfloat16: r, and what the kernels themselves keep as bfloat16."""

KERNELS = ("invert", "forward", "backward_states", "gradients")


@pytest.fixture(scope="module")
def _cache(tmp_path_factory):
    """One for all tests here, so that no kernel is compiled twice; and none of yesterday's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.knobs.cache, "dir", str(tmp_path_factory.mktemp("cache")))
        yield


def launches():
    """Every launch that there is: kernel, products, head size, launch."""
    for (products, size), config in CONFIGS.items():
        for kernel in KERNELS:
            shipped = getattr(config, kernel)
            for launch in shipped if isinstance(shipped, tuple) else (shipped,):
                yield kernel, products, size, launch


def element(name, products, operands):
    """The type behind a pointer: operands are what products are, or as autocast hands them on."""
    if name == "mask_ptr":
        return "*i1"
    wide = name in FLOAT32_ALWAYS or products == "float32"
    wide = wide or (operands == "autocast" and name not in NARROW_UNDER_AUTOCAST)
    return "*fp32" if wide else "*bf16"


def compile_kernel(kernel, products, size, launch, capability, operands="same"):
    """The binary of a kernel as `model.wkv.triton` launches it: its code, and what it needs."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from model.wkv import triton_kernels

    chunk = CONFIGS[products, size].chunk
    constants = {"H": 12, "K": size, "V": size, "L": chunk, "DOT": products}
    constants |= {"HAS_MASK": True, "FOR_BACKWARD": True, "LOG2_L": chunk.bit_length() - 1}
    constants |= launch.blocks
    function = getattr(triton_kernels, kernel)
    signature, attributes = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = element(name, products, operands)
            attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    used = {n: value for n, value in constants.items() if n in function.arg_names}
    source = ASTSource(fn=function, signature=signature, constexprs=used, attrs=attributes)
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    options["enable_fp_fusion"] = True
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(binary, folder):
    """Registers, stack and so on, as cuobjdump tells them."""
    file = folder / "kernel.cubin"
    file.write_bytes(binary.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "-res-usage", file]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", told)}


def check(kernel, products, size, launch, capability, folder):
    binary = compile_kernel(kernel, products, size, launch, capability)
    limit = LEAST_SHARED_MEMORY if capability == 80 else SHARED_MEMORY[capability]
    assert binary.metadata.shared <= limit
    allowed = SPILLS.get((kernel, products, size), 0)
    assert resources(binary, folder)["STACK"] <= allowed


SHIPPED = [case for case in launches() if case[1:3] == ("bfloat16", 64)]


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize(("kernel", "products", "size", "launch"), SHIPPED)
def test_the_kernels_of_shipped_models_fit_an_h100(kernel, products, size, launch, tmp_path):
    check(kernel, products, size, launch, 90, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize(("kernel", "products", "size", "launch"), list(launches()))
def test_every_launch_fits(kernel, products, size, launch, capability, tmp_path):
    check(kernel, products, size, launch, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize(
    ("kernel", "products", "size", "launch"), [c for c in launches() if c[1] == "bfloat16"]
)
def test_every_launch_fits_under_autocast(kernel, products, size, launch, capability, tmp_path):
    binary = compile_kernel(kernel, products, size, launch, capability, "autocast")
    assert binary.metadata.shared <= LEAST_SHARED_MEMORY
    # The launches are chosen for bfloat16 operands; float32 ones cost some more registers.
    assert resources(binary, tmp_path)["STACK"] <= 128


@pytest.mark.usefixtures("_cache")
def test_on_an_h100_products_are_of_warp_groups():
    for kernel, products, size, launch in SHIPPED:
        if kernel == "gradients" or launch.block_v == size:
            code = compile_kernel(kernel, products, size, launch, 90).asm["ptx"]
            assert "wgmma.mma_async" in code, kernel


def variants(kernel, lengths):
    """How often Triton would compile a kernel for rows of these lengths: what it tells them by."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    from model.wkv import triton_kernels

    function = getattr(triton_kernels, kernel)
    backend = make_backend(GPUTarget("cuda", 90, 32))
    told_by = create_function_from_signature(function.signature, function.params, backend)
    pointer = torch.empty(64)
    given = {name: pointer if name.endswith("_ptr") else 1 for name in function.arg_names}
    return len(
        {str(told_by(**given | {"T": length, "N": -(-length // 32)})[1]) for length in lengths}
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_length_of_a_row_has_a_kernel_of_its_own(kernel):
    # One chunk, one token, multiples of 16 in tokens and in chunks, and none of these.
    assert variants(kernel, [1, 17, 32, 33, 48, 512, 513, 1024, 1940, 4096]) == 1


def test_a_walk_is_split_as_far_as_there_are_multiprocessors():
    walks = CONFIGS["bfloat16", 64].forward
    wide, narrow = walks
    assert (wide.block_v, narrow.block_v) == (64, 16)
    assert fitting(walks, 33, 64, 132) is narrow
    assert fitting(walks, 34, 64, 132) is wide
    assert fitting(walks, 96, 64, 132) is wide
    assert fitting(walks, 1000, 64, 132) is wide
