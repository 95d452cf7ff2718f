"""What a user is told of a broken spec, a missing file or a wrong command: to the letter."""

import re

import pytest
from broken_cases import FOLDER, run, specs, transcript

TOLD = transcript()
# A file with its line, a path in the spec or on the disk, an option: then what is wrong.
PLACE = re.compile(r"(--set .+?|[\w./…-]+(:\d+)?|hotpot train|rightcopy train): \S.*")
SENTENCE = re.compile(r"no (search|task) is called '\w+'.*; known: .+|.*known: .+|--\w+ needs --.+")
MOST_LINES = 6


@pytest.mark.parametrize("command", TOLD)
def test_a_fault_is_told_as_in_the_transcript_and_exits_2(command):
    assert run(command) == (2, TOLD[command])


@pytest.mark.parametrize("command", TOLD)
def test_each_line_names_a_place_and_says_what_is_wrong_there(command):
    lines = TOLD[command].splitlines()
    assert 1 <= len(lines) <= MOST_LINES
    assert "Traceback" not in TOLD[command]
    if lines[0].startswith("Usage: "):  # Typer's own box
        assert "─ Error ─" in TOLD[command]
        return
    for line in lines:
        assert PLACE.fullmatch(line) or SENTENCE.fullmatch(line), line


def test_every_broken_spec_is_in_the_transcript_and_there_are_enough():
    searched = {command.removeprefix("fstune search ") for command in TOLD}
    assert set(specs()) <= searched
    assert len(specs()) >= 40


@pytest.mark.parametrize("name", [name for name in specs() if name[:-5] not in ("prose", "empty")])
def test_a_specs_line_number_is_that_of_its_fault(name):
    """The last key that a message's path names stands in the line that it tells, or is missing."""
    lines = (FOLDER / name).read_bytes().decode("utf-8", "replace").splitlines()
    for told in TOLD[f"fstune search {name}"].splitlines():
        found = re.match(rf"{re.escape(name)}:(\d+): ([\w.]+): (.*)", told)
        if found is None or "must be given" in told:
            continue
        number, path, _ = found.groups()
        keys = [part for part in path.split(".") if not part.isdecimal()]
        start = next(n for n in range(int(number), 0, -1) if lines[n - 1][:1].strip())
        assert keys[-1] in lines[int(number) - 1] or keys[0] in lines[start - 1]
