from pathlib import Path

import pytest
from spec_cases import GOOD, assert_told, loaded, refused

from fstune.specs.yaml import decode, parse

# What is replaced in GOOD, what by, and every line that must come of it.
BROKEN = {
    "repeated key": ("search: {", "name: again\nsearch: {", [
        "19: name: repeated key, first given in line 1"]),
    "repeated key inside": ("lr: 1e-3", "lr: 1e-3, lr: 1e-4", [
        "5: train.lr: repeated key, first given in line 5"]),
    "no is text": ("norm: true", "norm: no", [
        "15: fixed.future_seed.norm: must be true or false, got 'no'"]),
    "1_000 is text": ("train_size: 64", "train_size: 1_000", [
        "4: task.train_size: must be a whole number, got '1_000'"]),
    "alias": ("{choice: [1, 2]}", "*here", [
        "11: is not YAML: aliases are not supported: write the value out"]),
    "tag": ("{choice: [1, 2]}", "!!set {1}", [
        "11: space.future_seed.layer_start: tags are not supported, got set"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_odd_yaml_is_told_line_by_line(tmp_path: Path, case: str) -> None:
    assert_told(tmp_path, *BROKEN[case])


UNREADABLE = {
    "empty": (b"", "spec.yaml:1: is empty"),
    "comments": (b"# nothing\n", "spec.yaml:1: is empty"),
    "a list": (b"\n- a\n", "spec.yaml:2: a spec is `key: value` lines at its top, got a list"),
    "a word": (b"hello", "spec.yaml:1: a spec is `key: value` lines at its top, got a single"),
    "no YAML": (b"name: a\nmodel: {", "spec.yaml:2: is not YAML: "),
    "two documents": (b"name: a\n---\nname: b", "spec.yaml:2: is not YAML: "),
    "latin-1": ("name: ä".encode("latin-1"), "spec.yaml:1: is not UTF-8 text; save"),
    "binary": (b"name: \x00", "spec.yaml:1: is not text: special characters are not allowed"),
    "deep": (b"a: " + b"[" * 3000, "spec.yaml: is nested too deeply"),
    "itself": (b"&a a: *a", "spec.yaml:1: is not YAML: aliases are not supported"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_spec_at_all_is_one_clear_line(tmp_path: Path, case: str) -> None:
    text, expected = UNREADABLE[case]
    lines = refused(tmp_path, text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)


def test_scalars_are_yaml_1_2(tmp_path: Path) -> None:
    text = GOOD.replace("1e-3", "1e-4").replace("length: 4", "length: 0x4, alphabet: on")
    spec = loaded(tmp_path, text)
    assert spec.train.lr == 1e-4
    assert vars(spec.task)["alphabet"] == "on"
    assert vars(spec.task)["length"] == 4


def test_a_byte_order_mark_and_crlf_are_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    read = parse(decode(content, "here"), "here")
    assert read.value == parse(GOOD, "here").value
    assert read.place(("task", "length")) == "here:4"
