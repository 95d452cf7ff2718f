"""Run the Triton kernels in Triton's interpreter and print the errors of every case as JSON.

The argument says which cases: `quick`, a model among them, or `rest`.

A process of its own, with TRITON_INTERPRET=1: Triton reads that when it is imported. What is
allocated and not yet written is filled with NaN.
"""

import json
import sys
from dataclasses import replace

import torch
from model_cases import SMALL, random_model, random_tokens
from wkv_cases import GPU_CASES, QUICK_CASES, error

from model.future_seed import FutureSeed, Gates


def model_errors():
    """Of a whole model with Future-Seed and padding, against the chunk form in torch; float32."""
    model = random_model(replace(SMALL, width=64, head_size=32, ffn_width=96))
    gates = Gates(model.config, FutureSeed())
    tokens_BT = random_tokens(2, 21)
    mask_BT = torch.rand(2, 21, generator=torch.Generator().manual_seed(0)) < 0.8

    def run(backend):
        model.wkv_backend = backend
        model.zero_grad()
        logits, _ = model(tokens_BT, mask_BT=mask_BT, acting=[gates])
        logits.square().sum().backward()
        parameters = model.named_parameters()
        return {"logits": logits} | {n: p.grad for n, p in parameters if p.grad is not None}

    wanted, found = run("chunked"), run("triton")
    return {name: error(found[name], value) for name, value in wanted.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    if not torch.empty(3).isnan().all():
        raise SystemExit("uninitialised memory is not filled with NaN")
    quick = sys.argv[1] == "quick"
    told = {str(c): c.errors("triton") for c in GPU_CASES if (c in QUICK_CASES) == quick}
    print(json.dumps(told | {"model": model_errors()} if quick else told))
