"""A confirmed winner can be loaded from MLflow with one line, and is the model that was trained."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from arm_cases import SPEC, bench, made, spec
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file, save_file

from fstune.arms.trainer import CHECKPOINT_FILE, ArmTrainer
from fstune.export.kept import FILES, keep, kept_winner, read_kept
from fstune.results.pairing import arms_of, confirm
from fstune.results.records import Confirmation
from fstune.tracking.tracker import Tracker, local_uri
from model.checkpoint import load, load_mechanism
from model.generation import Decoding, generate

CANDIDATE = {"future_seed.alpha": 1.0}
MECHANISMS = ("future_seed", "learned_state", "second_pass")
TEXT = "L=12|M=__|R=34"
WRITES = """\
fixed:
  future_seed: {gate: head, alpha_lr: 0.1, norm: true}
  learned_state: {lr: 0.1}
  second_pass: {alpha_lr: 0.1}
confirm: {finalists: 1, looks: fixed, seeds: 2}
"""
LOADED = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
loaded = mlflow.pyfunc.load_model(sys.argv[2])
print("fstune" in sys.modules, loaded.predict([{text!r}]))
print(loaded.unwrap_python_model().logits({text!r}).double().tolist())
"""


def assert_same(found, wanted):
    for name, parameter in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], parameter), name


@pytest.fixture
def confirmed(tmp_path):
    """A search whose only trial is a confirmed gain, and the arm as it came out of training."""
    made_of = spec(tmp_path, SPEC.replace("size: 6}", "size: 6, test_size: 4}"), WRITES)
    records = made(tmp_path / "mlruns", made_of)
    place, _ = bench(records.runs)
    found = confirm(made_of, CANDIDATE, 1, records.cache, place)
    records.write_candidate(0, CANDIDATE)
    digest = found.arms[0].variant
    keep(digest, made_of.settings(CANDIDATE)[1], place.store, records, 0)
    gain = Confirmation(found.__class__(**{**vars(found), "verdict": "gain"}), 1e9)
    records.write_confirmation(0, gain)
    [both] = arms_of(made_of, CANDIDATE, records.cache, [found.arms[0].seed], "test")
    run = ArmTrainer(both.variant, both.variant_data, torch.device("cpu"))
    checkpoint = place.store.latest_checkpoint(digest)
    assert checkpoint is not None
    run.restore(checkpoint[1] / CHECKPOINT_FILE)
    return records, made_of, run.subject


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_one_line_loads_the_winner_without_fstune(confirmed, tmp_path):
    records, made_of, subject = confirmed
    tracker = Tracker(records, made_of, records.runs, local_uri(records.runs))
    tracker.open({}, {})
    for _ in range(2):  # logged once all the same
        tracker.log_winner(kept_winner(records))
    client = MlflowClient(local_uri(records.runs))
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    assert len(client.search_logged_models([experiment.experiment_id])) == 1
    (parent,) = client.search_runs([experiment.experiment_id])
    uri = parent.data.tags["fstune.model"]
    code = LOADED.format(text=TEXT)
    done = subprocess.run(
        [sys.executable, "-c", code, local_uri(records.runs), uri],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    said, logits = done.stdout.splitlines()[-2:]
    assert said.startswith("False ['")
    tokens_1T = torch.tensor([list(TEXT.encode())])
    with torch.inference_mode():
        x_1TC, _ = subject.model.hidden(tokens_1T, acting=list(subject.acting.values()))
        wanted = subject.model.project(x_1TC[0]).double()
        x_1TC, _ = subject.model.hidden(tokens_1T)
        without = subject.model.project(x_1TC[0]).double()
    loaded = torch.tensor(json.loads(logits), dtype=torch.float64)
    torch.testing.assert_close(loaded, wanted, rtol=0, atol=1e-6)
    assert (without - wanted).abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore")  # of MLflow's own modules, on import
def test_a_winner_writes_what_the_model_writes(confirmed):
    from fstune.export.pyfunc import MAX_NEW_TOKENS, Winner

    records, _, subject = confirmed
    winner = Winner()
    winner.load_context(SimpleNamespace(artifacts=kept_winner(records)))
    with torch.inference_mode():
        x_1TC, state = subject.model.hidden(
            torch.tensor([list(TEXT.encode())]), acting=list(subject.acting.values())
        )
        (wanted,) = generate(subject.model, x_1TC[:, -1], state, Decoding(MAX_NEW_TOKENS))
        logits_TV = subject.model.project(x_1TC[0])
    torch.testing.assert_close(winner.logits(TEXT), logits_TV, rtol=0, atol=1e-6)
    assert winner.predict(None, [TEXT]) == [bytes(wanted).decode(errors="replace")]
    with pytest.raises(ValueError, match="at least one character"):
        winner.predict(None, [TEXT, ""])


def test_only_the_best_of_several_gains_is_kept(confirmed):
    records, _, _ = confirmed
    assert set(kept_winner(records)) == {"weights", "description", *MECHANISMS}
    records.model_folder(0).rename(records.model_folder(0).with_name("elsewhere"))
    assert kept_winner(records) == {}


def test_the_files_are_those_of_an_exported_model(confirmed):
    records, made_of, subject = confirmed
    model = load(records.model_folder(0) / FILES["weights"])
    _, variant = made_of.settings(CANDIDATE)
    assert tuple(variant.mechanisms) == MECHANISMS
    for name, settings in variant.mechanisms.items():
        path = records.model_folder(0) / f"{name}.safetensors"
        found_name, found = load_mechanism(path, model.config)
        assert (found_name, found.settings) == (name, settings)
        assert_same(found, subject.acting[name])


def test_gates_without_their_settings_are_read_by_those_of_the_arm(confirmed):
    records, made_of, subject = confirmed
    path = records.model_folder(0) / "future_seed.safetensors"
    # As version 0.1.0 wrote them.
    save_file(load_file(path), path.with_name("gates.safetensors"))
    path.unlink()
    found = read_kept(records.model_folder(0), made_of.settings(CANDIDATE)[1])
    assert_same(found.acting["future_seed"], subject.acting["future_seed"])


def test_a_winner_without_mechanisms_has_no_files_of_them(confirmed):
    records, made_of, _ = confirmed
    baseline, _ = made_of.settings(CANDIDATE)
    comparison = records.confirmation(0).comparison
    store = bench(records.runs)[0].store
    shutil.rmtree(records.model_folder(0))
    keep(comparison.arms[0].baseline, baseline, store, records, 0)
    assert set(kept_winner(records)) == {"weights", "description"}
    assert read_kept(records.model_folder(0), baseline).acting == {}
