"""What can go wrong, and which exit code it becomes.

Every error here is written for the person who reads it: what is wrong, where, which value, and what
would be right. Programming errors stay ordinary exceptions.
"""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    SEARCH_FAILED = 1
    BAD_INPUT = 2
    STOPPED_BY_USER = 130


class FstuneError(Exception):
    """Base of all errors that are reported as a clear line, without a traceback."""

    exit_code = ExitCode.SEARCH_FAILED


class InputError(FstuneError):
    """The user's input is wrong: an argument, a file that is missing, data that do not suffice."""

    exit_code = ExitCode.BAD_INPUT


class SpecError(InputError):
    """A spec that breaks rules; carries all problems at once, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class SearchFailedError(FstuneError):
    """A search could not go on, or ended without a single completed trial."""


class StoreError(FstuneError):
    """What the store holds does not fit what is asked of it: damaged, foreign or contradictory."""
