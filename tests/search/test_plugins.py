"""A mechanism and an optimiser of another package are searched, reported, verified and exported."""

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from search_process import NAME, SPEC, Place

from model.checkpoint import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from model.mechanisms.acting import Acting
from model.mechanisms.mechanism import Mechanism
from model.optimizers.optimizer import Optimizer


@dataclass(frozen=True)
class OffsetSettings:
    size: float = 0.5
    "Of every entry before training."
    lr: float = 0.01
    "Learning rate of the offsets."

    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}


class Offsets(Acting):
    def __init__(self, config, settings):
        super().__init__(config, settings)
        self.offset = torch.nn.Parameter(torch.full((config.num_layers,), settings.size))

    def before_layer(self, layer, carried, last_BC):
        return self.offset[layer].expand_as(carried[layer].wkv_BHVK)

    def values(self):
        return {f"offset/L{layer:02d}": float(x) for layer, x in enumerate(self.offset.detach())}


class Offset(Mechanism):
    name, title = "offset", "an offset"
    summary = "every entry of a layer's state begins a little higher"
    Settings, rate, parameters = OffsetSettings, "lr", "offsets"

    def build(self, config, settings):
        return Offsets(config, settings)


@dataclass(frozen=True)
class DescentSettings:
    momentum: float = 0.9
    "Decay rate of the running sum."

    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}


class Descent(Optimizer):
    name, Settings = "descent", DescentSettings

    def build(self, model, shared, settings):
        return [torch.optim.SGD(model.parameters(), shared.lr, settings.momentum)]

    def state_bytes(self, name, shape):
        return 4
"""
ENTRY_POINTS = """
[fstune.mechanisms]
offset = elsewhere:Offset
[fstune.optimizers]
descent = elsewhere:Descent
"""
SEARCHED = f"""{SPEC.partition("space:")[0]}space:
  offset.size: {{uniform: [0.25, 0.75]}}
  train.optimizer: {{choice: [descent]}}
  train.descent.momentum: {{choice: [0.0, 0.5]}}
baseline: {{train.optimizer: adamw}}
search: {{trials: 2}}
resources: {{gpus: 0, cpu_threads: 1, keep_checkpoints: all}}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search, made where the package is installed; later commands see it too."""
    folder = tmp_path_factory.mktemp("elsewhere")
    metadata = folder / "elsewhere-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "elsewhere.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
        place = Place(folder, SEARCHED)
        assert place.search().wait() == 0, place.output()
        yield place


def typed(place, *arguments):
    """Exit code, output and errors of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "fstune.cli", *arguments, "--runs", str(place.runs)],
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_report_shows_both_and_the_records_verify(searched):
    trials = searched.report()["trials"]
    assert {path for trial in trials for path in trial["candidate"]} == {
        "offset.size",
        "train.optimizer",
        "train.descent.momentum",
    }
    shown = [line for line in searched.table() if "train.optimizer=descent" in line]
    assert len(shown) == 2
    assert all(line.strip().startswith("offset.size=0.") for line in shown)
    code, told, errors = typed(searched, "verify", NAME)
    assert code == 0, told + errors


def test_the_official_layout_has_its_parameters_beside_it(searched):
    out = searched.folder / "model.pth"
    code, _, errors = typed(searched, "export", NAME, "--to", "pth", "--out", str(out))
    assert code == 0, errors
    assert load(out).config.num_layers == 2
    parameters = load_file(out.with_name("model.offset.safetensors"))
    assert list(parameters) == ["offset"]
    assert len(parameters["offset"].unique()) == 2, "each layer's offset has learnt"


def test_a_folder_for_transformers_is_refused_since_its_code_cannot_go_along(searched):
    out = searched.folder / "exported"
    code, _, errors = typed(searched, "export", NAME, "--to", "hf", "--out", str(out))
    assert (code, out.exists()) == (2, False)
    assert errors == (
        "the model cannot be exported for transformers: its mechanism offset is the package "
        "elsewhere's, whose code cannot go along; --to pth writes its parameters\n"
    )
