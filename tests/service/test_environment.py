"""What is recorded of the code that a search runs."""

import re
import subprocess
from pathlib import Path

from fstune.environment import code_digest, commit_of, describe


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=x", "-c", "user.email=x@y.z")
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_repository_that_only_lies_around_the_code_does_not_give_its_commit(tmp_path):
    git(tmp_path, "init", "--quiet")
    own, installed = tmp_path / "own", tmp_path / "venv" / "fstune"
    for folder in (own, installed):
        folder.mkdir(parents=True)
        (folder / "code.py").write_text("")
    git(tmp_path, "add", "own")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    assert commit_of(installed) == "unknown"
    assert commit_of(own) == git(tmp_path, "rev-parse", "--short=12", "HEAD")
    (own / "code.py").write_text("changed")
    assert commit_of(own).endswith("-dirty")
    assert commit_of(tmp_path / "nowhere") == "unknown"


def test_code_is_told_by_its_content_wherever_it_lies(tmp_path):
    for place in ("one", "other"):
        (tmp_path / place / "pack" / "inner").mkdir(parents=True)
        (tmp_path / place / "pack" / "a.py").write_text("a = 1\n")
        (tmp_path / place / "pack" / "inner" / "b.py").write_text("")
    one, other = (tmp_path / place / "pack" for place in ("one", "other"))
    first = code_digest(one)
    assert code_digest(other) == first
    (other / "a.py").rename(other / "inner" / "a.py")
    assert code_digest(other) != first
    (one / "a.py").write_text("a = 2\n")
    assert code_digest(one) != first
    assert re.fullmatch("[0-9a-f]{16}", describe()["code"])
