"""Checkpoints: what is written is read, what does not fit is listed; and the initial values."""

import math

import pytest
import torch
from model_cases import SMALL, random_model
from safetensors.torch import save_file

from model.checkpoint import load, load_mechanism, read_config, save, save_mechanism
from model.config import ModelConfig
from model.future_seed import FutureSeed, Gates, Schedule
from model.initial import initialise

SUFFIXES = [".pth", ".safetensors"]


def write(tensors, path):
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file({name: x.contiguous().clone() for name, x in tensors.items()}, path)


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_is_loaded(suffix, tmp_path):
    model = random_model()
    path = tmp_path / f"model{suffix}"
    save(random_model(seed=9), path)
    save(model, path)
    assert read_config(path) == SMALL
    loaded = load(path)
    assert loaded.config == SMALL
    assert_same(loaded, model)
    assert all(x.requires_grad and x.is_leaf for x in loaded.parameters())
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(suffix, value, tmp_path):
    tensors = dict(random_model().state_dict())
    name = "blocks.1.att.key.weight"
    tensors[name] = tensors[name].clone()
    tensors[name][2, 3] = value
    path = tmp_path / f"model{suffix}"
    write(tensors, path)
    with pytest.raises(ValueError, match=rf"1 tensors hold values .* the first of them {name}"):
        load(path)


