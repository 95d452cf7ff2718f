"""What is exported is the arm that was trained, and other programs make the same of it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from arm_cases import SPEC, made, spec

from fstune.arms.advance import workbench
from fstune.arms.store import ArmStore
from fstune.arms.trainer import CHECKPOINT_FILE, ArmTrainer
from fstune.cli.commands import main
from fstune.errors import InputError
from fstune.export.kept import FILES, keep
from fstune.export.weights import Wanted, take, write_pth
from fstune.results.pairing import arms_of, confirm, run_rung
from fstune.results.records import Confirmation, EndRecord
from model.checkpoint import load, load_mechanism

SEARCHED = SPEC.replace("validation_size: 6", "validation_size: 6, test_size: 4") + (
    "fixed: {future_seed: {alpha_lr: 0.1, gate: head, schedule: {kind: linear, min: 0.5}}}\n"
    "confirm: {finalists: 1, looks: fixed, seeds: 2}\n"
    "resources: {gpus: 0, cpu_threads: 1}\n"
)
CANDIDATES = ({"future_seed.alpha": 0.5}, {"future_seed.alpha": 1.5})
PROMPT = torch.tensor([list(b"L=12|M=__|R=34|a b c")])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of two trials, all of whose weights are stored; trial 1 is the better."""
    runs = tmp_path_factory.mktemp("runs")
    made_of = spec(runs, SEARCHED)
    records = made(runs, made_of)
    bench_here = workbench(records.store, made_of)
    for number, candidate in enumerate(CANDIDATES):
        records.write_candidate(number, candidate)
        for rung in (0, 1):
            record = run_rung(made_of, candidate, rung, records.cache, bench_here)
            vars(record)["objective"] = float(number)
            records.write_rung(number, record)
        records.write_end(number, EndRecord("completed", "reached the last rung"))
    return records, made_of


def test_the_best_trials_variant_is_written_with_its_gates(searched, tmp_path):
    records, made_of = searched
    out = tmp_path / "model.pth"
    files = write_pth(take(records, made_of, Wanted(), again=False), out)
    assert files == [out, tmp_path / "model.future_seed.safetensors"]
    pair = records.trial(1).rungs[-1].arms[0]
    saved = stored(records, pair.variant)
    written = torch.load(out, weights_only=True)
    assert written.keys() == saved["model"].keys()
    assert all(torch.equal(tensor, saved["model"][name]) for name, tensor in written.items())
    model = load(out)
    name, gates = load_mechanism(files[1], model.config)
    assert name == "future_seed"
    assert gates.settings == made_of.settings(CANDIDATES[1])[1].future_seed
    assert torch.equal(gates.alpha, saved["mechanisms"]["future_seed"]["alpha"])
    assert not torch.equal(gates.alpha, torch.full_like(gates.alpha, 1.5)), "it has learnt"


def test_the_rwkv_package_runs_it_with_the_same_logits(searched, tmp_path):
    pytest.importorskip("rwkv")
    records, made_of = searched
    out = tmp_path / "model.pth"
    exported = take(records, made_of, Wanted(trial=0), again=False)
    write_pth(exported, out)
    # In a process of its own: the package reads its settings from the environment, and prints.
    script = (
        "import json, sys\n"
        "from rwkv.model import RWKV\n"
        "model = RWKV(model=sys.argv[1].removesuffix('.pth'), strategy='cpu fp32')\n"
        "logits, _ = model.forward(json.loads(sys.argv[2]), None, full_output=True)\n"
        "print(json.dumps(logits.tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(out), json.dumps(PROMPT[0].tolist())],
        env=os.environ | {"RWKV_V7_ON": "1", "RWKV_CUDA_ON": "0", "RWKV_JIT_ON": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    official = np.array(json.loads(done.stdout.splitlines()[-1]))
    with torch.inference_mode():
        logits_BTV, _ = exported.model(PROMPT)
    assert np.abs(logits_BTV[0].numpy() - official).max() <= 1e-4 * official.std()


@pytest.mark.parametrize(
    "chosen", ["weights: mean", "cooldown: 0.5", "weights: mean, cooldown: 0.5"]
)
@pytest.mark.parametrize("again", [False, True], ids=["stored", "trained again"])
def test_what_is_exported_is_what_was_evaluated(tmp_path, chosen, again):
    made_of = spec(tmp_path, SEARCHED, f"evaluation: {{{chosen}}}\n")
    records = made(tmp_path / "runs", made_of)
    records.write_candidate(0, CANDIDATES[0])
    for rung in (0, 1):
        here = workbench(records.store, made_of)
        record = run_rung(made_of, CANDIDATES[0], rung, records.cache, here)
        records.write_rung(0, record)
    pair = record.arms[0]
    if again:
        records.store.drop_checkpoints(pair.variant)
    exported = take(records, made_of, Wanted(seed=0), again)
    plain = spec(tmp_path, SEARCHED)
    [both] = arms_of(plain, CANDIDATES[0], records.cache, [0])
    run = ArmTrainer(both.variant, both.variant_data, torch.device("cpu"))
    run.subject.model.load_state_dict(exported.model.state_dict())
    run.subject.acting["future_seed"].load_state_dict(exported.acting["future_seed"].state_dict())
    wanted, found = records.store.outcome(pair.variant, record.steps), run.outcome()
    assert exported.step == record.steps
    np.testing.assert_array_equal(found.measures["nll_sum"], wanted.measures["nll_sum"])
    assert found.predictions == wanted.predictions
    keep(pair.variant, made_of.settings(CANDIDATES[0])[1], records.store, records, 0)
    kept = load(records.model_folder(0) / FILES["weights"]).state_dict()
    assert all(torch.equal(kept[name], x) for name, x in exported.model.state_dict().items())


def test_a_baseline_has_no_gates(searched, tmp_path):
    records, made_of = searched
    exported = take(records, made_of, Wanted(side="baseline", seed=1), again=False)
    assert write_pth(exported, tmp_path / "base.pth") == [tmp_path / "base.pth"]
    pair = records.trial(1).rungs[-1].arms[1]
    assert torch.equal(
        exported.model.emb.weight, stored(records, pair.baseline)["model"]["emb.weight"]
    )


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wanted(trial=7), "--candidate: trial 7 of small has reached no rung.*: 0, 1"),
        (Wanted(seed=5), "--seed: trial 1 has no arm of seed 5; its seeds: 0, 1"),
    ],
)
def test_an_arm_that_is_not_there_is_refused_with_those_that_are(searched, wanted, told):
    records, made_of = searched
    with pytest.raises(InputError, match=told):
        take(records, made_of, wanted, again=False)


