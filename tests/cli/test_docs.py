"""What the pages in `docs` tell people to type can be typed, and does what they say."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import typer
from doc_pages import DATA, DOCS, PAGES, ROOT, Desk, blocks, commands, text_of, typed

from fstune.cli import commands as cli

LINKS = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)\)", text_of(page))]
# The change log names things as they were called at the time.
CURRENT = [
    ROOT / "README.md",
    *(path for path in sorted(DOCS.glob("*.md")) if path.stem != "CHANGELOG"),
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
    installed(desk, "tickets", files["pyproject.toml"])
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


LOADS = "from fstune.specs.loading import find, load; load(find('content.yaml'))"


def test_a_mechanism_of_ones_own_is_one_file_and_does_what_its_page_says(desk):
    page = blocks("own_mechanism")
    files = {block.word: block.text for block in page if block.is_file}
    assert len([line for line in files["transposed.py"].splitlines() if line]) <= 60
    for block in page:
        if block.is_file:
            desk.carry_out(block)
    installed(desk, "transposed", files["pyproject.toml"])
    for command in (
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_transposed.py"],
        [
            sys.executable,
            "-c",
            "from fstune.specs.loading import find, load; load(find('content.yaml'))",
        ],
    ):
        done = subprocess.run(
            command,
            cwd=desk.folder,
            env=desk.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def installed(desk, package, project):
    """A package in the desk's folder as pip would lay it down, without pip's seconds."""
    metadata = desk.site / f"{package}-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    groups = tomllib.loads(project)["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join([*lines, ""]))
    desk.environment["PYTHONPATH"] += f"{os.pathsep}{desk.folder}"


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_carried_out_from_top_to_bottom(page, tmp_path):
    if "--data DIR" in "".join(typed(page)) and not DATA.exists():
        pytest.skip(f"no data in {DATA}")
    desk = Desk(tmp_path)
    try:
        for block in blocks(page):
            desk.carry_out(block)
    finally:
        desk.close()
