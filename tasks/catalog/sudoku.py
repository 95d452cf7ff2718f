"""sudoku and sudoku_after: the blank cells of a board, filled in place or listed after it.

sudoku wants each blank where it stands: in `SUDOKU4|B=0200…` the mask is 0, and what decides a
blank stands on both sides of it. sudoku_after is the control: `SUDOKU4|P=0200…|A=` wants the digits
of the blanks in reading order. Clues are never scored, every cell is one token, and every puzzle
has one solution only. Puzzles are generated, or real rows of `files` (`puzzle` and `solution`, 0
for a blank); no solved board feeds two splits. There are only 288 boards of side 4, of which
validation and test have an eighth each.

After the tasks of this name in the Future-Seed notes, whose puzzles could have several solutions.
"""

import random
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from tasks.catalog.sudoku_grid import blanked, count_solutions, draw_board, valid_units
from tasks.example import Example, Tokenizer
from tasks.metrics import EXACT_MATCH, NLL, TOKEN_ACCURACY, mean_of
from tasks.parts.symbols import DIGITS, Symbols, SymbolTask
from tasks.scoring import Prediction, Scorer
from tasks.sources import Files, Generated, Row, Source
from tasks.task import Builder, Dropped, Material, TaskSettings, require

_BLANK = "0"
_FRAME = "SUDOKU|BPA="
_MASKS = ("random", "prefix", "suffix", "given")
# With more at random, too many boards have no puzzle: 16 of 100 at 56 of 81, none under 54.
_MOST_BLANKS = {4: 12, 9: 56}


