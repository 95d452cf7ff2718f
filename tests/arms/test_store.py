import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_cases import SEED, bench, materials, outcome, settings, trained
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from watching import opens

from fstune.arms.advance import advance
from fstune.arms.store import MANIFEST, ArmStore, CheckpointDraft, Divergence
from fstune.errors import StoreError
from fstune.files import file_digest


@pytest.fixture
def store(tmp_path):
    return ArmStore(tmp_path / "arms")


def put(draft: CheckpointDraft, name: str, content: bytes) -> None:
    with draft.open(name) as file:
        file.write(content)


def keep(store: ArmStore, step: int, content: bytes | None = None) -> None:
    """A checkpoint of two files."""

    def write(draft: CheckpointDraft) -> None:
        put(draft, "run.pt", content or f"step {step}".encode())
        put(draft, "more.pt", b"more")

    store.save_checkpoint("arm", step, write)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_outcome_comes_back_bit_for_bit(store):
    rng = np.random.default_rng(0)
    saved = outcome(
        [3, 0, 7],
        [4, 1, 9],
        rng.random(3) / 3,
        arm="arm",
        step=120,
        train_tokens=10**12,
        train_wall_s=0.1 + 0.2,
        eval_wall_s=0.7,
        ended_at=1_795_223_662.196_377_3,
    )
    store.save_outcome(saved)
    found = store.outcome("arm", 120)
    assert set(found.measures) == set(saved.measures)
    for name, values in saved.measures.items():
        assert found.measures[name].dtype == values.dtype
        np.testing.assert_array_equal(found.measures[name], values)
    assert replace(found, measures={}) == replace(saved, measures={})
    assert names(store.root / "arm" / "evaluations") == ["000000120.npz"]


def test_an_outcome_that_is_there_stays(store):
    store.save_outcome(outcome([1, 0], arm="arm", ended_at=1.0))
    store.save_outcome(outcome([1, 0], arm="arm", ended_at=2.0))
    assert store.outcome("arm", 10).ended_at == 1.0


@pytest.mark.parametrize("length", [0, 1, 300, -1])
def test_a_damaged_outcome_is_named(store, length):
    store.save_outcome(outcome([1, 0], arm="arm"))
    path = store.root / "arm" / "evaluations" / "000000010.npz"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=r"evaluations/000000010\.npz is damaged: .*move it away"):
        store.outcome("arm", 10)
    path.unlink()
    assert store.outcome("arm", 10) is None


def test_evaluated_steps_rise_and_an_absent_one_is_none(store):
    for step in (30, 5, 100):
        store.save_outcome(outcome([1], arm="arm", step=step))
    assert store.evaluated_steps("arm") == [5, 30, 100]
    assert store.evaluated_steps("another") == []
    assert store.outcome("arm", 6) is None


def test_a_divergence_is_remembered(store):
    assert store.divergence("arm") is None
    store.save_divergence("arm", Divergence(7, "nan"))
    assert store.divergence("arm") == Divergence(7, "nan")


def test_the_older_checkpoint_goes_once_the_newer_is_whole(store):
    keep(store, 5)
    seen: list[list[str]] = []

    def write(draft: CheckpointDraft) -> None:
        put(draft, "run.pt", b"newer")
        seen.append([path.name for path in (store.root / "arm/checkpoints").glob("[0-9]*")])

    store.save_checkpoint("arm", 40, write)
    assert seen == [["000000005"]]
    assert names(store.root / "arm" / "checkpoints") == ["000000040"]
    step, folder = store.latest_checkpoint("arm")
    assert step == 40
    assert (folder / "run.pt").read_bytes() == b"newer"


