"""Splits kept apart, counted, cached and mended."""

import json
import multiprocessing
import os
import shutil
import time
import tracemalloc
from dataclasses import replace

import pytest
from task_cases import CASES, SIZES, Bytes, Refusing, hotpot_row, write_rows

from tasks import registry
from tasks.example import TaskError
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import SPLIT_NAMES

HOTPOT = registry.get("hotpot")
RIGHTCOPY = registry.get("rightcopy")


def settings(**changes):
    return HOTPOT.Settings(**{**SIZES, **CASES["hotpot"], **changes})


@pytest.fixture
def load(case_data, tmp_path):
    def load(settings, split="train", tokenizer=Bytes(), data=None, task=HOTPOT):  # noqa: B008
        return load_split(task, settings, split, tokenizer, tmp_path / "cache", [data or case_data])

    return load


def entries(tmp_path):
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    return sorted(path.name for path in folders if path.name != "rows")


def questions(split):
    prompts = [Bytes().decode(split.example(i).prompt) for i in range(len(split))]
    return [prompt.rpartition("Question: ")[2] for prompt in prompts]


@pytest.mark.parametrize("name", registry.names())
def test_the_second_call_tokenises_nothing(name, load, tmp_path):
    task = registry.get(name)
    small = task.Settings(**SIZES, **CASES[name])
    for split in ("test", "validation", "train"):
        built = load(small, split, task=task)
        before = entries(tmp_path)
        mapped = load(small, split, Refusing(), task=task)
        assert mapped.digest == built.digest
        assert (mapped.dropped, mapped.rows_read) == (built.dropped, built.rows_read)
        assert entries(tmp_path) == before


def test_a_cached_split_is_found_wherever_the_files_lie(load, case_data, tmp_path):
    built = load(settings())
    shutil.copytree(case_data / "hotpot", tmp_path / "moved")
    moved = settings(files=Files("moved/train.jsonl", "moved/validation.jsonl"))
    assert load(moved, tokenizer=Refusing(), data=tmp_path).digest == built.digest
    absolute = settings(files=Files(*(str(tmp_path / f"moved/{n}.jsonl") for n in PAIR)))
    assert load(absolute, tokenizer=Refusing()).digest == built.digest


PAIR = ("train", "validation")


def test_what_an_entry_depends_on_makes_another_entry(load, tmp_path):
    class Renamed(Bytes):
        name = "other bytes"

    class Larger(Bytes):
        vocab_size = 257

    load(settings())
    for count, (changed, tokenizer) in enumerate(
        [
            (settings(), Renamed()),
            (settings(), Larger()),
            (settings(train_size=23), Bytes()),
            (settings(data_seed=3), Bytes()),
            (settings(max_prompt_tokens=250), Bytes()),
            (settings(order="question_first"), Bytes()),
        ],
        start=2,
    ):
        load(changed, tokenizer=tokenizer)
        assert len(entries(tmp_path)) == count


def test_other_sizes_make_no_other_entry(load, tmp_path):
    load(settings())
    load(settings(validation_size=5, test_size=3), tokenizer=Refusing())
    assert len(entries(tmp_path)) == 1


def test_changed_rows_are_noticed(load, tmp_path):
    for marker in ("one", "two"):
        rows = [hotpot_row(n, answer=f"{marker} {n}") for n in range(40)]
        write_rows(tmp_path / "hotpot/train.jsonl", rows)
        write_rows(tmp_path / "hotpot/validation.jsonl", [hotpot_row(n) for n in range(50, 90)])
        answer = load(settings(), data=tmp_path).example(0).answer
        assert Bytes().decode(answer).startswith(f" {marker} ")


@pytest.mark.parametrize("damage", ["bytes", "manifest", "missing", "torn", "foreign"])
def test_a_damaged_entry_is_built_again(damage, load, tmp_path):
    built = load(settings())
    digest = built.digest
    (folder,) = (tmp_path / "cache" / name for name in entries(tmp_path))
    tokens, manifest = folder / "prompt_tokens.npy", folder / "manifest.json"
    if damage == "bytes":
        tokens.write_bytes(tokens.read_bytes()[:-4] + b"\0\0\0\1")
    elif damage == "torn":
        tokens.write_bytes(tokens.read_bytes()[:100])
    elif damage == "missing":
        tokens.unlink()
    elif damage == "manifest":
        manifest.write_text('{"format": 1, "dig')
    else:
        manifest.write_text(json.dumps({"format": 99, "digest": digest}))
    assert load(settings()).digest == digest
    assert load(settings(), tokenizer=Refusing()).digest == digest


