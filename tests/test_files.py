import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstune.files import HashedFile, file_digest, whole_file, whole_folder, write_atomic, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half_written(path: Path) -> None:
    path.write_text("half")
    raise OSError("no space")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_json(path, {"é": 1})
    assert json.loads(path.read_text()) == {"é": 1}
    with pytest.raises(TypeError):
        write_atomic(path, "text, not bytes")
    with pytest.raises(OSError, match="no space"), whole_file(path) as draft:
        half_written(draft)
    assert json.loads(path.read_text()) == {"é": 1}
    assert names(path.parent) == ["file.json"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced: list[Path] = []
    sync = os.fsync

    def watched(handle: int) -> None:
        sync(handle)
        assert not (tmp_path / "file").exists()
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", watched)
    write_atomic(tmp_path / "file", b"text")
    assert [path.name for path in synced] == ["file"]


def test_a_folder_appears_whole_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "new" / "folder"
    for content in ("first", "second"):
        with whole_folder(path) as draft:
            (draft / content).write_text(content)
            assert names(path.parent) != ["folder"], "a draft stands elsewhere"
    assert names(path) == ["second"]
    assert names(path.parent) == ["folder"]


def test_a_folder_that_was_not_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "folder"
    with whole_folder(path) as draft:
        (draft / "first").touch()
    with pytest.raises(OSError, match="no space"), whole_folder(path) as draft:
        half_written(draft / "second")
    assert names(path) == ["first"]
    assert names(tmp_path) == ["folder"]


def test_what_is_written_is_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "file", b"")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


@given(st.lists(st.binary(max_size=5000), max_size=8), st.integers(0, 3))
def test_what_is_hashed_on_its_way_to_the_disk_is_what_is_there(tmp_path_factory, parts, reused):
    path = tmp_path_factory.getbasetemp() / "hashed"
    memory = bytearray(5000)
    with HashedFile(path) as file:
        for index, part in enumerate(parts):
            if index % 4 == reused:
                file.write(part)
                continue
            # As writers do that have one buffer for all they write.
            memory[: len(part)] = part
            file.write(memoryview(memory)[: len(part)])
    assert path.read_bytes() == b"".join(parts)
    assert (file.digest, file.size) == (file_digest(path), len(b"".join(parts)))


def test_what_is_hashed_on_its_way_is_written_from_beginning_to_end(tmp_path):
    with HashedFile(tmp_path / "hashed") as file:
        file.write(b"some")
        assert not file.seekable()
        with pytest.raises(OSError, match="seek"):
            file.seek(0)
