"""Sudoku boards: drawn, blanked and solved. Digits and bits only; knows no task.

A board of side 4 or 9 is a list of side² digits in reading order, 0 where blank. A puzzle here has
exactly one solution: whoever blanks a cell proves it with `count_solutions`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# Cells blanked at a stroke while there are many clues; halved where that leaves several solutions.
_STROKE = 16


@dataclass(frozen=True)
class _Geometry:
    """Which row, column and box each cell is in, as indices into one list of 3·side units."""

    side: int
    units: tuple[tuple[int, int, int], ...]
    digits: tuple[tuple[int, ...], ...]
    """The digits of a set that is given as bits: bit d - 1 stands for digit d."""


@lru_cache(maxsize=2)
def _geometry(side: int) -> _Geometry:
    box = round(side**0.5)
    cells = [divmod(cell, side) for cell in range(side * side)]
    return _Geometry(
        side=side,
        units=tuple(
            (row, side + column, 2 * side + row // box * box + column // box)
            for row, column in cells
        ),
        digits=tuple(
            tuple(digit for digit in range(1, side + 1) if bits >> (digit - 1) & 1)
            for bits in range(1 << side)
        ),
    )


class _Search:
    """Depth-first search that fills next the cell that leaves the least to try."""

    def __init__(self, cells: Sequence[int], side: int, stream: random.Random | None) -> None:
        self._geometry = _geometry(side)
        self._stream = stream
        self.cells = list(cells)
        self._free = [(1 << side) - 1] * (3 * side)
        # A dict for its order: that of a set is no promise of the language.
        self._blank = dict.fromkeys(cell for cell, digit in enumerate(cells) if digit == 0)
        self.consistent = all(
            self._place(cell, digit) for cell, digit in enumerate(cells) if digit != 0
        )

    def _place(self, cell: int, digit: int) -> bool:
        """Whether the digit is free in all units of the cell; takes it there if so."""
        free, bit = self._free, 1 << (digit - 1)
        row, column, box = self._geometry.units[cell]
        if not free[row] & free[column] & free[box] & bit:
            return False
        free[row] ^= bit
        free[column] ^= bit
        free[box] ^= bit
        return True

    def count(self, limit: int) -> int:
        """Solutions, `limit` at most; `cells` holds the last one found if it reaches the limit."""
        cell, bits = self._narrowest()
        if cell < 0:
            return 1
        digits = list(self._geometry.digits[bits])
        if self._stream is not None:
            self._stream.shuffle(digits)
        free = self._free
        row, column, box = self._geometry.units[cell]
        found = 0
        del self._blank[cell]
        for digit in digits:
            bit = 1 << (digit - 1)
            free[row] ^= bit
            free[column] ^= bit
            free[box] ^= bit
            self.cells[cell] = digit
            found += self.count(limit - found)
            free[row] ^= bit
            free[column] ^= bit
            free[box] ^= bit
            if found >= limit:
                break
        self._blank[cell] = None
        return found

    def _narrowest(self) -> tuple[int, int]:
        """The blank cell to fill next and its digits as bits; -1 where none is blank.

        A cell with at most one digit left, else one that is the last place of a digit in a unit,
        else one with the fewest digits left; no digits where a unit has no place for one of its.
        """
        free, units = self._free, self._geometry.units
        best, best_bits, fewest = -1, 0, 99
        once, twice = [0] * len(free), [0] * len(free)
        for cell in self._blank:
            row, column, box = units[cell]
            bits = free[row] & free[column] & free[box]
            count = bits.bit_count()
            if count < fewest:
                best, best_bits, fewest = cell, bits, count
                if count < 2:
                    return best, best_bits
            for unit in units[cell]:
                twice[unit] |= once[unit] & bits
                once[unit] |= bits
        if once != free:
            return best, 0
        for cell in self._blank:
            row, column, box = units[cell]
            last = once[row] & ~twice[row] | once[column] & ~twice[column] | once[box] & ~twice[box]
            last &= free[row] & free[column] & free[box]
            if last:
                return cell, last & -last
        return best, best_bits


def count_solutions(cells: Sequence[int], side: int, limit: int = 2) -> int:
    """How many boards complete `cells`, `limit` at most."""
    search = _Search(cells, side, None)
    return search.count(limit) if search.consistent else 0


def draw_board(stream: random.Random, side: int) -> list[int]:
    """A complete board, found by filling cells with digits in random order."""
    cells = [0] * (side * side)
    cells[:side] = stream.sample(range(1, side + 1), k=side)
    search = _Search(cells, side, stream)
    search.count(1)
    return search.cells


def blanked(board: Sequence[int], side: int, order: Sequence[int], blanks: int) -> list[int] | None:
    """The board with `blanks` cells blanked and one solution left, or None if that fails.

    Cells are blanked in `order`, one after the other; one whose blanking would leave several
    solutions stays a clue.
    """
    cells = list(board)
    waiting = [list(order)]
    done = 0
    while waiting and done < blanks:
        chunk = waiting.pop()
        size = min(len(chunk), _STROKE, blanks - done)
        if size < len(chunk):
            waiting.append(chunk[size:])
            chunk = chunk[:size]
        for cell in chunk:
            cells[cell] = 0
        if count_solutions(cells, side) == 1:
            done += size
            continue
        for cell in chunk:
            cells[cell] = board[cell]
        if size > 1:
            waiting += [chunk[size // 2 :], chunk[: size // 2]]
    return cells if done == blanks else None


def valid_units(cells: Sequence[int], side: int, blanks: Sequence[int]) -> float:
    """Share of the rows, columns and boxes with one of `blanks` that hold every digit once."""
    digits_of: dict[int, list[int]] = {}
    for digit, units in zip(cells, _geometry(side).units, strict=True):
        for unit in units:
            digits_of.setdefault(unit, []).append(digit)
    asked = {unit for cell in blanks for unit in _geometry(side).units[cell]}
    whole = set(range(1, side + 1))
    return sum(set(digits_of[unit]) == whole for unit in asked) / len(asked)
