"""How a backend is chosen where the call leaves it open."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from wkv_cases import make_operands

from model.wkv import agreement
from model.wkv.agreement import agreed, share_choices
from model.wkv.backends import BACKENDS, Backend, Call
from model.wkv.choice import MARGIN, ShapeClass, choose, chosen, measure, survey


def make_call(length, *, grad=False):
    r, log_decay, k, v, a, b, s0 = (x.float() for x in make_operands(length, size=32))
    r.requires_grad_(grad)
    return Call((r, log_decay, k, v, a, b), s0, None, low_precision=False)


def sleeping(seconds):
    """The loop, slowed down."""

    def run(call):
        time.sleep(seconds)
        return BACKENDS["reference"].run(call)

    return Backend(run, lambda _: None)


def failing(error):
    def run(call):
        raise error

    return Backend(run, lambda _: None)


SHAPE = ShapeClass("cpu", False, False, 32, 32, 1, 2)


@pytest.mark.parametrize(("length", "name"), [(1, "reference"), (3, "reference"), (4, "chunked")])
def test_on_a_cpu_the_number_of_tokens_decides(length, name):
    assert choose(make_call(length)) == name


def test_the_preferred_backend_is_taken_unless_another_is_quicker_by_the_margin():
    slow, quick = sleeping(0.03), sleeping(0.03 / MARGIN / 2)
    assert measure(SHAPE, make_call(2), {"slow": slow, "quick": quick}).name == "quick"
    assert measure(SHAPE, make_call(2), {"first": quick, "second": quick}).name == "first"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_a_backend_that_runs_out_of_memory_is_not_taken(error):
    choice = measure(SHAPE, make_call(2), {"big": failing(error), "ok": sleeping(0)})
    assert choice.name == "ok"
    assert choice.milliseconds["big"] == float("inf")
    assert choice.failures == {}


NO_COMPILER = """if True:
    import json, sys
    import torch
    from test_wkv_choice import SHAPE, make_call, sleeping
    from triton.runtime.build import compile_module_from_src
    from model.wkv.backends import Backend
    from model.wkv.choice import measure
    def launch(call):
        # What Triton does before its first launch.
        compile_module_from_src("int unused;", "no_such_cached_module", language="c")
    able = {"triton": Backend(launch, lambda _: None), "chunked": sleeping(0)}
    choice = measure(SHAPE, make_call(2), able)
    print(json.dumps([choice.name, list(choice.milliseconds), choice.failures]))
"""


def test_a_backend_that_cannot_be_built_is_passed_over_with_its_reason(tmp_path):
    pytest.importorskip("triton", reason="the package triton is not installed")
    (tmp_path / "bin").mkdir()
    places = {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PATH": str(tmp_path / "bin")}
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | places | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("CC", None)
    command = [sys.executable, "-c", NO_COMPILER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    name, ran, failures = json.loads(done.stdout or done.stderr)
    assert (name, ran) == ("chunked", ["chunked"])
    told = r"cannot be built or launched: RuntimeError: Failed to find C compiler\."
    assert re.match(told, failures["triton"])


def test_where_no_backend_can_be_launched_the_last_error_is_raised():
    able = {text: failing(ValueError(text)) for text in ("first", "second")}
    with pytest.raises(ValueError, match=r"^second$"):
        measure(SHAPE, make_call(2), able)


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder that choices are shared in."""
    monkeypatch.setattr(agreement, "_FOLDERS", [])
    share_choices(tmp_path / "cache")
    return tmp_path / "cache"


def test_processes_that_share_a_folder_take_what_the_first_has_found(shared):
    slow, quick = sleeping(0.02), sleeping(0)
    first = chosen(SHAPE, make_call(2), {"a": slow, "b": quick})
    # Another process, in which it is the other one that is quick.
    on_another_device = SHAPE._replace(device="cpu:1")
    second = chosen(on_another_device, make_call(2), {"a": quick, "b": slow})
    assert (first.name, second) == ("b", first)
    assert len(list(shared.iterdir())) == 1
    longer = SHAPE._replace(length=8)
    assert chosen(longer, make_call(2), {"a": quick, "b": slow}).name == "a"


@pytest.mark.parametrize("able", ["absent", "broken"])
def test_a_process_that_cannot_do_what_was_agreed_on_measures_by_itself(shared, able):
    assert chosen(SHAPE, make_call(2), {"a": sleeping(0.02), "b": sleeping(0)}).name == "b"
    broken = {} if able == "absent" else {"b": failing(RuntimeError("no compiler"))}
    found = chosen(SHAPE, make_call(2), {"a": sleeping(0), **broken})
    assert (found.name, list(found.failures)) == ("a", list(broken))


def test_of_two_that_measure_at_once_both_take_what_was_written_first(shared):
    def while_another_answers():
        assert agreed("question", lambda: "quicker") == "quicker"
        return "slower"

    assert agreed("question", while_another_answers) == "quicker"


def test_without_a_folder_nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "_FOLDERS", [])
    assert agreed("question", lambda: "first") == "first"
    assert agreed("question", lambda: "second") == "second"


def test_a_measurement_leaves_the_random_stream_alone_and_takes_gradients():
    seen = []

    def run(call):
        seen.append((call.operands[0].shape, torch.is_grad_enabled(), call.s0_BHVK.requires_grad))
        return BACKENDS["reference"].run(call)

    before = torch.get_rng_state()
    with torch.inference_mode():
        call = make_call(2)
    shape = SHAPE._replace(trains=True, chains=4, length=8)
    measure(shape, call, {"reference": Backend(run, lambda _: None)})
    assert torch.equal(torch.get_rng_state(), before)
    assert set(seen) == {((1, 8, 4, 32), True, True)}


def test_a_survey_tells_of_every_backend_what_it_does_here():
    told = survey(torch.device("cpu"))
    assert list(told) == list(BACKENDS)
    assert (told["chunked"], told["reference"]) == ("runs, chosen", "runs")
    assert "'cpu'" in told["triton"] or "not installed" in told["triton"]