def test_a_write_that_fails_leaves_the_older_checkpoint_alone(store):
    keep(store, 5)

    def write(draft: CheckpointDraft) -> None:
        put(draft, "run.pt", b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        store.save_checkpoint("arm", 6, write)
    assert names(store.root / "arm" / "checkpoints") == ["000000005"]
    assert store.latest_checkpoint("arm")[0] == 5


def test_a_checkpoint_is_not_read_back_and_its_manifest_tells_its_bytes(store):
    def write(draft: CheckpointDraft) -> None:
        with draft.open("run.pt") as file:
            torch.save({"weights": torch.arange(300_000)}, file)

    folder = store.root / "arm/checkpoints/000000005"
    with opens(folder / "run.pt") as opened:
        store.save_checkpoint("arm", 5, write)
    assert opened.count == 0
    hashes = json.loads((folder / MANIFEST).read_text())["files"]
    assert hashes == {"run.pt": file_digest(folder / "run.pt")}
    assert torch.load(folder / "run.pt")["weights"].sum() == 300_000 * 299_999 // 2


def test_a_file_that_is_cut_on_its_way_to_the_disk_is_not_kept_for_a_checkpoint(store):
    keep(store, 5)

    def write(draft: CheckpointDraft) -> None:
        put(draft, "run.pt", b"whole")
        [path] = (store.root / "arm/checkpoints").glob(".*/*/run.pt")
        path.write_bytes(b"cut")

    with pytest.raises(StoreError, match=r"run\.pt is not the 5 bytes that were written"):
        store.save_checkpoint("arm", 6, write)
    assert store.latest_checkpoint("arm")[0] == 5


def test_a_damaged_checkpoint_can_be_written_again(store):
    keep(store, 5)
    (store.root / "arm/checkpoints/000000005/run.pt").write_bytes(b"x")
    assert store.latest_checkpoint("arm") is None
    keep(store, 5)
    assert store.latest_checkpoint("arm")[0] == 5


def test_what_a_killed_writer_left_is_cleared_by_the_next(store):
    draft = store.root / "arm/checkpoints/.draft-of-the-dead"
    draft.mkdir(parents=True)
    (draft / "run.pt").write_bytes(b"half")
    assert store.latest_checkpoint("arm") is None
    keep(store, 5)
    assert names(draft.parent) == ["000000005"]


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def truncate(folder: Path) -> None:
    file = folder / "run.pt"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "run.pt"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


def lose(folder: Path) -> None:
    (folder / "more.pt").unlink()


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"")


def hollow_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


