"""What the pages in `docs` tell people to type can be typed, and does what they say."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import typer
from doc_pages import DATA, DOCS, PAGES, ROOT, Block, Desk, blocks, commands, text_of, typed

from fstune.cli import commands as cli

LINKS = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)\)", text_of(page))]
# The change log tells what was; DESIGN.md what was decided, under the names of the time.
CURRENT = [
    ROOT / "README.md",
    *(path for path in sorted(DOCS.glob("*.md")) if path.stem not in ("CHANGELOG", "DESIGN")),
]
TYPED = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), TYPED, ids=[f"{page}: {' '.join(each)}" for page, each in TYPED]
)
def test_a_command_is_one_with_these_options(page, command):
    name, *arguments = command
    known = typer.main.get_command(cli.app).commands
    assert name in known
    known[name].make_context(name, list(arguments), resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_commands_and_each_is_one_that_is_run(page):
    assert commands(page)
    words = [[word for word in line.split() if "=" not in word] for line in typed(page)]
    first = {each[each[0] == "exec"] for each in words}
    assert first <= {"fstune", "python", "pip", "head", "ray", "export", "bash", "lm_eval"}


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page, link):
    assert (DOCS / link).exists()


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_a_source_file_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:fstune|model|tasks|tests)/[\w/]+\.py)", page.read_text("utf-8"))
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_page_is_known_here():
    assert {f"{page}.md" for page in PAGES} <= {path.name for path in DOCS.glob("*.md")}


@pytest.fixture
def desk(tmp_path):
    found = Desk(tmp_path)
    yield found
    found.close()


def test_a_task_of_ones_own_takes_60_lines_and_is_a_task_like_any_other(desk):
    page = blocks("own_task")
    files = {block.word: block.text for block in page if block.is_file}
    lines = [files["tickets.py"], files["pyproject.toml"]]
    assert sum(len([line for line in text.splitlines() if line]) for text in lines) <= 60
    for block in page:
        if block.is_file:
            desk.carry_out(block)
    # As pip would lay it down, without the seconds that pip takes.
    entry_points = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]
    metadata = desk.site / "tickets-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tickets\nVersion: 1\n")
    (named,) = entry_points["fstune.tasks"].items()
    (metadata / "entry_points.txt").write_text(f"[fstune.tasks]\n{named[0]} = {named[1]}\n")
    desk.environment["PYTHONPATH"] += f"{os.pathsep}{desk.folder}"
    shown = next(block.text for block in page if "⟦" in block.text and block.language == "text")
    script = [block.text for block in page if "--spec first.yaml" in block.text]
    wanted = [
        "python make_rows.py",
        *(line for line in script[0].splitlines() if "doctor" not in line),
    ]
    done = subprocess.run(
        ["bash", "-euc", "\n".join(wanted)],
        cwd=desk.folder,
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.strip() in done.stdout, done.stderr
    assert "name: tickets" in (desk.folder / "first.yaml").read_text()


def test_the_change_of_the_mechanism_fits_the_code_and_does_what_it_says(tmp_path):
    (change,) = [block for block in blocks("own_mechanism") if block.language == "diff"]
    copy = _copied(tmp_path, change)
    desk = Desk(tmp_path, copy)
    for block in blocks("own_mechanism"):
        if block.is_file:
            desk.carry_out(block)
    tests = [block.word for block in blocks("own_mechanism") if block.word.startswith("test_")]
    assert tests
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=desk.folder,
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _copied(folder, change: Block):
    """The rooms of the repository with a change made to them."""
    copy = folder / "repository"
    for room in ("fstune", "model", "tasks", "search_spaces"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "change.diff").write_text(change.text)
    subprocess.run(["git", "apply", "../change.diff"], cwd=copy, check=True)
    return copy


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_carried_out_from_top_to_bottom(page, tmp_path):
    if "--data DIR" in "".join(typed(page)) and not DATA.exists():
        pytest.skip(f"no data in {DATA}")
    source = ROOT
    for block in blocks(page):
        if block.language == "diff":
            source = _copied(tmp_path, block)
    desk = Desk(tmp_path, source)
    try:
        for block in blocks(page):
            desk.carry_out(block)
    finally:
        desk.close()
