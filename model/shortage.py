"""How errors say that memory did not suffice, on a GPU or on a CPU.

What is then done about it is the caller's.
"""

import torch

_MEMORY_ERRORS = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
)
"""How memory errors that are plain RuntimeErrors read: torch's CPU allocator's, and those of what
asks the driver for memory beside torch's own allocator."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in _MEMORY_ERRORS)