DAMAGES = [remove_manifest, truncate, flip, lose, empty_manifest, hollow_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(store, damage):
    keep(store, 9)
    newest = store.root / "arm/checkpoints/000000009"
    aside = newest.rename(store.root / "aside")
    keep(store, 8)
    aside.rename(newest)
    assert store.latest_checkpoint("arm")[0] == 9
    damage(newest)
    assert store.latest_checkpoint("arm")[0] == 8


@hypothesis_settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_manifest_with_a_flipped_bit_never_breaks_the_store(tmp_path_factory, place, bit):
    store = ArmStore(tmp_path_factory.getbasetemp() / "flipped")
    keep(store, 5)
    manifest = store.root / "arm/checkpoints/000000005" / MANIFEST
    content = bytearray(manifest.read_bytes())
    content[place % len(content)] ^= 1 << bit
    manifest.write_bytes(content)
    found = store.latest_checkpoint("arm")
    assert found is None or found[0] == 5


def test_checkpoints_can_be_dropped_and_evaluations_stay(store):
    keep(store, 5)
    store.save_outcome(outcome([1], arm="arm"))
    store.drop_checkpoints("arm")
    store.drop_checkpoints("arm")
    assert store.latest_checkpoint("arm") is None
    assert store.evaluated_steps("arm") == [10]


def test_checkpoints_of_an_arm_that_another_process_trains_stay(store):
    keep(store, 5)
    with store.lock("arm", lambda: None):
        store.drop_checkpoints("arm")
    assert store.latest_checkpoint("arm")[0] == 5
    store.drop_checkpoints("arm")
    assert store.latest_checkpoint("arm") is None


def test_one_digest_holds_one_arm(tmp_path, store):
    arm = materials(tmp_path, settings(SEED)).arm(settings(SEED), 0)
    digest = store.register(arm)
    path = store.root / digest / "arm.json"
    before = path.stat().st_mtime_ns
    assert store.register(arm) == digest == arm.digest
    assert path.stat().st_mtime_ns == before
    content = json.loads(path.read_text())
    content["settings"]["train"]["lr"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="holds other settings than its digest says"):
        store.register(arm)


def child(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process of its own that runs `code` with the arguments in sys.argv."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


ENDLESS_WRITER = """if True:
    import os, sys
    from pathlib import Path
    from fstune.arms.store import ArmStore
    def write_until_killed():
        store = ArmStore(Path(sys.argv[1]))
        latest = store.latest_checkpoint("arm")
        step = latest[0] if latest else 0
        print(os.getpid(), flush=True)
        while True:
            step += 1
            def write(draft):
                for part in range(3):
                    with draft.open(f"{part}") as file:
                        file.write(str(step).encode() * 50_000)
            store.save_checkpoint("arm", step, write)
    while sys.stdin.readline():
        if writer := os.fork():
            os.waitpid(writer, 0)
            print("killed", flush=True)
        else:
            write_until_killed()
"""
"""A life for every line that it reads."""


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(store):
    keep(store, 1)
    chance = random.Random(0)
    reached = [1]
    with child(ENDLESS_WRITER, store.root) as writers:
        for _ in range(6):
            begin(writers)
            writer = int(writers.stdout.readline())
            time.sleep(0.02 + 0.05 * chance.random())
            os.kill(writer, signal.SIGKILL)
            assert writers.stdout.readline() == "killed\n"
            step, folder = store.latest_checkpoint("arm")
            assert step >= reached[-1]
            reached.append(step)
            if step > 1:
                assert (folder / "2").read_bytes() == str(step).encode() * 50_000
        writers.stdin.close()
    assert reached[-1] > 1


TRAINER = """if True:
    import sys, time
    from pathlib import Path
    import torch
    from fstune.specs.settings import ArmSettings
    from fstune.arms.inputs import gather
    from fstune.arms.store import ArmStore
    from fstune.arms.advance import Workbench, advance
    torch.set_num_threads(1)
    folder, settings_json, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    settings = ArmSettings.model_validate_json(settings_json)
    data = gather(settings, folder / "cache")
    def report(progress):
        print(progress.doing, progress.step, flush=True)
        if progress.doing == "train":
            time.sleep(pause)
    bench = Workbench(ArmStore(folder / "arms"), torch.device("cpu"), 0, report)
    print("ready", flush=True)
    sys.stdin.readline()
    print("ended", advance(data.arm(settings, 0), data, 4, bench).ended_at, flush=True)
"""


def trainer(folder: Path, pause: float) -> "subprocess.Popen[str]":
    """A process that trains an arm to step 4, as soon as it is told to."""
    arguments = [folder, settings(SEED).model_dump_json(), pause]
    return child(TRAINER, *arguments)


def begin(process: "subprocess.Popen[str]") -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def until(process: "subprocess.Popen[str]", wanted: str) -> list[str]:
    """The lines up to the wanted one."""
    lines = []
    while not lines or lines[-1] != wanted:
        line = process.stdout.readline()
        assert line, f"ended after {lines}"
        lines.append(line.strip())
    return lines


def test_of_two_processes_that_want_one_arm_one_trains_and_one_waits(tmp_path):
    data = materials(tmp_path, settings(SEED))
    workbench, told = bench(tmp_path)
    with trainer(tmp_path, 0.5) as first:
        until(first, "ready")
        begin(first)
        until(first, "train 1")
        found = advance(data.arm(settings(SEED), 0), data, 4, workbench)
        lines = first.communicate()[0].splitlines()
    # This process finds the very evaluation of the first, and does nothing of its own.
    assert {(progress.doing, progress.step) for progress in told} == {("wait", 0)}
    assert lines == ["train 2", "train 3", "train 4", "evaluate 4", f"ended {found.ended_at}"]


def test_a_killed_holder_frees_the_arm_for_the_one_that_waits(tmp_path):
    # The data are tokenised first, so that the holder dies while it trains.
    arm = materials(tmp_path, settings(SEED)).arm(settings(SEED), 0)
    workbench, told = bench(tmp_path)
    with trainer(tmp_path, 60.0) as holder:
        until(holder, "ready")
        begin(holder)
        until(holder, "train 1")
        holder.send_signal(signal.SIGKILL)
    found = advance(arm, materials(tmp_path, settings(SEED)), 4, workbench)
    assert (found.step, trained(told)) == (4, [1, 2, 3, 4])