def test_sparse_tensors_are_refused(tmp_path):
    tensors = dict(random_model().state_dict())
    tensors["head.weight"] = tensors["head.weight"].to_sparse()
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"dense tensors, these are not: \['head.weight'\]"):
        load(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_layers", 2**63 - 1), ("width", 16_000_000_000), ("vocab_size", 10**11)],
)
def test_shapes_beyond_any_model_are_refused_before_anything_is_made(name, value):
    values = {"num_layers": 2, "width": 64, "vocab_size": 256, "head_size": 64}
    with pytest.raises(ValueError, match=rf"{name} <= \d+, beyond any RWKV-7, must hold, got"):
        ModelConfig(**values | {name: value})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_of_one_layer_goes_round(suffix, tmp_path):
    config = ModelConfig(num_layers=1, width=8, vocab_size=5, head_size=4)
    save(random_model(config), tmp_path / f"model{suffix}")
    assert load(tmp_path / f"model{suffix}").config == config


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "model.safetensors"
    model = random_model()
    save(model, path)
    before = path.read_bytes()
    # Safetensors refuses two names for one memory.
    model.head.weight = model.emb.weight
    with pytest.raises(RuntimeError, match="share memory"):
        save(model, path)
    assert path.read_bytes() == before
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_replacement_leaves_nothing_behind(suffix, tmp_path):
    (tmp_path / f"model{suffix}" / "content").mkdir(parents=True)
    with pytest.raises(OSError, match="model"):
        save(random_model(), tmp_path / f"model{suffix}")
    assert [x.name for x in tmp_path.iterdir()] == [f"model{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_official_names_and_shapes_are_written(suffix, tmp_path, tiny_checkpoint):
    official = torch.load(tiny_checkpoint, weights_only=True)
    path = tmp_path / f"copy{suffix}"
    save(load(tiny_checkpoint), path)
    again = load(path)
    found = again.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in official.items()}
    assert all(torch.equal(found[name], tensor) for name, tensor in official.items())
    assert read_config(tiny_checkpoint) == ModelConfig(
        12,
        64,
        256,
        64,
        256,
        decay_rank=32,
        in_context_rate_rank=32,
        value_mix_rank=32,
        gate_rank=32,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_block_0_may_hold_a_value_mix_that_is_not_used(suffix, tmp_path):
    model = random_model()
    extra = {f"blocks.0.att.{name}": torch.ones(3, 4) for name in ("v0", "v1", "v2")}
    path = tmp_path / f"model{suffix}"
    write(model.state_dict() | extra, path)
    loaded = load(path)
    assert loaded.config == SMALL
    assert_same(loaded, model)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_low_precision_files_are_converted(suffix, stored, tmp_path):
    model = random_model().to(stored)
    path = tmp_path / f"model{suffix}"
    save(model, path)
    assert_same(load(path), model.float())
    assert load(path, dtype=torch.float64).emb.weight.dtype == torch.float64


def test_vectors_may_come_with_or_without_axes_of_one(tmp_path):
    model = random_model()
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        if tensor.dim() == 3:
            tensors[name] = tensor.flatten()
        elif tensor.dim() == 1:
            tensors[name] = tensor.view(1, 1, -1)
    write(tensors, tmp_path / "model.pth")
    assert_same(load(tmp_path / "model.pth"), model)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_that_does_not_fit_is_listed_at_once(suffix, tmp_path):
    tensors = random_model().state_dict()
    del tensors["blocks.1.att.w0"]
    tensors["blocks.1.att.v3"] = torch.zeros(2)
    tensors["blocks.2.att.w2"] = tensors["blocks.2.att.w2"].T
    tensors["blocks.2.att.x_r"] = tensors["blocks.2.att.x_r"].view(4, 4)
    tensors["blocks.2.ln1.bias"] = torch.zeros(16, dtype=torch.int64)
    write(tensors, tmp_path / f"model{suffix}")
    with pytest.raises(ValueError, match="5 tensors do not fit") as caught:
        load(tmp_path / f"model{suffix}")
    for line in (
        "missing: blocks.1.att.w0 [1, 1, 16]",
        "unexpected: blocks.1.att.v3 [2]",
        "misshapen: blocks.2.att.w2 is [16, 5], [5, 16] is wanted",
        "misshapen: blocks.2.att.x_r is [4, 4], [1, 1, 16] is wanted",
        "mistyped: blocks.2.ln1.bias is torch.int64, a floating point type is wanted",
    ):
        assert line in str(caught.value)


def test_a_matrix_with_an_axis_of_one_is_no_vector(tmp_path):
    config = ModelConfig(num_layers=1, width=8, vocab_size=5, head_size=4, decay_rank=1)
    tensors = random_model(config).state_dict()
    tensors["blocks.0.att.w2"] = tensors["blocks.0.att.w2"].flatten()
    write(tensors, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"w2 is \[8\], \[1, 8\] is wanted"):
        load(tmp_path / "model.pth")


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pth"):
        load(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"ends in \.pth or \.safetensors"):
        load(tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"ends in \.pth or \.safetensors"):
        save(random_model(), tmp_path / "model.bin")
    for suffix in SUFFIXES:
        (tmp_path / f"junk{suffix}").write_bytes(b"no checkpoint, only text")
        for read in (load, read_config):
            with pytest.raises(ValueError, match=f"junk{suffix}: not a"):
                read(tmp_path / f"junk{suffix}")
        write({"weight": torch.zeros(2)}, tmp_path / f"other{suffix}")
        with pytest.raises(ValueError, match=r"no matrix named emb\.weight, blocks\.N\.att\.r_k"):
            read_config(tmp_path / f"other{suffix}")
    torch.save({"model": {"x": 1}}, tmp_path / "wrapped.pth")
    with pytest.raises(ValueError, match=r"these are no tensors by name: \['model'\]"):
        load(tmp_path / "wrapped.pth")
    torch.save({0: torch.zeros(2)}, tmp_path / "numbered.pth")
    with pytest.raises(ValueError, match=r"these are no tensors by name: \[0\]"):
        read_config(tmp_path / "numbered.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load(tmp_path / "list.pth")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_loaded_tensors_do_not_depend_on_the_file(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    model = random_model()
    save(model, path)
    size = path.stat().st_size
    loaded = load(path)
    with path.open("r+b") as file:
        file.write(bytes(size))
    assert_same(loaded, model)


def test_initial_values_come_from_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model = initialise(SMALL, seed=3)
    torch.manual_seed(1)
    assert_same(initialise(SMALL, seed=3), model)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(initialise(SMALL, seed=4).emb.weight, model.emb.weight)


def test_initial_values_are_those_of_the_reference():
    config = ModelConfig(num_layers=4, width=16, vocab_size=40, head_size=8)
    att, ffn = (model := initialise(config, 0)).blocks[1].att, model.blocks[1].ffn
    i, C, D, height, depth = 5, 16, 8, 1 - 1 / 4, 1 / 3
    zigzag = (i - 3.5) / 3.5
    zigzag *= abs(zigzag)
    linear = i / (C - 1) - 0.5
    wanted = {
        "x_r": 1 - (i / C) ** (0.2 * height),
        "x_w": 1 - (i / C) ** (0.9 * height),
        "x_k": 1 - (i / C) ** (0.7 * height),
        "x_v": 1 - (i / C) ** (0.7 * height),
        "x_a": 1 - (i / C) ** (0.9 * height),
        "x_g": 1 - (i / C) ** (0.2 * height),
        "w0": -6 + 6 * (i / (C - 1)) ** (1 + depth**0.3) + 0.5 + zigzag * 2.5,
        "a0": -0.19 + zigzag * 0.3 + linear * 0.4,
        "v0": 0.73 - linear * 0.4,
        "k_k": 0.71 - linear * 0.1,
        "k_a": 1.02,
    }
    for name, value in wanted.items():
        assert getattr(att, name)[0, 0, i].item() == pytest.approx(value, rel=1e-5), name
    assert ffn.x_k[0, 0, i].item() == pytest.approx(1 - (i / C) ** (height**4), rel=1e-5)
    assert (att.r_k == -0.04).all()
    assert att.ln_x.weight[0].item() == pytest.approx(0.5**0.7)
    for zero in (att.w1, att.a1, att.v1, att.g1, att.output.weight, ffn.value.weight):
        assert (zero == 0).all()
    for weight, bound in (
        (att.receptance.weight, 0.5 / 4),
        (att.key.weight, 0.05 / 4),
        (att.value.weight, 0.5 / 4),
        (ffn.key.weight, 0.5 / 4),
        (model.emb.weight, 1e-4),
    ):
        assert 0.9 * bound < weight.abs().max() <= bound
    gain = 0.5 * math.sqrt(40 / 16)
    gram = model.head.weight.T @ model.head.weight
    torch.testing.assert_close(gram, gain**2 * torch.eye(16), rtol=0, atol=1e-5)
    D = att.w2.shape[0]
    gram = att.w2.T @ att.w2
    torch.testing.assert_close(gram, 0.01 * D / 16 * torch.eye(16), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("layers", "width", "size"), [(1, 1, 1), (1, 4, 1), (2, 8, 8)])
def test_the_smallest_models_start_finite_and_learn(layers, width, size):
    model = initialise(ModelConfig(layers, width, 6, size), 0)
    logits, _ = model(torch.arange(6)[None])
    logits.square().sum().backward()
    assert all(x.isfinite().all() for x in model.state_dict().values())
    assert logits.isfinite().all()


@pytest.mark.parametrize("gate", ["scalar", "head", "input"])
def test_gates_go_round_with_all_their_settings(gate, tmp_path):
    settings = FutureSeed(2, gate, -0.5, 0.25, Schedule("cosine", 0.5, 0.75), True, 1.5, True, 0.5)
    gates = Gates(SMALL, settings)
    with torch.no_grad():
        for parameter in gates.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    save_mechanism(gates, "future_seed", tmp_path / "gates.safetensors")
    name, loaded = load_mechanism(tmp_path / "gates.safetensors", SMALL)
    assert name == "future_seed"
    assert loaded.settings == settings
    assert_same(loaded, gates)


def test_gates_that_are_none_or_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_mechanism(Gates(SMALL, FutureSeed()), "future_seed", tmp_path / "gates.pth")
    with pytest.raises(FileNotFoundError, match="no mechanism's file at"):
        load_mechanism(tmp_path / "gates.safetensors", SMALL)
    save(random_model(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the file of a mechanism"):
        load_mechanism(tmp_path / "model.safetensors", SMALL)
    save_mechanism(
        Gates(SMALL, FutureSeed(gate="input")), "future_seed", tmp_path / "gates.safetensors"
    )
    with pytest.raises(ValueError, match=r"its parameters do not fit ModelConfig\("):
        load_mechanism(
            tmp_path / "gates.safetensors",
            ModelConfig(num_layers=5, width=8, vocab_size=4, head_size=8),
        )
