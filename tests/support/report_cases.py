"""Searches whose report is known beforehand, with outcomes and a cached split."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from arm_cases import SPEC, made, outcome, rung_record, spec

from fstune.arms.store import ArmStore
from fstune.files import write_json
from fstune.results.folder import SearchFolder
from fstune.results.records import Confirmation, EndRecord
from fstune.specs.sections import SearchSpec
from tasks.example import Example, Split

MORE = """\
confirm: {finalists: 2, looks: fixed, seeds: 2}
"""
TOKENS = b"L=12|M=__|R=34"
CORRECT = {"base": [0, 1, 2, 1, 0, 2], "variant": [2, 2, 0, 1, 1, 2]}
"""Right guesses of two, per example, of the arms of seed 0; seed 1 turns the examples round."""


def searched(folder: Path, confirmed: bool = True) -> tuple[SearchFolder, SearchSpec]:
    """At the last rung twice (and confirmed), stopped at the first, diverged, and running."""
    made_of = spec(folder, SPEC.replace("size: 6}", "size: 6, test_size: 4}"), MORE)
    records = made(folder, made_of)
    for number in range(5):
        records.write_candidate(number, {"future_seed.alpha": -1.25 - number})
    for number, mean in ((0, 0.2), (1, 0.3)):
        records.write_rung(number, rung_record(0, mean / 2))
        records.write_rung(number, rung_record(1, mean))
        records.write_end(number, EndRecord("completed", "reached the last rung"))
    records.write_rung(2, rung_record(0, 0.05, verdict="inconclusive"))
    records.write_end(2, EndRecord("stopped", "ASHA"))
    records.write_end(3, EndRecord("diverged", "arm x: loss nan at step 7"))
    if confirmed:
        records.write_finalists([1, 0])
        records.write_confirmation(1, Confirmation(rung_record(1, 0.25, verdict="gain"), 1e9))
        records.write_confirmation(0, Confirmation(None, 1e9, "arm y: loss inf at step 3"))
    store_outcomes(records)
    return records, made_of


def store_outcomes(records: SearchFolder) -> None:
    """Outcomes of all arms at the last rung, and the split that they were evaluated on."""
    examples = [Example(tuple(TOKENS), (), (7, 8), (51, 52 + index)) for index in range(6)]
    split = Split.from_examples(examples)
    split.save(records.cache / "rightcopy-validation-0")
    store = ArmStore(records.runs / "arms")
    for name, correct in CORRECT.items():
        for seed in range(2):
            arm = f"{name}{seed}"
            values = np.array(correct if seed == 0 else correct[::-1])
            nll = 4.0 - values + (0.5 if name == "base" else 0.0)
            known = {"arm": arm, "seed_index": seed, "step": 4, "train_tokens": 100}
            known["diagnostics"] = {} if name == "base" else {"gate/L01": 0.25, "gate/L01.H0": 0.5}
            store.save_outcome(outcome(values, 2, nll, **known, train_wall_s=1.5))
            write_json(store.root / arm / "arm.json", {"evaluated_digest": split.digest})


class Page(HTMLParser):
    """What a test asks of a page: links, scripts, ids, and the rows of each table."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.tables: list[list[list[tuple[str | None, str]]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs)

    def _start(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.handlers += [name for name in values if name.startswith("on")]
        self.links += [values[name] or "" for name in ("href", "src") if name in values]
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append((values.get("data-value"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self._open[-2:]):
            value, text = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((value, text + data))
