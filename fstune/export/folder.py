"""An arm's model as a folder that `transformers` loads, code and all.

The code is the project's own: `hf_model`, `hf_config`, `hf_tokenizer` and of `model` what they
import, the mechanisms of this very model included, with imports rewritten, since `transformers`
wants all files side by side.
"""

import ast
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from fstune.errors import InputError
from fstune.export.hf_config import RWKV7Config
from fstune.export.hf_model import RWKV7ForCausalLM
from fstune.export.hf_tokenizer import RWKVTokenizer
from fstune.export.weights import Exported, make_parent
from fstune.files import whole_folder
from model.mechanisms import registry
from model.tokenizer import Tokenizer, for_vocabulary

FACES = {
    "fstune.export.hf_config": "configuration_rwkv7",
    "fstune.export.hf_mechanisms": "mechanisms_of_model",
    "fstune.export.hf_model": "modeling_rwkv7",
    "fstune.export.hf_tokenizer": "tokenization_rwkv7",
}
"""What is loaded first, under the names that `transformers` is used to."""


_MECHANISMS = "fstune.export.hf_mechanisms"


def write_folder(exported: Exported, out: Path) -> list[Path]:
    """Write the folder, which appears whole or not at all; returns its files.

    Raises:
        InputError: if `out` exists, its folder cannot be made, the model has no tokenizer, or a
            mechanism is another package's, whose code cannot go along.
    """
    if out.exists():
        raise InputError(f"--out: {out} exists; move it away or give another name")
    for name, acting in exported.acting.items():
        package = type(acting).__module__.partition(".")[0]
        if package != "model":
            raise InputError(
                f"the model cannot be exported for transformers: its mechanism {name} is the "
                f"package {package}'s, whose code cannot go along; --to pth writes its parameters"
            )
    try:
        tokenizer = for_vocabulary(exported.model.config.vocab_size, exported.tokenizer)
    except ValueError as error:
        raise InputError(f"the model cannot be exported for transformers: {error}") from error
    make_parent(out)
    with whole_folder(out) as draft:
        _write_model(exported, tokenizer, draft)
        _write_tokenizer(exported, tokenizer, draft)
        for name, text in _sources(list(exported.acting)).items():
            (draft / f"{name}.py").write_text(text, encoding="utf-8")
    return sorted(out.iterdir())


def _write_model(exported: Exported, tokenizer: Tokenizer, folder: Path) -> None:
    model = exported.model
    settings = {name: asdict(acting.settings) for name, acting in exported.acting.items()}
    config = RWKV7Config(shapes=asdict(model.config), mechanisms=settings or None, dtype="float32")
    config.auto_map = {
        "AutoConfig": f"{FACES['fstune.export.hf_config']}.{RWKV7Config.__name__}",
        "AutoModelForCausalLM": f"{FACES['fstune.export.hf_model']}.{RWKV7ForCausalLM.__name__}",
    }
    with torch.device("meta"):
        shell = RWKV7ForCausalLM(config)
    shell.rwkv7 = model
    shell.put_in_place(exported.acting)
    # World keeps id 0 for the end of a text; a byte 0 is a byte like any other.
    end = 0 if tokenizer.name == "world" else None
    GenerationConfig(eos_token_id=end, pad_token_id=0).save_pretrained(folder)
    config.architectures = [RWKV7ForCausalLM.__name__]
    config.save_pretrained(folder)
    weights = {name: x.contiguous() for name, x in shell.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(exported: Exported, tokenizer: Tokenizer, folder: Path) -> None:
    values = {
        "tokenizer_class": RWKVTokenizer.__name__,
        "auto_map": {
            "AutoTokenizer": [
                f"{FACES['fstune.export.hf_tokenizer']}.{RWKVTokenizer.__name__}",
                None,
            ]
        },
        "ids": exported.model.config.vocab_size,
        "vocabulary": tokenizer.name,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=1) + "\n")


def _sources(mechanisms: Sequence[str]) -> dict[str, str]:
    """The text of every file of code, by name without suffix."""
    found: dict[str, str] = {}
    open_modules = list(FACES)
    while open_modules:
        module = open_modules.pop()
        if _flat(module) not in found:
            text = _registered(mechanisms) if module == _MECHANISMS else _source(module)
            found[_flat(module)] = _side_by_side(text)
            open_modules += [needed for node in _own_imports(text) for needed in _modules(node)]
    return found


def _registered(mechanisms: Sequence[str]) -> str:
    """The text of `hf_mechanisms` for a model that has these."""
    kinds = {name: type(registry.get(name)) for name in mechanisms}
    lines = ['"""What acts in this model, by its mechanism\'s name."""', ""]
    lines += [f"from {kind.__module__} import {kind.__name__}" for kind in kinds.values()]
    known = ", ".join(f'"{name}": {kind.__name__}()' for name, kind in kinds.items())
    return "\n".join([*lines, "", f"KNOWN = {{{known}}}", "", _BUILD])


_BUILD = """
def build(name, config, settings):
    return KNOWN[name].build(config, KNOWN[name].settings_of(settings))
"""


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _flat(module: str) -> str:
    """The name of a module's file in the folder: model.wkv.triton is wkv_triton."""
    return FACES.get(module) or module.removeprefix("model.").replace(".", "_")


def _own_imports(text: str) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            ours = node.module in FACES or node.module.split(".")[0] == "model"
            yield from [node] if ours else []


def _modules(node: ast.ImportFrom) -> list[str]:
    """The modules that an import names: the one itself, or those that it takes from a package."""
    assert node.module is not None
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return inner if all(map(_is_module, inner)) else [node.module]


def _is_module(name: str) -> bool:
    package = name.rpartition(".")[0]
    spec = importlib.util.find_spec(package)
    is_package = spec is not None and spec.submodule_search_locations is not None
    return is_package and importlib.util.find_spec(name) is not None


def _side_by_side(text: str) -> str:
    """A module's text with the project's imports made relative to one flat folder."""
    lines = text.split("\n")
    for node in _own_imports(text):
        assert node.module is not None
        line, modules = lines[node.lineno - 1], _modules(node)
        if modules == [node.module]:
            line = line.replace(f"from {node.module} import", f"from .{_flat(node.module)} import")
        else:
            indent = line[: node.col_offset]
            # Transformers finds the files that it needs by `from .NAME import` at a line's start.
            line = "\n".join(
                f"{indent}from .{_flat(module)} import __name__ as _\n"
                f"{indent}from . import {_flat(module)} as {module.rpartition('.')[2]}"
                for module in modules
            )
        lines[node.lineno - 1] = line
    return "\n".join(lines)