def test_a_build_that_was_cut_off_leaves_nothing_valid(load, tmp_path):
    load(settings())
    (name,) = entries(tmp_path)
    folder = tmp_path / "cache" / name
    (folder / "manifest.json").unlink()
    (folder / "stale").touch()
    folder.rename(folder.with_name(f"{name}.partial"))
    assert len(load(settings())) == SIZES["train_size"]
    assert entries(tmp_path) == [name]
    assert not (folder / "stale").exists()


class Slow(Bytes):
    """Leaves a mark, and time for another process, when it first encodes."""

    def __init__(self, folder):
        self.mark = folder / f"built-{os.getpid()}"

    def encode(self, text):
        if not self.mark.exists():
            self.mark.touch()
            time.sleep(0.5)
        return super().encode(text)


def _load_in_process(cache, data, barrier, queue):
    barrier.wait(timeout=50)
    split = load_split(HOTPOT, settings(), "train", Slow(cache), cache, [data])
    queue.put((len(split), split.digest))


def test_of_two_processes_at_once_one_builds_and_both_have_the_split(case_data, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    context = multiprocessing.get_context("spawn")
    queue, barrier = context.Queue(), context.Barrier(2)
    arguments = (cache, case_data, barrier, queue)
    workers = [context.Process(target=_load_in_process, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=50) for _ in workers]
    for worker in workers:
        worker.join()
    assert results[0] == results[1]
    assert results[0][0] == SIZES["train_size"]
    assert len(entries(tmp_path)) == len(list(cache.glob("built-*"))) == 1


def test_too_few_rows_are_counted_by_reason(load, tmp_path):
    rows = [hotpot_row(n) for n in range(20)]
    rows += [hotpot_row(n, answer="x" * 30) for n in range(20, 25)]
    rows += [hotpot_row(n, answer="") for n in range(25, 28)]
    rows += [hotpot_row(3, question=hotpot_row(3)["question"].upper() + " ")]
    rows += [hotpot_row(101), hotpot_row(102)]
    write_rows(tmp_path / "hotpot/train.jsonl", rows)
    write_rows(tmp_path / "hotpot/validation.jsonl", [hotpot_row(n) for n in range(100, 110)])
    message = (
        "hotpot train: 24 examples asked, 20 of 31 rows fit: 5 answers over 24 tokens, "
        "3 empty answers, 2 rows that another split holds, 1 repeats of another row; "
        "ask for fewer, or give more rows"
    )
    with pytest.raises(TaskError) as caught:
        load(settings(), data=tmp_path)
    assert str(caught.value) == message
    assert entries(tmp_path) == []
    fitting = load(settings(train_size=20), data=tmp_path)
    assert sum(fitting.dropped.values()) <= 11
    assert not {"101", "102"} & {q.split()[-1].rstrip("?") for q in questions(fitting)}


def test_test_rows_come_from_what_validation_leaves(load):
    assert len(load(settings(validation_size=25, test_size=15), "test")) == 15
    with pytest.raises(TaskError) as caught:
        load(settings(validation_size=30, test_size=15), "test")
    assert str(caught.value) == (
        "hotpot test: 15 examples asked, 10 of 10 rows that validation does not use fit; "
        "ask for fewer, or give more rows"
    )


def test_test_and_validation_stay_the_same_when_the_other_grows(load):
    small = settings(validation_size=10, test_size=10)
    grown = replace(small, validation_size=20)
    assert load(small, "test").digest == load(grown, "test").digest
    assert (
        load(small, "validation").digest == load(replace(small, test_size=20), "validation").digest
    )


def test_an_own_test_file_is_used_and_kept_apart(load, tmp_path):
    write_rows(tmp_path / "train.jsonl", [hotpot_row(n) for n in range(30)])
    write_rows(tmp_path / "validation.jsonl", [hotpot_row(n) for n in range(25, 45)])
    write_rows(tmp_path / "test.jsonl", [hotpot_row(n) for n in range(40, 50)])
    files = Files("train.jsonl", "validation.jsonl", "test.jsonl")
    own = settings(files=files, train_size=25, validation_size=20, test_size=5)
    found = {name: set(questions(load(own, name, data=tmp_path))) for name in (*PAIR, "test")}
    assert {name: len(values) for name, values in found.items()} == {
        "train": 25,
        "validation": 20,
        "test": 5,
    }
    assert not found["train"] & found["validation"]
    assert not found["test"] & (found["train"] | found["validation"])


def test_one_file_for_all_splits_gives_each_group_to_one_of_them(load, tmp_path):
    rows = [hotpot_row(n, question=f"Which is {n // 2}?") for n in range(200)]
    write_rows(tmp_path / "all.jsonl", rows)
    one = Files(train=str(tmp_path / "all.jsonl"), validation=str(tmp_path / "all.jsonl"))
    small = settings(files=one, train_size=40, validation_size=6, test_size=5)
    found = {name: set(questions(load(small, name))) for name in SPLIT_NAMES}
    assert [len(found[name]) for name in SPLIT_NAMES] == [40, 6, 5]
    assert len(set.union(*found.values())) == 51
    # Another size moves no row from one split to another.
    for name in SPLIT_NAMES:
        more = settings(files=one, train_size=60, validation_size=8, test_size=7)
        assert found[name] < set(questions(load(more, name)))


class Quoting(type(HOTPOT)):
    """hotpot whose prompts are followed by what it was given to quote."""

    def source(self, settings):
        return replace(super().source(settings), material=3)

    def builder(self, settings, tokenizer, material):
        quoted = "".join(f"({row['question']})" for row in material)
        build = super().builder(settings, tokenizer, ())

        def built(row):
            return replace(build(row), answer=tuple(tokenizer.encode(quoted)))

        return built


def test_material_gives_no_example_and_is_the_same_for_all_splits(load, tmp_path):
    task = Quoting()
    names = {"train": 90, "validation": 40}
    for name, count in names.items():
        rows = [hotpot_row(n, question=f"{name} {n}?") for n in range(count)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    files = Files(**{name: str(tmp_path / f"{name}.jsonl") for name in names})
    small = settings(files=files, train_size=60)
    splits = {name: load(small, name, task=task) for name in SPLIT_NAMES}
    quoted = {Bytes().decode(split.example(0).answer) for split in splits.values()}
    assert len(quoted) == 1
    rows = quoted.pop().removeprefix("(").removesuffix(")").split(")(")
    assert len(rows) == 3
    assert all(row.startswith("train ") for row in rows)
    assert splits["train"].dropped.get("rows kept as material", 0) >= 3
    asked = set().union(*(questions(split) for split in splits.values()))
    assert not {f"{row}\n\nAnswer:" for row in rows} & asked
    # Rows added at the end change neither material nor the other splits.
    more = [hotpot_row(n, question=f"train {n}?") for n in range(90, 150)]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in more)
    again = load(small, "validation", task=task)
    assert again.digest == splits["validation"].digest


def test_memory_does_not_grow_with_the_text(load, tmp_path):
    def peak(count):
        rows = [hotpot_row(n, question=f"{n}, {'is it ' * 300}so?") for n in range(count)]
        file = write_rows(tmp_path / f"{count}.jsonl", rows)
        one = settings(files=Files(str(file), str(file)), train_size=1, max_prompt_tokens=3000)
        load(replace(one, data_seed=1))  # what is imported and read into the cache does not count
        tracemalloc.start()
        load(one)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, count * len(rows[0]["question"])

    (small, size), (large, larger) = peak(600), peak(1800)
    assert large - small < (larger - size) / 4


def test_a_split_that_was_not_asked_for_is_refused(load):
    with pytest.raises(TaskError, match="hotpot test: 0 examples asked: set test_size"):
        load(settings(test_size=0), "test")
    with pytest.raises(ValueError, match="train, validation, test, got 'dev'"):
        load(settings(), "dev")


def test_tokens_outside_the_vocabulary_are_refused(load):
    class Small(Bytes):
        vocab_size = 100

    with pytest.raises(TaskError, match=r"tokens lie in 0\.\.99 with the tokenizer bytes"):
        load(settings(), tokenizer=Small())
