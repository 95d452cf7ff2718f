"""Run the Triton kernels in Triton's interpreter and print the errors of every case as JSON.

A process of its own, with TRITON_INTERPRET=1: Triton reads that when it is imported. What is
allocated and not yet written is filled with NaN.
"""

import json

import torch
from wkv_cases import GPU_CASES

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    if not torch.empty(3).isnan().all():
        raise SystemExit("uninitialised memory is not filled with NaN")
    print(json.dumps({str(case): case.errors("triton") for case in GPU_CASES}))
