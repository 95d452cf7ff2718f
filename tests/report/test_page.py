"""The report as a reader meets it: a page, a text, files, and the page in a browser."""

import base64
import csv
import dataclasses
import io
import json
import random
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from arm_cases import made, rung_record, spec
from report_cases import Page, searched

from fstune.report.data import as_json
from fstune.report.drawing import ROLES
from fstune.report.figures import page_svg
from fstune.report.page import DESCRIBED_ROWS, markdown, page, write_figures, write_page
from fstune.report.series import Curve, CurveStep, SlicePoint, Slices
from fstune.report.summary import Figure, summarise
from fstune.results.folder import SearchFolder
from fstune.results.records import EndRecord
from fstune.specs.sections import SearchSpec

MOST_BYTES = 3_000_000
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=\"document.title='owned'\"> | `$x$` & ⟦"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> tuple[SearchFolder, SearchSpec]:
    return searched(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def text(search) -> str:
    return page(summarise(*search))


def hostile(folder: Path) -> tuple[SearchFolder, SearchSpec]:
    """A search whose values and reasons would like to be more than text."""
    made_of = spec(folder)
    records = made(folder, made_of)
    for number in range(2):
        records.write_candidate(number, {"future_seed.alpha": HOSTILE + str(number)})
        records.write_rung(number, rung_record(0, 0.1))
        records.write_end(number, EndRecord("stopped", HOSTILE))
    return records, made_of


def data_of(link: str) -> str:
    """What a data link holds."""
    return base64.b64decode(link.partition("base64,")[2]).decode()


def test_the_page_holds_the_numbers_of_the_json(search, text):
    header, *rows = Page(text).tables[-1]
    place = {title: at for at, (_, title) in enumerate(header)}
    found = {int(row[0][0]): row for row in rows}
    wanted = as_json(*search)["trials"]
    assert sorted(found) == [trial["number"] for trial in wanted]
    for trial in wanted:
        row = found[trial["number"]]
        assert row[place["verdict"]][0] == trial["verdict"]
        assert float(row[place["alpha"]][0]) == trial["candidate"]["future_seed.alpha"]
        if not trial["rungs"]:
            assert row[place["Δ"]] == (None, "–")
            continue
        rung = trial["rungs"][-1]
        delta = rung["delta"]["token_accuracy"]
        values = {
            "steps": rung["steps"],
            "seeds": rung["seeds"],
            "baseline": rung["baseline"]["token_accuracy"],
            "variant": rung["variant"]["token_accuracy"],
            "Δ": delta["mean"],
            "low": delta["low"],
            "high": delta["high"],
            "q": trial["q_value"],
        }
        assert {title: float(row[place[title]][0]) for title in values} == values


def test_the_page_says_what_may_be_luck(search, text):
    found = as_json(*search)["selection_corrected"]
    assert "3 candidates were compared" in text
    assert f"{found['mean']:+.4f} on the other half, against {found['naive']:+.4f}" in text
    best, share = found["picked"][0]["trial"], found["picked"][0]["share"]
    assert f"candidate {best} in {100 * share:.0f} %" in text
    head = next(table[0] for table in Page(text).tables if len(table) == 3)
    assert "q" not in [title for _, title in head]  # a confirmation is not adjusted a second time
    assert "in the confirmation, where it is a 99 % interval" in text


def test_the_page_needs_nothing_from_outside(text):
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"https?://|//[a-z]+\.|@import", text)
    found = Page(text)
    assert all(link.startswith(("data:", "#")) for link in found.links)
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert len(found.ids) == len(set(found.ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(found.ids)


def test_a_mark_of_a_candidate_is_small(tmp_path):
    # Two drawings of some settings for each of hundreds of candidates: they make a page large.
    stream, paths = random.Random(0), [f"future_seed.{name}" for name in ("alpha", "clip")]
    points = [
        SlicePoint(number, {path: stream.random() for path in paths}, 0.1, 0.0, 0.2, 1)
        for number in range(300)
    ]
    figure = Figure("slices", "", "", Slices("nll", 0.01, "", paths, [], points))
    assert len(page_svg(figure, narrow=True)) < 220 * len(points) * len(paths)


def test_every_figures_numbers_can_be_taken_along(search, text):
    summary = summarise(*search)
    tables = [data_of(link) for link in Page(text).links if link.startswith("data:text/csv")]
    for figure in (*summary.figures, *summary.curves):
        assert figure.sheet().csv() in tables
    forest = next(rows for rows in map(_rows, tables) if "delta of each seed" in rows[0])
    wanted = {trial["number"]: trial for trial in as_json(*search)["trials"]}
    for row in forest:
        if not row["compared at"].startswith("confirmation"):
            delta = wanted[int(row["trial"])]["rungs"][-1]["delta"]["token_accuracy"]
            assert [float(row[name]) for name in ("delta", "low", "high")] == [
                delta[name] for name in ("mean", "low", "high")
            ]
    (report,) = [d for link in Page(text).links if '"best"' in (d := data_of(link))]
    assert json.loads(report) == json.loads(json.dumps(as_json(*search)))


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_page_says_how_to_do_it_again(search, text):
    records, made_of = search
    assert records.spec_text() in [data_of(link) for link in Page(text).links]
    assert "fstune search small.spec.json --runs again" in text
    assert made_of.digest in text


def test_examples_are_shown_in_the_metric_that_picked_them(search, tmp_path):
    records, made_of = search
    by_nll = made_of.model_copy(
        update={"objective": made_of.objective.model_copy(update={"metric": "nll"})}
    )
    for objective, shown in ((made_of, False), (by_nll, True)):
        summary = summarise(records, objective)
        tables = [table for table in Page(page(summary)).tables if table[0][0][1] == "example"]
        best = summary.examples.gained[0]
        header, row = ([text for _, text in cells] for cells in tables[0][:2])
        assert ("baseline: nll" in header) == shown
        if shown:
            at = header.index("baseline: nll")
            assert row[at : at + 2] == [f"{best.baseline:.4f}", f"{best.variant:.4f}"]


def test_many_right_tokens_are_counted_in_full(search):
    summary = summarise(*search)
    gained = [
        dataclasses.replace(at, tokens=300, variant_right=123.25) for at in summary.examples.gained
    ]
    examples = dataclasses.replace(summary.examples, gained=gained)
    told = dataclasses.replace(summary, examples=examples)
    assert "<td>123.2 of 300</td>" in page(told)


def test_hostile_values_stay_text(tmp_path):
    found = Page(page(summarise(*hostile(tmp_path))))
    assert found.tags.count("script") == 1
    assert found.handlers == []
    assert "img" not in found.tags
    shown = {value for row in found.tables[-1][1:] for value, _ in row}
    assert {HOSTILE + "0", HOSTILE + "1"} <= shown


def test_colours_of_figures_are_the_pages_own(text):
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) > 10
    for figure in figures:
        assert not any(colour in figure for colour in ROLES)
        assert "var(--ink)" in figure
        assert not re.search(r"#[0-9a-f]{6}\b", figure)


def test_a_search_without_a_rung_has_a_page(tmp_path):
    made_of = spec(tmp_path)
    records = made(tmp_path, made_of)
    for number in range(2):
        text = page(summarise(records, made_of))
        assert "No candidate has reached a rung" in text
        assert "<svg" not in text
        records.write_candidate(number, {"future_seed.alpha": 0.0})


def test_markdown_holds_the_table_of_the_page(search, text):
    lines = markdown(summarise(*search)).splitlines()
    tables = [_cells(line) for line in lines if line.startswith("| ")]
    _, *rows = Page(text).tables[-1]
    shown = [[cell for _, cell in row] for row in rows]
    assert tables[-len(rows) :] == shown
    head = "\n".join(lines[:8])
    assert "**Yes: gain.**" in head
    assert "Δ +0.2500" in head


def _cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table, escapes undone."""
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in cells]


def test_hostile_values_stay_in_their_cells_in_markdown(tmp_path):
    lines = markdown(summarise(*hostile(tmp_path))).splitlines()
    table = [_cells(line) for line in lines if line.startswith("| ")]
    assert len({len(row) for row in table}) == 1
    assert any(HOSTILE + "0" in row for row in table)
    assert not re.search(r"(?<!\\)<(script|img)", "\n".join(lines))


def test_a_long_table_is_cut_for_a_description(tmp_path):
    made_of = spec(tmp_path)
    records = made(tmp_path, made_of)
    for number in range(DESCRIBED_ROWS + 3):
        records.write_candidate(number, {"future_seed.alpha": float(number)})
    summary = summarise(records, made_of)
    whole, cut = markdown(summary), markdown(summary, DESCRIBED_ROWS)
    assert whole.count("\n| ") - cut.count("\n| ") == 3
    assert "3 more are in report.html" in cut
    assert "more are in" not in whole


def test_page_and_table_are_kept_beside_the_records(search, text):
    written = write_page(*search)
    assert written.html == search[0].root / "report.html"
    assert written.html.read_text(encoding="utf-8") == text
    assert len(_rows(written.table.read_text(encoding="utf-8"))) == 5
    assert written.description.startswith("# small\n")


def test_figures_are_written_as_pictures_and_numbers(search, tmp_path):
    paths = write_figures(*search, tmp_path / "figures")
    stems = {path.stem for path in paths}
    assert {"forest", "path", "slices", "curve-0", "curve-1"} <= stems
    assert len(paths) == 3 * len(stems)
    for path in paths:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        elif path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert _rows(path.read_text(encoding="utf-8"))


def test_an_interval_beside_its_mean_is_no_obstacle(tmp_path):
    step = CurveStep(2, 1, 0.0, 1 / 3, 1 / 3, 1 / 3 + 1e-16, 1 / 3 - 1e-16)
    series = Curve(0, "0", "token_accuracy", 0.01, [(2, 1)], [step])
    assert page_svg(Figure("curve-0", "", "", series), narrow=False).startswith("<svg")


def test_the_report_reaches_neither_torch_nor_ray_and_draws_only_when_asked():
    heavy = {"torch", "ray", "mlflow", "matplotlib", "jinja2", "optuna"}
    code = f"import sys, fstune.report.page; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def in_browser(tmp_path_factory) -> Any:
    """What a browser has made of a page once its script has run."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser here: looked for {', '.join(BROWSERS)}")
    folder = tmp_path_factory.mktemp("browser")

    def in_browser(text: str) -> str:
        file = folder / "page.html"
        file.write_text(text, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/data"]
        done = subprocess.run(
            [browser, *options, "--dump-dom", file.as_uri()],
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
        return done.stdout

    return in_browser


def test_a_browser_runs_the_pages_script_and_no_other(in_browser, tmp_path):
    dom = in_browser(page(summarise(*hostile(tmp_path))))
    assert re.search(r'<html[^>]* class="scripted"', dom)
    assert len(re.findall(r'class="curve chosen"', dom)) == 1
    assert len(re.findall(r'class="curve"', dom)) == 1
    assert "<title>small – fstune</title>" in dom


def test_a_browser_sorts_the_table(in_browser, text):
    # The page's policy admits no script beside its own: the test's copy has none.
    clicks = "document.querySelectorAll('th button')[0].click();"
    unlocked = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    dom = in_browser(unlocked.replace("</body>", f"<script>{clicks}</script></body>"))
    body = dom[dom.index('<table class="sortable"') :]
    numbers = re.findall(r'<tr><td class="number" data-value="(\d+)"', body)
    assert numbers == ["0", "1", "2", "3", "4"]
    assert 'aria-sort="ascending"' in body
