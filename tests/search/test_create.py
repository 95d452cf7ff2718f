import json
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from arm_cases import SPEC, rung_record
from watching import calls, on_open, opens

from fstune.api import prepare
from fstune.arms.inputs import _gather
from fstune.arms.store import ArmStore
from fstune.errors import InputError, SearchFailedError, SpecError
from fstune.machine import gpu_obstacle
from fstune.results.pairing import arms_of
from fstune.results.records import ArmPair
from fstune.search.lifecycle import Search
from fstune.search.session import machine_explained
from fstune.search.trainable import require_same_arms
from fstune.specs import rules

HOTPOT = (
    SPEC.partition("task:")[0]
    + """\
task:
  name: hotpot
  train_size: 2
  validation_size: 1
  files: {train: train.jsonl, validation: v.jsonl}
"""
    + SPEC.partition("validation_size: 6}\n")[2]
)
HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


class Desk:
    """A folder with a spec, from which searches are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "mlruns"

    def create(self, text: str = SPEC, name: str = "spec.yaml", **more) -> Search:
        path = self.folder / name
        path.write_text(text)
        return prepare(path, runs=self.runs, **more)

    def refusal(self, text: str = SPEC, **more) -> str:
        """Why a search is not made; nothing of it may be left behind."""
        before = self.searches()
        with pytest.raises(InputError) as caught:
            self.create(text, **more)
        assert self.searches() == before
        return str(caught.value)

    def searches(self) -> dict[Path, bytes]:
        """Every file and folder of the searches."""
        paths = (self.runs / "searches").rglob("*")
        return {path: path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_the_spec_on_disk_is_the_one_that_was_made(desk):
    search = desk.create(overrides=["search.trials=7", "train.lr=2e-2"])
    assert (search.spec.search.trials, search.spec.train.lr) == (7, 2e-2)
    assert search.records.spec() == search.spec
    assert (search.records.root / "spec.yaml").read_text() == SPEC
    assert ["version.torch" in facts for facts in search.records.environments()] == [True]
    opened = Search.open("small", desk.runs)
    assert (opened.spec, opened.runs, opened.tracking_uri) == (
        search.spec,
        search.runs,
        search.tracking_uri,
    )
    assert opened.records.root == search.records.root
    assert search.tracking_uri == f"sqlite:///{desk.runs / 'mlflow.db'}"
    assert not search.records.trials()


def test_a_new_search_knows_what_needs_no_understanding(desk):
    guesses = desk.create().records.guesses()
    assert set(guesses) == {"chance", "majority"}
    # Ten digits, 20 guesses at each of the 12 targets of 6 examples.
    assert abs(guesses["chance"]["token_accuracy"] - 0.1) < 0.1
    assert "nll" not in guesses["chance"]


def test_a_search_is_found_from_elsewhere(desk, monkeypatch):
    monkeypatch.chdir(desk.folder)
    (desk.folder / "elsewhere").mkdir()
    (desk.folder / "spec.yaml").write_text(SPEC)
    search = prepare("spec.yaml", runs="mlruns")
    monkeypatch.chdir(desk.folder / "elsewhere")
    assert search.records.root.is_absolute()
    assert search.records.spec() == search.spec


def test_names_of_files_become_absolute(desk):
    data = desk.folder / "data"
    data.mkdir()
    torch.save({}, data / "model.pth")
    text = SPEC.partition("model:")[0] + "model: {checkpoint: model.pth}\n"
    text += "task:" + SPEC.partition("task:")[2]
    refusal = desk.refusal(text, data=[data])
    assert f"model.checkpoint: {data / 'model.pth'}" in refusal, "found, but no model"


def test_a_spec_that_is_saved_meanwhile_changes_nothing(desk):
    """What is stored as the user's text is what was parsed."""
    path = desk.folder / "spec.yaml"
    later = SPEC.replace("trials: 4", "trials: 99")
    with on_open(desk.runs, lambda: path.write_text(later)):
        search = desk.create()
    assert path.read_text() == later
    assert search.records.spec().search.trials == 4
    assert (search.records.root / "spec.yaml").read_text() == SPEC


