"""What commands tell while they work."""

import logging

import pytest

from fstune.cli.terminal import working

ROWS = logging.getLogger("tasks.progress")


@pytest.mark.parametrize(("quiet", "told"), [(False, "10 rows\n"), (True, "")])
def test_a_pipe_gets_a_line_for_every_message_unless_it_is_to_be_quiet(capsys, quiet, told):
    with working("reading", quiet):
        ROWS.info("%d rows", 10)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", told)


def test_nothing_is_told_once_the_work_is_done(capsys):
    with pytest.raises(ValueError, match="no rows"), working("reading"):
        raise ValueError("no rows")
    ROWS.warning("10 rows")
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_message_beside_what_is_done(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with working("reading"):
        ROWS.info("%d rows", 10)
    assert "reading: 10 rows" in capsys.readouterr().out
