"""The same spec gives the same verdicts whichever back end computes the recurrence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from backend_rung import decided

CLOSED, OPEN = -40.0, 2.0
TOLERANCE = {"nll": 2e-3, "token_accuracy": 1 / 32, "exact_match": 1 / 32}
"""Rounding grows over the steps of training; and where two answers are about as likely, one of the
32 examples may be answered otherwise."""


def rungs(backend):
    """What two candidates come to: one whose gate is shut, one whose gate is open."""
    if backend != "triton":
        return decided(backend, [CLOSED, OPEN])
    command = [sys.executable, Path(__file__).parents[1] / "support" / "backend_rung.py"]
    done = subprocess.run(
        [*map(str, command), str(CLOSED), str(OPEN)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def by_reference():
    return rungs("reference")


def test_the_loop_tells_a_shut_gate_from_an_open_one(by_reference):
    assert [rung["verdict"] for rung in by_reference] == ["no effect", "unconfirmed gain"]


@pytest.mark.parametrize(
    "backend",
    ["chunked", pytest.param("triton", marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_verdicts_do_not_depend_on_the_back_end(by_reference, backend):
    if backend == "triton":
        pytest.importorskip("triton", reason="the package triton is not installed")
    for one, other in zip(by_reference, rungs(backend), strict=True):
        assert (list(one["backends"]), list(other["backends"])) == (["reference"], [backend])
        assert other["verdict"] == one["verdict"]
        for name, delta in one["deltas"].items():
            assert other["deltas"][name] == pytest.approx(delta, abs=TOLERANCE[name])