@dataclass(frozen=True, kw_only=True)
class _BoardSettings(TaskSettings):
    """What both forms have."""

    side: Literal[4, 9] = 4
    """Cells of a row, a column and a box."""
    blanks: int = 6
    """Cells to blank; 0 where `files` bring their own."""
    mask: Literal["random", "prefix", "suffix", "given"] = "random"
    """Which cells are blank: any, the first, the last, or as `files` have it."""
    files: Files | None = None
    """Local JSONL files with puzzles to read; without them, puzzles are generated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.side in _MOST_BLANKS, "side is 4 or 9", self.side)
        require(self.mask in _MASKS, f"mask is one of {', '.join(_MASKS)}", repr(self.mask))
        given = self.mask == "given"
        require(
            given == (self.files is not None), "mask is given with files and only so", self.mask
        )
        if given:
            require(self.blanks == 0, "blanks is 0 where files bring their own", self.blanks)
            return
        # Two blank rows that cross the same boxes could be swapped.
        most = _MOST_BLANKS[self.side] if self.mask == "random" else 2 * self.side - 1
        rule = f"1 <= blanks <= {most} with side {self.side} and mask {self.mask}"
        require(1 <= self.blanks <= most, rule, self.blanks)


_B = TypeVar("_B", bound=_BoardSettings)


VALID_UNITS = mean_of(
    "valid_units",
    True,
    "share of the rows, columns and boxes with blanks that obey the rules",
    worst=0.0,
)


class _BoardTask(SymbolTask[_B]):
    """What both forms have: rows, and the rules of the game.

    A puzzle has one solution, so that a board is valid where it is the exact one.
    """

    metrics = (TOKEN_ACCURACY, NLL, EXACT_MATCH, VALID_UNITS)

    def wanted_symbols(self, settings: _B) -> str:
        return DIGITS[1 : settings.side + 1]

    def scorer(self, settings: _B, tokenizer: Tokenizer) -> Scorer:
        digits = dict(
            zip(self.alphabet(settings, tokenizer), range(1, settings.side + 1), strict=True)
        )

        def measure(example: Example, prediction: Prediction) -> dict[str, float]:
            filled = (digits.get(token, 0) for token in prediction.tokens)
            cells = [next(filled) if seen == _BLANK else int(seen) for seen in example.reference]
            blanks = [cell for cell, seen in enumerate(example.reference) if seen == _BLANK]
            return {VALID_UNITS.name: valid_units(cells, settings.side, blanks)}

        return measure

    licence = "none needed: generated; with `files`, that of the files"
    origin = "generated from data_seed, or local JSONL by `files`"

    def source(self, settings: _B) -> Source | Generated:
        if settings.files is not None:
            return Source(
                fields={"puzzle": "text", "solution": "text"},
                group_fields=("solution",),
                hub="",
                config="",
                files=settings.files,
            )

        def draw(stream: random.Random) -> Row:
            board = draw_board(stream, settings.side)
            return {"solution": "".join(map(str, board)), "seed": stream.getrandbits(64)}

        def finish(row: Row) -> Row | None:
            board = [int(digit) for digit in row["solution"]]
            cells = list(range(len(board)))
            if settings.mask == "random":
                random.Random(row["seed"]).shuffle(cells)
            elif settings.mask == "prefix":
                cells = cells[: settings.blanks]
            else:
                cells = cells[-settings.blanks :]
            puzzle = blanked(board, settings.side, cells, settings.blanks)
            if puzzle is None:
                return None
            return {"solution": row["solution"], "puzzle": "".join(map(str, puzzle))}

        return Generated(
            draw=draw, group_fields=("solution",), finish=finish, example_fields=("puzzle",)
        )


@dataclass(frozen=True, kw_only=True)
class SudokuSettings(_BoardSettings):
    """Settings of sudoku."""

    name: Literal["sudoku"] = "sudoku"
    """Which task it is."""


class Sudoku(_BoardTask[SudokuSettings]):
    """Fills in the blank cells of a board."""

    name = "sudoku"
    version = 2
    summary = "fill in the blank cells of a Sudoku board of side 4 or 9, where they stand"
    needs_future = True
    Settings = SudokuSettings

    def builder(
        self, settings: SudokuSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + DIGITS, tokenizer)

        def build(row: Row) -> Example | Dropped:
            puzzle, solution = row["puzzle"], row["solution"]
            reason = _unfit(puzzle, solution, settings)
            if reason:
                return Dropped(reason)
            example = symbols.filled(f"SUDOKU{settings.side}|B=", puzzle, solution, "", _BLANK)
            return replace(example, reference=puzzle)

        return build


@dataclass(frozen=True, kw_only=True)
class SudokuAfterSettings(_BoardSettings):
    """Settings of sudoku_after."""

    name: Literal["sudoku_after"] = "sudoku_after"
    """Which task it is."""


class SudokuAfter(_BoardTask[SudokuAfterSettings]):
    """Lists the digits of a board's blank cells."""

    name = "sudoku_after"
    version = 2
    summary = "list, after a Sudoku board of side 4 or 9, the digits of its blank cells"
    needs_future = False
    Settings = SudokuAfterSettings

    def builder(
        self, settings: SudokuAfterSettings, tokenizer: Tokenizer, material: Material
    ) -> Builder:
        symbols = Symbols(self.name, _FRAME + DIGITS, tokenizer)

        def build(row: Row) -> Example | Dropped:
            puzzle, solution = row["puzzle"], row["solution"]
            reason = _unfit(puzzle, solution, settings)
            if reason:
                return Dropped(reason)
            pairs = zip(puzzle, solution, strict=True)
            answer = "".join(digit for seen, digit in pairs if seen == _BLANK)
            example = symbols.answered(f"SUDOKU{settings.side}|P={puzzle}|A=", answer)
            return replace(example, reference=puzzle)

        return build


def _unfit(puzzle: str, solution: str, settings: _BoardSettings) -> str:
    """Why a row of a file is no puzzle; empty if it is, and for generated rows."""
    if settings.files is None:
        return ""
    side = settings.side
    digits = set(DIGITS[1 : side + 1])
    if not len(puzzle) == len(solution) == side**2:
        return f"boards of another size than {side}x{side}"
    if not set(puzzle) <= digits | {_BLANK} or not set(solution) <= digits:
        return f"boards with other characters than 1-{side}, and 0 for a blank"
    if any(seen not in (_BLANK, digit) for seen, digit in zip(puzzle, solution, strict=True)):
        return "puzzles with another solution than the given"
    if _BLANK not in puzzle or not count_solutions([int(digit) for digit in solution], side):
        return "boards without a blank or with a broken rule"
    several = count_solutions([int(seen) for seen in puzzle], side) > 1
    return "puzzles with several solutions" if several else ""
