"""One wording each for shares, times and counts."""

import re
from pathlib import Path

import pytest

from fstune.report.phrases import at_rung, duration, percent, trivial_scores

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("wall_s", "told"),
    [
        (0.0, "0 s"),
        (0.4217, "0.42 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (119.0, "1 min 59 s"),
        (3599.6, "1 h 0 min"),
        (90_061.0, "1 d 1 h"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(wall_s, told):
    assert duration(wall_s) == told


def test_a_share_is_told_to_three_digits():
    assert [percent(share) for share in (0.95, 0.98125, 0.05)] == ["95 %", "98.1 %", "5 %"]


def test_one_seed_is_no_seeds():
    assert at_rung(120, 3) == "120 steps × 3 seeds"
    assert at_rung(60, 1) == "60 steps × 1 seed"


def test_only_strategies_that_have_the_metric_are_told():
    guesses = {"chance": {"nll": 2.5}, "copy": {"exact_match": 1.0}}
    assert trivial_scores(guesses, "nll") == "chance 2.5000"
    assert trivial_scores(guesses, "q8_accuracy") == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_write_per_cent_as_the_program_does(page):
    assert not re.findall(r"\d%", page.read_text(encoding="utf-8"))