def test_a_spec_is_read_and_judged_once_also_to_resume(desk):
    path = desk.folder / "spec.yaml"
    path.write_text(SPEC)
    for resume in (False, True):
        with opens(path) as read, calls(rules.problems) as judged:
            prepare(path, runs=desk.runs, resume=resume)
        assert (read.count, judged.count) == (1, 1)


def test_a_name_is_given_once(desk):
    desk.create()
    refusal = desk.refusal(SPEC.replace("trials: 4", "trials: 5"))
    assert "'small' exists" in refusal
    assert "`fstune resume small`" in refusal


def test_of_two_that_make_one_search_at_once_one_does(desk):
    """The slower one is told, and changes nothing of what the other made."""
    texts = {f"{number}.yaml": SPEC.replace("trials: 4", f"trials: {number}") for number in (5, 6)}
    both = threading.Barrier(2)

    def make(name: str) -> Search | str:
        both.wait()
        try:
            return desk.create(texts[name], name)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        made = list(pool.map(make, texts))
    (search,) = [each for each in made if isinstance(each, Search)]
    (refusal,) = [each for each in made if isinstance(each, str)]
    assert refusal.startswith(("a search called 'small' exists", "small is running in another"))
    assert search.records.spec() == search.spec
    assert (search.records.root / "spec.yaml").read_text() == texts[
        f"{search.spec.search.trials}.yaml"
    ]


def test_a_search_is_resumed_under_its_own_spec_alone(desk):
    text = f"{SPEC}resources: {{gpus: 0}}\n"
    made = desk.create(text)
    assert desk.create(text, resume=True).spec == made.spec
    with pytest.raises(InputError) as caught:
        desk.create(text, resume=True, overrides=["search.trials=7", "resources.cpu_threads=1"])
    told = str(caught.value).splitlines()
    assert told[0] == "small was made from another spec:"
    assert set(told[1:3]) == {
        "  search.trials: 4, now 7",
        "  resources.cpu_threads: None, now 1",
    }
    assert "`fstune resume small`" in told[3]
    with pytest.raises(InputError, match=r"fixed\.future_seed: None, now {}"):
        desk.create(f"{text}fixed: {{future_seed: {{}}}}\n", resume=True)


def test_a_search_is_resumed_without_its_files(desk):
    data = desk.folder / "data"
    data.mkdir()
    for name in ("train.jsonl", "v.jsonl"):
        (data / name).write_text("".join(f"{json.dumps(row(f'{name} {n}'))}\n" for n in range(5)))
    made = desk.create(HOTPOT, data=[data])
    assert desk.create(HOTPOT, resume=True).spec == made.spec


def test_a_missing_file_is_named_with_the_places(desk):
    data = desk.folder / "data"
    text = SPEC.partition("model:")[0] + "model: {checkpoint: model.pth}\n"
    text += "task:" + SPEC.partition("task:")[2]
    refusal = desk.refusal(text, data=[data])
    assert "model.pth: there is no such file" in refusal
    assert f"{data / 'model.pth'}, {desk.folder / 'model.pth'}" in refusal


def test_all_missing_files_are_named_at_once(desk):
    refusal = desk.refusal(HOTPOT)
    assert [line.partition(":")[0] for line in refusal.splitlines()] == ["train.jsonl", "v.jsonl"]


def test_too_little_data_is_counted(desk):
    for name, count in (("train.jsonl", 3), ("v.jsonl", 5)):
        rows = [row(f"{name} {number}") for number in range(count)]
        (desk.folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in rows))
    assert desk.create(HOTPOT.replace("name: small", "name: enough")).spec.task.train_size == 2
    refusal = desk.refusal(HOTPOT.replace("train_size: 2", "train_size: 7"))
    assert re.search(r"\b7\b.*\b3\b", refusal), refusal


