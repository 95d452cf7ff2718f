"""Rows from files and from a data set in the hub's form, and what cannot be read."""

import json
import logging
import os
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import datasets
import pytest
from task_cases import Bytes, hotpot_row, write_rows

from tasks import progress, registry
from tasks.example import TaskError
from tasks.sources import Files, Source, find_file, open_rows
from tasks.splits import load_split

HOTPOT = registry.get("hotpot")
SIZES = {"train_size": 12, "validation_size": 6, "test_size": 4}
FILES = Files(train="train.jsonl", validation="validation.jsonl")


def rows(first, count):
    return [hotpot_row(n) for n in range(first, first + count)]


@pytest.fixture
def load(tmp_path):
    def load(split="train", data_dirs=(tmp_path,), **changes):
        chosen = HOTPOT.Settings(**{**SIZES, "files": FILES, **changes})
        return load_split(HOTPOT, chosen, split, Bytes(), tmp_path / "cache", data_dirs)

    return load


@pytest.fixture
def files(tmp_path):
    write_rows(tmp_path / "validation.jsonl", rows(100, 20))
    return write_rows(tmp_path / "train.jsonl", rows(0, 20))


def nothing_cached(tmp_path):
    cache = tmp_path / "cache"
    return not [path for path in cache.glob("hotpot-*") if path.is_dir()]


def test_a_missing_file_says_where_it_was_looked_for(load, tmp_path):
    with pytest.raises(TaskError) as caught:
        load(data_dirs=[tmp_path / "a", tmp_path / "b"])
    assert str(caught.value) == (
        f"data file train.jsonl not found; looked for {tmp_path}/a/train.jsonl, "
        f"{tmp_path}/b/train.jsonl"
    )


def test_a_file_is_taken_from_the_first_folder_that_has_it(tmp_path):
    for folder in ("b", "c"):
        write_rows(tmp_path / folder / "x.jsonl", rows(0, 1))
    data_dirs = [tmp_path / folder for folder in "abc"]
    assert find_file("x.jsonl", data_dirs) == tmp_path / "b/x.jsonl"
    assert find_file(str(tmp_path / "c/x.jsonl"), data_dirs) == tmp_path / "c/x.jsonl"
    with pytest.raises(TaskError, match="no folder: give one with --data"):
        find_file("x.jsonl", [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "train.jsonl:21: not a line of JSON"),
        ("[1]", "train.jsonl:21: a row is a JSON object, got [1]"),
        (
            '{"question": "q", "reply": "r"}',
            "train.jsonl:21: no column answer, context, supporting_facts; there are question, "
            "reply: name the right ones with `columns:`",
        ),
        (
            json.dumps(hotpot_row(1, answer=None)),
            "train.jsonl:21: answer: text is wanted, got null",
        ),
        (json.dumps(hotpot_row(1, answer=7)), "answer: text is wanted, got 7"),
        (json.dumps(hotpot_row(1, context="c")), 'context: an object is wanted, got "c"'),
        (
            json.dumps(hotpot_row(1, context={"title": ["a"]})),
            "context: no field sentences; there are title",
        ),
        (
            json.dumps(hotpot_row(1, context={"title": ["a"], "sentences": ["b"]})),
            'context.sentences: a list is wanted, got "b"',
        ),
    ],
)
def test_a_bad_line_is_named(line, message, files, load, tmp_path):
    with files.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(TaskError) as caught:
        load()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nothing_cached(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "\xe9"}', "train.jsonl:21: not UTF-8: "),
        (b"[" * 10**5, "train.jsonl:21: too deeply nested"),
        (json.dumps(hotpot_row(1, answer="\ud800")).encode(), "train.jsonl: 'utf-8' codec can't"),
    ],
)
def test_bytes_that_are_no_text_are_named(line, message, files, load, tmp_path):
    with files.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(TaskError) as caught:
        load()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nothing_cached(tmp_path)


def test_an_empty_file_is_refused(files, load):
    files.write_text("\n")
    with pytest.raises(TaskError, match=r"train\.jsonl: no rows"):
        load()


def test_values_are_read_as_they_stand(tmp_path):
    fields = {"text": "text", "numbers": ["integer"], "nested": {"lists": [["text"]]}}
    written = [
        {"text": "2001-01-01", "numbers": [], "nested": {"lists": []}, "extra": 1},
        {"text": "007", "numbers": [2**40], "nested": {"lists": [[], ["a\r\nb"]]}, "more": {}},
    ]
    path = write_rows(tmp_path / "x.jsonl", written)
    source = Source(
        fields=fields,
        group_fields=("text",),
        hub="",
        config="",
        files=Files(train=str(path), validation=""),
    )
    read = open_rows(source, "train", tmp_path / "cache", [])
    assert [read[i] for i in range(len(read))] == [{k: row[k] for k in fields} for row in written]
    assert list(read.groups(("text",))) == ["2001-01-01", "007"]
    write_rows(path, [written[0] | {"numbers": [True]}])
    with pytest.raises(TaskError, match="numbers: integer is wanted, got true"):
        open_rows(source, "train", tmp_path / "cache", [])


