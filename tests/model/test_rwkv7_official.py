"""Promise 1: the model is RWKV-7, by a real checkpoint and by the `rwkv` package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from model_cases import random_model, random_tokens, relative_error

from model.checkpoint import load, save
from model.config import ModelConfig

# In a process of its own: the package reads its settings from the environment at import, prints,
# and draws warnings that are not ours.
OFFICIAL = """
import json, sys
import numpy as np
from rwkv.model import RWKV
path, tokens, out, steps = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
model = RWKV(model=path.removesuffix(".pth"), strategy="cpu fp32")
whole, _ = model.forward(tokens, None, full_output=True)
state, single = None, []
for token in tokens[:steps]:
    logits, state = model.forward([token], state)
    single.append(logits.numpy())
np.savez(out, whole=whole.numpy(), single=np.stack(single))
"""


def official_logits(path, tokens, out, steps):
    settings = {"RWKV_V7_ON": "1", "RWKV_CUDA_ON": "0", "RWKV_JIT_ON": "0"}
    done = subprocess.run(
        [sys.executable, "-c", OFFICIAL, str(path), json.dumps(tokens), str(out), str(steps)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.load(out)


def test_a_real_checkpoint_gives_its_published_logits(tiny_checkpoint):
    expected = np.fromfile(tiny_checkpoint.with_name("expected-logits-7v0-834K.bin"), "<f4")
    with torch.inference_mode():
        logits_BTV, _ = load(tiny_checkpoint)(torch.tensor([list(b'"in')]))
    # Seen: 2.4e-7.
    assert np.abs(logits_BTV[0, -1].numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("layers", "width", "steps"), [(3, 128, 37), pytest.param(12, 768, 5, marks=pytest.mark.slow)]
)
def test_random_checkpoints_give_the_logits_of_the_rwkv_package(layers, width, steps, tmp_path):
    pytest.importorskip("rwkv")
    config = ModelConfig(num_layers=layers, width=width, vocab_size=512)
    model = random_model(config, seed=layers)
    path = tmp_path / "model.pth"
    save(model, path)
    tokens = random_tokens(1, 37, vocab_size=512)
    official = official_logits(path, tokens[0].tolist(), tmp_path / "logits.npz", steps)
    # pytest keeps the folder, and this file is large.
    path.unlink()
    # Seen: 4e-6 (L3) and 7e-6 (L12) of the logits' standard deviation.
    bound = 1e-4 * official["whole"].std()
    with torch.inference_mode():
        whole_BTV, _ = model(tokens)
        assert np.abs(whole_BTV[0].numpy() - official["whole"]).max() <= bound
        state = None
        for t in range(steps):
            logits_BTV, state = model(tokens[:, t : t + 1], state)
            assert np.abs(logits_BTV[0, 0].numpy() - official["single"][t]).max() <= bound


@pytest.mark.parametrize("length", [3, 40])
def test_under_autocast_norms_decay_and_state_stay_in_float32(length):
    model = random_model()
    tokens = random_tokens(2, length)
    exact_BTV, _ = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV, state = model(tokens)
    assert logits_BTV.dtype == torch.bfloat16
    assert {x.dtype for x in vars(state).values()} == {torch.float32}
    assert 0 < relative_error(logits_BTV, exact_BTV) < 0.05
    logits_BTV.float().square().sum().backward()
    assert {x.grad.dtype for x in model.parameters()} == {torch.float32}


def test_a_model_in_bfloat16_keeps_its_state_in_float32():
    logits_BTV, state = random_model(dtype=torch.bfloat16)(random_tokens(2, 9))
    assert logits_BTV.dtype == torch.bfloat16
    assert state.wkv_LBHVK.dtype == torch.float32


def test_every_parameter_takes_part():
    model = random_model()
    logits_BTV, _ = model(random_tokens(2, 9))
    logits_BTV.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.norm() > 0, name


def test_making_a_model_draws_no_random_number():
    before = torch.get_rng_state()
    random_model()
    assert torch.equal(torch.get_rng_state(), before)