@pytest.mark.parametrize(("name", "told"), [("m.bin", "ends in .pth"), ("old.pth", "exists")])
def test_a_wrong_or_taken_name_is_refused(searched, tmp_path, name, told):
    records, made_of = searched
    (tmp_path / "old.pth").write_text("mine")
    with pytest.raises(InputError, match=told):
        write_pth(take(records, made_of, Wanted(), again=False), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.pth"]


def test_weights_that_are_gone_are_refused_or_trained_again_as_they_were(searched):
    records, made_of = searched
    store = ArmStore(records.runs / "arms")
    arms = [pair.variant for pair in records.trial(0).rungs[-1].arms]
    before = take(records, made_of, Wanted(trial=0), again=False)
    weights = {name: x.clone() for name, x in before.model.state_dict().items()}
    for arm in arms:
        store.drop_checkpoints(arm)
    with pytest.raises(InputError, match=r"--train-again .* 4 steps .* variant is stored: 1$"):
        take(records, made_of, Wanted(trial=0), again=False)
    # Where there is no GPU, one that the search was given is not missed.
    gpus = 0 if torch.cuda.is_available() else 1
    resources = made_of.resources.model_copy(update={"gpus": gpus})
    elsewhere = made_of.model_copy(update={"resources": resources})
    after = take(records, elsewhere, Wanted(trial=0), again=True)
    assert (after.place.digest, after.step) == (before.place.digest, 4)
    assert torch.equal(alpha_of(after), alpha_of(before))
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_the_command_says_what_it_wrote_and_where_from(searched, tmp_path, monkeypatch, capsys):
    records, _ = searched
    out = tmp_path / "new" / "model.pth"
    told = command(monkeypatch, capsys, records, "--candidate", "1", "--to", "pth", "--out", out)
    gates = out.with_name("model.future_seed.safetensors")
    assert told == (0, f"trial 1, variant of seed 0, step 4: {out}, {gates}\n", "")
    told = command(monkeypatch, capsys, records, "--candidate", "1", "--to", "pth", "--out", out)
    assert told == (2, "", f"--out: {out} exists; move it away or give another name\n")


def test_a_confirmed_gain_goes_before_the_best_of_the_search_and_is_kept(searched):
    records, made_of = searched
    bench_here = workbench(records.store, made_of)
    found = confirm(made_of, CANDIDATES[0], 1, records.cache, bench_here)
    vars(found)["verdict"] = "gain"
    records.write_confirmation(0, Confirmation(found, 1e9))
    exported = take(records, made_of, Wanted(), again=False)
    assert (exported.place.trial.number, exported.place.digest) == (0, found.arms[0].variant)
    keep(found.arms[0].variant, made_of.settings(CANDIDATES[0])[1], bench_here.store, records, 0)
    for trial in records.trials():
        for pair in (*found.arms, *trial.rungs[-1].arms):
            bench_here.store.drop_checkpoints(pair.variant)
    kept = take(records, made_of, Wanted(), again=False)
    assert (kept.place, kept.step) == (exported.place, exported.step)
    assert torch.equal(alpha_of(kept), alpha_of(exported))
    for name, tensor in exported.model.state_dict().items():
        assert torch.equal(kept.model.state_dict()[name], tensor), name
    with pytest.raises(InputError, match=r"variant is stored: 0$"):
        take(records, made_of, Wanted(trial=1), again=False)
    with pytest.raises(InputError, match="seed 1: its weights are no longer"):
        take(records, made_of, Wanted(seed=1), again=False)


def command(monkeypatch, capsys, records, *arguments):
    """Exit code, output and errors of `fstune export small`."""
    line = ["fstune", "export", "small", "--runs", records.runs, *arguments]
    monkeypatch.setattr(sys, "argv", list(map(str, line)))
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0), *capsys.readouterr()


def alpha_of(exported):
    return exported.acting["future_seed"].alpha


def stored(records, digest):
    _, folder = ArmStore(records.runs / "arms").latest_checkpoint(digest)
    return torch.load(folder / CHECKPOINT_FILE, weights_only=True)
