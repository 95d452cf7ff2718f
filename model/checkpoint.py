"""Checkpoints in the official RWKV-7 layout: `.pth` (a state dict) and `.safetensors`.

The shapes say what the model is: depth, width, heads, ranks, vocabulary. Reading is strict:
missing, unexpected and misshapen tensors are one error that lists them all. Two freedoms are given,
because files in circulation need them: block 0 may hold v0, v1, v2 (never used there), and a vector
[1, 1, C] may come as [C], or the other way round.

The official layout has no place for a mechanism: its settings and parameters are a file beside the
model's, `.safetensors` with the settings as JSON in its metadata, under the mechanism's name.

C is the width, V the vocabulary, H the heads, D the channels of a head, r a rank.
"""

import json
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.config import ModelConfig
from model.mechanisms.acting import Acting
from model.mechanisms.registry import get, names
from model.rwkv7 import RWKV7

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

SUFFIXES = (".pth", ".safetensors")

_UNUSED = frozenset(f"blocks.0.att.{name}" for name in ("v0", "v1", "v2"))


def load(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> RWKV7:
    """Read a model; its tensors are copies, so the file may change afterwards.

    Raises:
        ValueError: for a file that is no checkpoint, or whose tensors do not make up a model.
        FileNotFoundError: where there is none.
    """
    path = _checked(path)
    return assemble(_read(path), path, device, dtype)


def assemble(
    tensors: Mapping[str, Tensor],
    source: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> RWKV7:
    """The model that a state dict makes up; its tensors are copies.

    Args:
        tensors: by their official names.
        source: where they come from, for the error.
        device: of the model.
        dtype: of its parameters.

    Raises:
        ValueError: if they do not make up a model.
    """
    config = _config(source, {name: tuple(x.shape) for name, x in tensors.items()})
    with torch.device("meta"):
        model = RWKV7(config)
    wanted = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    problems = _problems(tensors, wanted)
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(f"{source}: {len(problems)} tensors do not fit {config}:\n  {listed}")
    filled = {
        name: tensors[name].reshape(shape).to(device, dtype, copy=True)
        for name, shape in wanted.items()
    }
    broken = [name for name, x in filled.items() if not bool(x.isfinite().all())]
    if broken:
        raise ValueError(
            f"{source}: {len(broken)} tensors hold values that are not finite, the first of them "
            f"{broken[0]}; is the file damaged?"
        )
    model.load_state_dict(filled, assign=True)
    return model


def read_config(path: str | os.PathLike[str]) -> ModelConfig:
    """The shapes of the model in a file, without reading its values.

    Raises:
        ValueError: for a file that is no checkpoint, or does not tell.
        FileNotFoundError: where there is none.
    """
    path = _checked(path)
    if path.suffix == ".pth":
        return _config(path, {name: tuple(x.shape) for name, x in _read(path).items()})
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from error
    return _config(path, shapes)


def save(model: RWKV7, path: str | os.PathLike[str]) -> None:
    """Write a model in the official layout; the file appears whole or not at all.

    Raises:
        ValueError: for another suffix than `.pth` or `.safetensors`.
    """
    path = _suffixed(path)
    tensors = _plain(model)
    write = torch.save if path.suffix == ".pth" else save_file
    _write(path, lambda temporary: write(tensors, temporary))


def save_mechanism(acting: Acting, name: str, path: str | os.PathLike[str]) -> None:
    """Write a mechanism's settings and parameters; the file appears whole or not at all.

    Args:
        acting: what acts in the model.
        name: the mechanism's.
        path: of the file.

    Raises:
        ValueError: for another suffix than `.safetensors`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a file of a mechanism ends in .safetensors")
    metadata = {name: json.dumps(asdict(acting.settings))}
    _write(path, lambda temporary: save_file(_plain(acting), temporary, metadata))


def load_mechanism(
    path: str | os.PathLike[str], config: ModelConfig, device: torch.device | str = "cpu"
) -> tuple[str, Acting]:
    """Read what `save_mechanism` wrote: the mechanism's name, and what acts.

    Args:
        path: the file.
        config: shapes of the model that it stands beside.
        device: of the parameters.

    Raises:
        ValueError: for another file, and for parameters that do not fit the model.
        FileNotFoundError: where there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no mechanism's file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path, device=str(device))
        ((name, values),) = ((key, metadata[key]) for key in names() if key in metadata)
        settings = get(name).settings_of(json.loads(values))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the file of a mechanism: {error}") from error
    acting = get(name).build(config, settings).to(device)
    try:
        acting.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: its parameters do not fit {config}: {error}") from error
    return name, acting


def _plain(module: nn.Module) -> dict[str, Tensor]:
    return {name: x.detach().cpu().contiguous() for name, x in module.state_dict().items()}


def _write(path: Path, write: Callable[[str], object]) -> None:
    """Write a file so that it appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        write(temporary)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _suffixed(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a checkpoint ends in {' or '.join(SUFFIXES)}")
    return path


def _checked(path: str | os.PathLike[str]) -> Path:
    path = _suffixed(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if not zipfile.is_zipfile(path):  # that of the end: half a download has none
            raise ValueError(f"{path}: not a whole file that torch.save wrote; was it cut short?")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path}: not a readable checkpoint: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a state dict")
    strange = [
        name for name, x in content.items() if not (isinstance(name, str) and isinstance(x, Tensor))
    ]
    if strange:
        raise ValueError(f"{path}: not a state dict, these are no tensors by name: {strange[:5]}")
    sparse = [name for name, x in content.items() if x.layout != torch.strided]
    if sparse:
        raise ValueError(f"{path}: a checkpoint holds dense tensors, these are not: {sparse[:5]}")
    return content


def _config(path: Path, shapes: Shapes) -> ModelConfig:
    """Shapes of the model, from the first block that holds each tensor in two dimensions."""
    layers = [int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))]
    num_layers = max(layers, default=0) + 1
    unknown: list[str] = []

    def matrix(name: str) -> Shape:
        candidates = [name.format(layer) for layer in range(num_layers)]
        for candidate in candidates:
            if candidate not in _UNUSED and len(shapes.get(candidate, ())) == 2:
                return shapes[candidate]
        unknown.append(candidates[-1].replace(f".{num_layers - 1}.", ".N."))
        return (1, 1)

    vocab_size, width = matrix("emb.weight")
    num_heads, head_size = matrix("blocks.{}.att.r_k")
    ranks = {
        "decay_rank": matrix("blocks.{}.att.w1")[1],
        "in_context_rate_rank": matrix("blocks.{}.att.a1")[1],
        "gate_rank": matrix("blocks.{}.att.g1")[1],
        # Layer 0 mixes no values, so a model of one layer says nothing here.
        "value_mix_rank": matrix("blocks.{}.att.v1")[1] if num_layers > 1 else 0,
    }
    ffn_width = matrix("blocks.{}.ffn.key.weight")[0]
    if unknown:
        raise ValueError(
            f"{path}: not an RWKV-7 checkpoint in the official layout: no matrix named "
            + ", ".join(unknown)
        )
    if num_heads * head_size != width:
        raise ValueError(
            f"{path}: r_k [H, D] and emb.weight [V, C] must agree in H·D = C, "
            f"got {num_heads}·{head_size} and {width}"
        )
    return ModelConfig(
        num_layers=num_layers,
        width=width,
        vocab_size=vocab_size,
        head_size=head_size,
        ffn_width=ffn_width,
        **ranks,
    )


def _problems(tensors: Mapping[str, Tensor], wanted: Shapes) -> list[str]:
    """One line for each tensor that is missing, unexpected or misshapen."""
    lines = []
    for name, shape in wanted.items():
        if name not in tensors:
            lines.append(f"missing: {name} {list(shape)}")
            continue
        found = tensors[name]
        if not _fits(tuple(found.shape), shape):
            lines.append(f"misshapen: {name} is {list(found.shape)}, {list(shape)} is wanted")
        elif not found.is_floating_point():
            lines.append(f"mistyped: {name} is {found.dtype}, a floating point type is wanted")
    for name, tensor in tensors.items():
        if name not in wanted and name not in _UNUSED:
            lines.append(f"unexpected: {name} {list(tensor.shape)}")
    return lines


def _fits(found: Shape, wanted: Shape) -> bool:
    """Whether the shapes are equal, or are one vector with and without axes of one."""
    if found == wanted:
        return True
    found_axes, wanted_axes = ([n for n in shape if n != 1] for shape in (found, wanted))
    is_vector = len(wanted) - wanted.count(1) <= 1 and len(wanted) in {1, 3}
    return is_vector and found_axes == wanted_axes
