"""Near-copies of a chain never fall into two splits, however the pools are laid out."""

from random import Random
from zlib import crc32

import pytest
from task_cases import Bytes, protein_row, write_rows

from tasks import registry
from tasks.parts.chains import marks_of
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES

TASK = registry.get("protein_ss_inplace")
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def chain(stream, length):
    return "".join(stream.choices(RESIDUES, k=length))


def share(one, other, length):
    """Whether two chains have so many residues in common, in a row."""
    runs = {one[i : i + length] for i in range(len(one) - length + 1)}
    return any(other[i : i + length] in runs for i in range(len(other) - length + 1))


@pytest.mark.parametrize("seed", range(20))
def test_chains_with_40_residues_in_common_share_a_mark_and_strangers_none(seed):
    stream = Random(seed)
    common = chain(stream, 40)
    one, other = (
        chain(stream, stream.randrange(80)) + common + chain(stream, stream.randrange(80))
        for _ in range(2)
    )
    assert marks_of(one) & marks_of(other)
    assert not marks_of(one) & marks_of(chain(stream, 200) + common[:23])
    runs = [one[i : i + 24] for i in range(len(one) - 23)]
    assert marks_of(one) == {
        min(runs[i : i + 17], key=lambda run: crc32(run.encode()))
        for i in range(max(1, len(runs) - 16))
    }


def test_marks_are_few_and_short_chains_have_at_least_one():
    stream = Random(0)
    assert len(marks_of(chain(stream, 1000))) < 200
    assert len(marks_of(chain(stream, 24))) == 1
    assert marks_of(chain(stream, 23)) == frozenset()


def near_copy(row, number):
    """The chain with one residue exchanged and another end, as mutants and constructs are."""
    stream = Random(f"copy {number}")
    residues, states = row["Sequence"], row["Secondary_structure"]
    place = stream.randrange(len(residues))
    mutant = residues[:place] + "W" + residues[place + 1 :]
    tag = chain(stream, 6)
    return row | {"Sequence": mutant + tag, "Secondary_structure": states + "C" * 6}


@pytest.mark.parametrize("layout", ["three files", "two files", "one file"])
def test_near_copies_feed_one_split(tmp_path, layout):
    rows = [protein_row(n, length=90) for n in range(120)]
    copies = [near_copy(row, n) for n, row in enumerate(rows)]
    strangers = [protein_row(n, length=90) for n in range(1000, 1060)]
    more = [protein_row(n, length=90) for n in range(2000, 2060)]
    parts = {
        "three files": [
            rows[:60] + copies[60:90] + more,
            rows[60:] + strangers,
            copies[:60] + strangers,
        ],
        "two files": [rows[:60] + strangers, copies[:30] + rows[60:] + copies[60:]],
        "one file": [rows + copies + strangers],
    }[layout]
    paths = [
        str(write_rows(tmp_path / f"{n}.jsonl", [row | {"PDB_ID": "x"} for row in part]))
        for n, part in enumerate(parts)
    ]
    files = Files(paths[0], paths[min(1, len(paths) - 1)], *paths[2:])
    sizes = {
        "train_size": 55,
        "validation_size": 25,
        "test_size": 60 if layout == "two files" else 20,
    }
    settings = TASK.Settings(**sizes, files=files, min_residues=60)
    shown = {}
    for name in SPLIT_NAMES:
        split = load_split(TASK, settings, name, Bytes(), tmp_path / "cache", [])
        shown[name] = [split.example(index).reference for index in range(len(split))]
        if name == "train":
            assert split.dropped["near-copies of rows that another split holds"] > 0
    assert all(len(shown[name]) == sizes[f"{name}_size"] for name in SPLIT_NAMES)
    for name, others in (("train", ("validation", "test")), ("test", ("validation",))):
        for other in others:
            assert not any(share(a, b, 40) for a in shown[name] for b in shown[other])