def test_a_search_whose_data_became_others_is_not_taken_up(desk, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("train.jsonl", "v.jsonl"):
        rows = [row(f"{name} {number}") for number in range(5)]
        (desk.folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in rows))
    search = desk.create(HOTPOT)
    candidate = {"future_seed.alpha": 2.0}
    (arms,) = arms_of(search.spec, candidate, search.records.cache, [0])
    store = ArmStore(search.runs / "arms")
    pair = ArmPair(0, store.register(arms.baseline), store.register(arms.variant))
    search.records.write_candidate(0, candidate)
    search.records.write_rung(0, rung_record(arms=[pair]))
    require_same_arms(search.records, search.spec)
    rows = [row(f"another {number}") for number in range(5)]
    (desk.folder / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in rows))
    _gather.cache_clear()  # as in a new process
    with pytest.raises(InputError, match=r"small: its arms .* other train_digest than"):
        search.run()
    assert not (desk.runs / "mlflow.db").exists()


def row(question: str) -> dict[str, object]:
    context = {"title": ["A", "B"], "sentences": [["One."], ["Two."]]}
    facts = {"title": ["A"], "sent_id": [0]}
    return {"question": question, "answer": "x", "context": context, "supporting_facts": facts}


def test_gpus_that_are_not_there_are_refused(desk, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gpus = torch.cuda.device_count() + 1
    refusal = desk.refusal(f"{SPEC}resources: {{gpus: {gpus}}}\n")
    assert refusal.startswith(f"resources.gpus: {gpus} asked, {gpus - 1} here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_back_end_that_cannot_run_here_is_refused_with_both_reasons(desk, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refusal = desk.refusal(SPEC.replace("model:\n", "model:\n  wkv: triton\n"))
    assert refusal.startswith("model.wkv: triton cannot run here: ")
    assert refusal.endswith(f" ({gpu_obstacle()}); leave the line out to use what can")
    desk.create(SPEC.replace("model:\n", "model:\n  wkv: chunked\n"))


def test_a_search_whose_gpus_went_away_is_not_taken_up(desk, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    gpus = torch.cuda.device_count() + 1
    search = desk.create(f"{SPEC}resources: {{gpus: {gpus}}}\n")
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(InputError, match=r"resources\.gpus: \d asked, \d here"):
        search.run()
    assert not (desk.runs / "mlflow.db").exists()


def test_a_cluster_that_nobody_answers_for_is_refused_before_ray_waits_for_it(desk, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        search = desk.create()
        with pytest.raises(InputError, match=f"RAY_ADDRESS={address}: nobody answers there"):
            search.run()
    assert not (desk.runs / "mlflow.db").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_in_a_line_whatever_lies_around_it(desk):
    records = desk.create().records

    def work(place: str) -> None:
        try:
            Path(place).write_text("more")
        except OSError as error:
            raise RuntimeError("what Tune makes of it") from error

    with (
        pytest.raises(SearchFailedError, match=r"no space is left .* `fstune resume small`"),
        machine_explained(records),
    ):
        work("/dev/full")
    with pytest.raises(RuntimeError), machine_explained(records):
        work("/dev/full/nowhere")


def test_a_wrong_spec_leaves_nothing(desk):
    with pytest.raises(SpecError, match=r"spec\.yaml:12: search\.trials"):
        desk.create(SPEC.replace("trials: 4", "trials: 0"))
    assert not desk.runs.exists()


def test_a_name_that_nobody_knows_comes_with_those_that_there_are(desk):
    with pytest.raises(InputError, match=r"'small'.*; known: none"):
        Search.open("small", desk.runs)
    desk.create()
    desk.create(SPEC.replace("name: small", "name: other"))
    with pytest.raises(InputError, match=r"no search is called 'smal' .*; known: other, small"):
        Search.open("smal", desk.runs)


def test_a_search_that_another_process_runs_is_left_alone(desk):
    search = desk.create()
    before = desk.searches()
    lock = search.records.root / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="small is running in another process; see `fstune"):
            search.run()
        holder.stdin.close()
    assert not (desk.runs / "mlflow.db").exists()
    assert desk.searches() == before | {lock: b""}
