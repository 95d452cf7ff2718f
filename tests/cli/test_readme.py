"""What the README tells people to type is there to be typed."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from fstune.cli import commands as cli
from fstune.specs import loading as spec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"(?:`|&& |^)fstune ([a-z]+)(?: ([A-Za-z0-9_.-]+))?", README, re.MULTILINE)


@pytest.mark.parametrize(("command", "argument"), sorted(set(COMMANDS)))
def test_a_command_exists_and_a_shipped_search_is_shipped(command, argument):
    assert command in typer.main.get_command(cli.app).commands
    if command in ("search", "confirm") and argument and argument.islower():
        assert argument.removesuffix(".yaml") in spec.shipped()


def test_every_command_is_in_the_table():
    listed = set(re.findall(r"^\| `fstune ([a-z]+)", README, re.MULTILINE))
    assert listed == set(typer.main.get_command(cli.app).commands)


def test_the_examples_keys_are_a_specs_keys():
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert set(yaml.safe_load(example)) <= set(spec.SearchSpec.model_fields)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_a_link_leads_somewhere(link):
    assert (ROOT / link).exists()