def test_columns_map_other_names(files, load, tmp_path):
    plain = load()
    for name in ("train", "validation"):
        path = tmp_path / f"{name}.jsonl"
        renamed = [json.loads(line) for line in path.read_text().splitlines()]
        for row in renamed:
            row["reply"], row["answer"] = row["answer"], "wrong"
        write_rows(path, renamed)
    assert load(columns={"answer": "reply"}).digest == plain.digest


def test_the_hub_and_files_read_alike(files, load, tmp_path):
    # A folder of Parquet files has the form of a data set on the hub.
    hub = tmp_path / "hub"
    for name in ("train", "validation"):
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        data = datasets.Dataset.from_list([json.loads(line) for line in lines])
        hub.mkdir(exist_ok=True)
        data.to_parquet(hub / f"{name}.parquet")
    for split in ("train", "validation", "test"):
        from_hub = load(split, files=None, hub=str(hub), hub_config="")
        assert from_hub.digest == load(split).digest
    # Another column of text takes the answer's place.
    renamed = load(files=None, hub=str(hub), hub_config="", columns={"answer": "id"})
    assert Bytes().decode(renamed.example(0).answer).startswith(" row")
    with pytest.raises(TaskError, match="split train: no column no_such; there are id, question"):
        load(files=None, hub=str(hub), hub_config="", columns={"answer": "no_such"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "split validation, row 7: question: text is wanted, got null"),
        ({"answer": None}, "split validation, row 7: answer: text is wanted, got null"),
        (
            {"context": {"title": ["a", None], "sentences": [["b"], ["c"]]}},
            "split validation, row 7: context.title: text is wanted, got null",
        ),
    ],
)
def test_a_gap_in_a_row_of_the_hub_is_named(changes, message, load, tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    data = [*rows(0, 7), hotpot_row(7, **changes), *rows(8, 4)]
    datasets.Dataset.from_list(data).to_parquet(hub / "validation.parquet")
    datasets.Dataset.from_list(rows(20, 4)).to_parquet(hub / "train.parquet")
    with pytest.raises(TaskError) as caught:
        load("validation", files=None, hub=str(hub), hub_config="", validation_size=12)
    assert message in str(caught.value)
    assert nothing_cached(tmp_path)


def test_a_data_set_that_is_a_script_is_refused(load, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/hub.py").touch()
    with pytest.raises(TaskError, match=r"hub cannot be read .*scripts are no longer supported"):
        load(files=None, hub=str(tmp_path / "hub"), hub_config="")


class Gated(BaseHTTPRequestHandler):
    """A hub that shows nothing to strangers."""

    def do_HEAD(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


class Private(Gated):
    """A hub that does not tell strangers what there is."""

    def do_HEAD(self):
        self.send_response(401)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD


@pytest.fixture
def hub_at(request):
    """Environment in which the hub is offline, at an address where nobody listens, or a server."""
    if request.param == "offline":
        yield {"HF_HUB_OFFLINE": "1"}
    elif request.param == "nobody":
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            yield {"HF_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}"}
    else:
        with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
            server.shutdown()


@pytest.mark.parametrize(
    ("hub_at", "told", "advice"),
    [
        ("offline", "", "give local JSONL with `files:`"),
        ("nobody", "Couldn't reach", "give local JSONL with `files:`"),
        (Gated, "gated", "where it is gated, accept its terms, or"),
        (Private, "cannot be accessed", "log in with `hf auth login`"),
    ],
    indirect=["hub_at"],
)
def test_a_hub_that_gives_nothing_is_one_line_that_says_what_to_do(hub_at, told, advice, tmp_path):
    code = (
        "import time; time.sleep = lambda seconds: None\n"  # between the hub's attempts
        "from pathlib import Path; from task_cases import Bytes; from tasks import registry\n"
        "from tasks.splits import load_split; from tasks.example import TaskError\n"
        "task = registry.get('hotpot')\n"
        "try: load_split(task, task.Settings(train_size=1, validation_size=1), 'train', Bytes(),\n"
        f"    Path({str(tmp_path / 'cache')!r}), [])\n"
        "except TaskError as error: print(error)\n"
    )
    paths = os.pathsep.join([*sys.path])
    env = os.environ | {"PYTHONPATH": paths, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    env |= hub_at
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith("data set hotpotqa/hotpot_qa cannot be read from the hub (")
    assert told in result.stdout.partition(")")[0]
    assert advice in result.stdout
    assert result.stderr == ""
    assert nothing_cached(tmp_path)


def test_what_takes_long_says_how_far_it_is(files, load, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="tasks")
    load()
    assert not caplog.messages
    monkeypatch.setattr(progress, "TOLD_EVERY_S", -1.0)
    load(max_prompt_tokens=1999)  # another split of rows that are read
    assert "question of 0 of 20 rows looked at" in caplog.messages
    assert "hotpot train: 12 examples asked, 11 built from 12 rows" in caplog.messages
    write_rows(files, rows(0, 30))
    load()
    assert f"{files}: 30 lines read" in caplog.messages


def test_reading_prints_nothing(files, load, capfd):
    load()
    assert capfd.readouterr() == ("", "")
