"""Specs that name mechanisms and optimisers: what each of them brings is checked like the rest."""

from pathlib import Path
from typing import Any

import pytest
from spec_cases import SMALLEST, loaded, refused

from fstune.arms.arm import ArmSpec, Seeds
from fstune.specs.space import Space
from fstune.specs.template import Start, new_spec
from model.mechanisms import registry

MUON_AGAINST_ADAMW = f"""{SMALLEST}
space:
  train.optimizer: {{choice: [muon]}}
  train.muon.lr: {{log_uniform: [1e-3, 1e-1]}}
baseline: {{train.optimizer: adamw}}
"""


def digest(settings: Any) -> str:
    return ArmSpec(settings, Seeds(0, 1, 2, 3), None, "train", "validation", 1).digest


IDLE = "train.muon: has no effect while train.optimizer is adamw"


@pytest.mark.parametrize(
    ("more", "override", "told"),
    [
        ("", "train.muon.lr=0.1", f"--set train.muon.lr=0.1: {IDLE}"),
        ("train: {muon: {steps: 4}}", "train.optimizer=adamw", f"spec.yaml:7: {IDLE}"),
        (
            "space: {train.muon.lr: {uniform: [0.1, 0.2]}}",
            "search.trials=2",
            "spec.yaml:7: space.train.muon.lr: has no effect while train.optimizer is adamw",
        ),
        (
            "train: {optimizer: muon}",
            "train.muon.lr=0",
            "--set train.muon.lr=0: train.muon.lr: 0 < lr < inf must hold, got 0.0",
        ),
        ("", "train.optimizer=muonn", "got 'muonn'; did you mean 'muon'?"),
    ],
)
def test_what_an_optimiser_has_no_use_for_is_refused(
    tmp_path: Path, more: str, override: str, told: str
) -> None:
    text = f"{SMALLEST}fixed: {{future_seed: {{}}}}\n{more}\n"
    (line,) = refused(tmp_path, text, override)
    assert told in line


def test_candidates_of_an_optimiser_share_the_baseline_that_has_another(tmp_path: Path) -> None:
    spec = loaded(tmp_path, MUON_AGAINST_ADAMW)
    arms = [
        spec.settings({"train.optimizer": "muon", "train.muon.lr": lr}) for lr in (1e-3, 0.02, 1e-1)
    ]
    assert {baseline.train.optimizer for baseline, _ in arms} == {"adamw"}
    assert len({digest(baseline) for baseline, _ in arms}) == 1
    assert len({digest(variant) for _, variant in arms}) == 3


@pytest.mark.parametrize("new", [True, False], ids=["new", "checkpoint"])
@pytest.mark.parametrize("name", registry.names())
def test_what_a_mechanism_offers_for_a_first_search_loads(
    tmp_path: Path, name: str, new: bool
) -> None:
    for num_layers in (2, 4, 12):
        start = Start(None if new else "model.pth", num_layers, name)
        spec = loaded(tmp_path, new_spec("first", "rightcopy", start, "first.yaml"))
        corners = list(Space(spec.space).corners(list(spec.space), limit=64))
        assert corners
        for corner in corners:
            _, variant = spec.settings(corner)
            assert set(variant.mechanisms) == {name}
