import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from spec_cases import GOOD, loaded, read, refused

from fstune.errors import InputError, SpecError
from fstune.specs.loading import (
    find,
    load,
    locate,
    read_resolved,
    shipped,
    write_resolved,
)


def test_what_was_read_is_kept_to_the_byte(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    made = load(file, ["train.lr=1e-5"])
    file.write_text("name: another")
    assert (made.path, made.text) == (file, content)


PROBING = GOOD.replace("batch_size: 8", "batch_size: probe")


def test_a_batch_size_to_be_probed_is_known_once_it_was(tmp_path: Path) -> None:
    made = read(tmp_path, PROBING)
    assert made.probes
    known = made.with_batch_size(8)
    assert not known.probes
    assert known.spec == loaded(tmp_path)
    assert not read(tmp_path, PROBING, "train.batch_size=2").probes
    assert read(tmp_path, GOOD, "train.batch_size=probe") == replace(made, text=GOOD.encode())


def test_a_probed_batch_size_that_the_baseline_was_to_differ_by_is_refused(tmp_path: Path) -> None:
    made = read(tmp_path, PROBING, "baseline.train.batch_size=8")
    assert made.with_batch_size(4).spec.baseline == {"train.batch_size": 8}
    with pytest.raises(SpecError) as caught:
        made.with_batch_size(8)
    assert caught.value.problems == (
        "small: baseline.train.batch_size: has no effect: it is 8 in both arms",
    )


def test_all_problems_are_told_at_once_and_in_order(tmp_path: Path) -> None:
    text = (
        GOOD.replace("length: 4", "lenght: 4")
        .replace("lr: 1e-3", "lr: -1")
        .replace("seeds: 2", "seeds: 2, seeds: 3")
        .replace("[1, 2]", "[1, 4]")
        .replace("uniform: [-4.0, 2]", "uniform: [2]")
        .replace("norm: true", "norm: 3")
        .replace("steps: 30", "steps: 3")
    )
    lines = refused(tmp_path, text, "search.seed=-1")
    assert [line.split(": ")[0] + ": " + line.split(": ")[1] for line in lines] == [
        "--set search.seed=-1: search.seed",
        "spec.yaml:4: task.lenght",
        "spec.yaml:5: train.lr",
        "spec.yaml:9: rungs.1.seeds",
        "spec.yaml:9: rungs.1.steps",
        "spec.yaml:11: space.future_seed.layer_start",
        "spec.yaml:12: space.future_seed.alpha.uniform",
        "spec.yaml:15: fixed.future_seed.norm",
    ]


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_search_loads(name: str, tmp_path: Path) -> None:
    spec = load(find(name)).spec
    assert spec.name == name
    assert find(f"{name}.yaml") == find(name)
    write_resolved(spec, tmp_path / "spec.json")
    assert read_resolved(tmp_path / "spec.json") == spec
    for point in spec.points:
        spec.settings(point)


def test_a_search_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"did you mean 'quickstart'.*hotpot_len4096, hotpot_tiny"):
        find("quickstrat")


def test_a_resolved_spec_reads_back_identically(tmp_path: Path) -> None:
    spec = loaded(tmp_path, GOOD, "train.lr_schedule=linear", "baseline.train.lr=0.5")
    file = tmp_path / "spec.json"
    write_resolved(spec, file)
    again = read_resolved(file)
    assert again == spec
    assert again.digest == spec.digest
    write_resolved(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()
    file.write_text(file.read_text().replace('"name"', '"nome"'))
    with pytest.raises(SpecError, match="is not a resolved spec"):
        read_resolved(file)


HOTPOT = """\
name: least
model: {checkpoint: weights/m.pth}
task:
  {name: hotpot, train_size: 6, validation_size: 6, files: {train: t.jsonl, validation: v.jsonl}}
rungs: [{steps: 10}]
search: {trials: 1}
fixed: {future_seed: {layer_start: 4}}
"""


def test_files_are_found_below_the_first_data_folder_that_has_them(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for file in (
        first / "t.jsonl",
        second / "t.jsonl",
        second / "v.jsonl",
        second / "weights/m.pth",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    made = read(tmp_path, HOTPOT)
    resolved = made.resolved([first, second], lambda _: 5)
    found = resolved.spec
    assert found.model.checkpoint == str(second / "weights/m.pth")
    files = vars(found.task)["files"]
    assert (files.train, files.validation) == (str(first / "t.jsonl"), str(second / "v.jsonl"))
    assert found.digest == made.spec.digest
    assert resolved.resolved([], lambda _: 5) == resolved
    write_resolved(found, tmp_path / "spec.json")
    assert read_resolved(tmp_path / "spec.json") == found


def test_a_checkpoint_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    for file in ("t.jsonl", "v.jsonl", "weights/m.pth"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    made = read(tmp_path, HOTPOT)
    with pytest.raises(SpecError) as caught:
        made.resolved([], lambda _: 4)
    assert caught.value.problems == (
        "least: fixed.future_seed.layer_start: must be under 4, the number of layers, got 4",
    )


def test_missing_files_are_all_told_with_every_place(tmp_path: Path) -> None:
    made = read(tmp_path, HOTPOT)
    with pytest.raises(InputError) as caught:
        made.resolved([tmp_path / "a", tmp_path / "b"], lambda _: 4)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["weights/m.pth", "t.jsonl", "v.jsonl"]
    for line, name in zip(lines, ("weights/m.pth", "t.jsonl", "v.jsonl"), strict=True):
        places = [tmp_path / folder / name for folder in ("a", "b", "")]
        assert ", ".join(map(str, places)) in line, "the spec's own folder is the last"


def test_an_absolute_path_is_looked_for_there_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for it at /nowhere/m\.pth$"):
        locate("/nowhere/m.pth", [tmp_path])


def test_a_spec_loads_without_torch_ray_mlflow_or_optuna() -> None:
    code = (
        "import sys; from fstune.specs.loading import find, load; load(find('quickstart'));"
        "print([name for name in ('torch', 'ray', 'mlflow', 'optuna') if name in sys.modules])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.stdout.strip() == "[]"
