"""Sudoku against a solver of another kind, and its rows from files."""

import json
import random
from collections import Counter

import pytest
from task_cases import write_rows

from model.tokenizer import WorldTokenizer
from tasks.catalog.sudoku import Sudoku, SudokuAfter
from tasks.catalog.sudoku_grid import blanked, count_solutions, draw_board, valid_units
from tasks.example import TaskError
from tasks.sources import Files
from tasks.splits import load_split

BOTH = pytest.mark.parametrize("task", [Sudoku, SudokuAfter])


def peers(cell, side):
    """Cells that may not hold what `cell` holds."""
    box = {4: 2, 9: 3}[side]
    row, column = divmod(cell, side)
    return [
        other
        for other in range(side * side)
        if other != cell
        and (
            other // side == row
            or other % side == column
            or (other // side // box, other % side // box) == (row // box, column // box)
        )
    ]


PEERS = {side: [peers(cell, side) for cell in range(side * side)] for side in (4, 9)}


def solutions(puzzle, side):
    """All boards that complete a puzzle: tries every digit in the first blank cell, and so on."""
    cell = puzzle.find("0")
    if cell < 0:
        yield puzzle
        return
    taken = {puzzle[other] for other in PEERS[side][cell]}
    for digit in "123456789"[:side]:
        if digit not in taken:
            yield from solutions(puzzle[:cell] + digit + puzzle[cell + 1 :], side)


def keeps_the_rules(board, side):
    return set(board) == set("123456789"[:side]) and not any(
        board[cell] == board[other] for cell in range(side * side) for other in PEERS[side][cell]
    )


def puzzles(task, split, tokenizer):
    """Puzzle and solved board of every example, put together from prompt and targets."""
    for index in range(len(split)):
        example = split.example(index)
        prompt = tokenizer.decode(example.prompt)
        assert len(prompt) == len(example.prompt)
        puzzle = prompt.split("=")[1].split("|")[0]
        wanted = tokenizer.decode(example.target_tokens + example.answer)
        blank = [cell for cell, seen in enumerate(puzzle) if seen == "0"]
        assert len(wanted) == len(blank) == split.target_counts[index]
        if task is Sudoku:
            start = prompt.index("=") + 1
            assert example.target_positions == tuple(start + cell for cell in blank)
        board = list(puzzle)
        for cell, digit in zip(blank, wanted, strict=True):
            board[cell] = digit
        yield puzzle, "".join(board)


CASES = [
    {"side": 4, "blanks": 6},
    {"side": 4, "blanks": 12},
    {"side": 4, "blanks": 7, "mask": "prefix"},
    {"side": 4, "blanks": 7, "mask": "suffix"},
    {"side": 9, "blanks": 40},
    {"side": 9, "blanks": 14, "mask": "prefix"},
    {"side": 9, "blanks": 14, "mask": "suffix"},
]


@BOTH
@pytest.mark.parametrize("changes", CASES, ids=str)
def test_a_puzzle_has_one_solution_and_it_is_wanted(task, changes, tmp_path):
    tokenizer = WorldTokenizer()
    side, blanks = changes["side"], changes["blanks"]
    settings = task.Settings(train_size=20, validation_size=3, **changes)
    split = load_split(task(), settings, "train", tokenizer, tmp_path, [])
    found = list(puzzles(task, split, tokenizer))
    assert len({puzzle for puzzle, _ in found}) == 20
    for puzzle, board in found:
        assert keeps_the_rules(board, side)
        assert list(solutions(puzzle, side)) == [board]
        assert puzzle.count("0") == blanks
        if changes.get("mask") == "prefix":
            assert puzzle[:blanks] == "0" * blanks
        if changes.get("mask") == "suffix":
            assert puzzle[-blanks:] == "0" * blanks


@pytest.mark.parametrize("side", [4, 9])
def test_solutions_are_counted_as_a_plain_search_counts_them(side):
    stream = random.Random(side)
    seen = set()
    for _ in range(30):
        board = draw_board(stream, side)
        blank = stream.sample(range(side * side), k=stream.randint(2, {4: 13, 9: 45}[side]))
        cells = [0 if cell in blank else digit for cell, digit in enumerate(board)]
        if stream.random() < 0.2:
            # A clue that may break a rule, or leave nothing to be found.
            cells[stream.randrange(len(cells))] = stream.randint(1, side)
        puzzle = "".join(map(str, cells))
        broken = any(
            digit != "0" and digit in {puzzle[other] for other in PEERS[side][cell]}
            for cell, digit in enumerate(puzzle)
        )
        plain = (
            0 if broken else sum(1 for _ in zip(range(3), solutions(puzzle, side), strict=False))
        )
        assert count_solutions(cells, side, limit=3) == plain
        seen.add(plain)
    assert {0, 1, 3} <= seen


def test_boards_are_drawn_from_all_there_are():
    stream = random.Random(0)
    every = set(solutions("0" * 16, 4))
    assert len(every) == 288
    drawn = Counter("".join(map(str, draw_board(stream, 4))) for _ in range(4000))
    assert set(drawn) == every
    assert keeps_the_rules("".join(map(str, draw_board(stream, 9))), 9)


def test_a_board_that_cannot_be_blanked_so_far_gives_none():
    board = draw_board(random.Random(0), 4)
    assert blanked(board, 4, range(8), 8) is None
    assert blanked(board, 4, range(16), 14) is None
    cells = blanked(board, 4, range(16), 8)
    assert cells.count(0) == 8
    assert all(cell in (0, digit) for cell, digit in zip(cells, board, strict=True))


@BOTH
def test_no_board_feeds_two_splits(task, tmp_path, tokenizer):
    settings = task.Settings(train_size=400, validation_size=60, test_size=60, blanks=8)
    boards = {}
    for name in ("train", "validation", "test"):
        split = load_split(task(), settings, name, tokenizer, tmp_path, [])
        found = list(puzzles(task, split, tokenizer))
        # More puzzles than boards, none of them twice.
        assert len({puzzle for puzzle, _ in found}) == len(found) == settings.size(name)
        boards[name] = {board for _, board in found}
        assert len(boards[name]) < len(found)
    assert len(set.union(*boards.values())) == sum(map(len, boards.values()))


def known_from_the_left(puzzle, cell):
    """Digits that a blank can have if only the clues before it are known."""
    left = puzzle[:cell] + "0" * (16 - cell)
    return {board[cell] for board in solutions(left, 4)}


def test_clues_to_the_left_leave_blanks_open_unless_all_stand_there(tmp_path, tokenizer):
    open_shares = {}
    for mask in ("prefix", "random", "suffix"):
        settings = Sudoku.Settings(train_size=10, validation_size=1, blanks=6, mask=mask)
        split = load_split(Sudoku(), settings, "train", tokenizer, tmp_path, [])
        choices = [
            len(known_from_the_left(puzzle, cell))
            for puzzle, _ in puzzles(Sudoku, split, tokenizer)
            for cell, seen in enumerate(puzzle)
            if seen == "0"
        ]
        open_shares[mask] = sum(choice > 1 for choice in choices) / len(choices)
    assert open_shares["prefix"] == 1.0
    assert 0.4 < open_shares["random"] < 1.0
    assert open_shares["suffix"] == 0.0


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"side": 6}, "side is 4 or 9 must hold, got 6"),
        ({"mask": "first"}, "mask is one of random, prefix, suffix, given"),
        ({"mask": "given"}, "mask is given with files and only so"),
        ({"files": Files("a", "b")}, "mask is given with files and only so must hold, got random"),
        ({"files": Files("a", "b"), "mask": "given"}, "blanks is 0 where files bring their own"),
        ({"blanks": 0}, "1 <= blanks <= 12 with side 4 and mask random must hold, got 0"),
        ({"blanks": 13}, "1 <= blanks <= 12"),
        ({"side": 9, "blanks": 57}, "1 <= blanks <= 56"),
        ({"blanks": 8, "mask": "prefix"}, "1 <= blanks <= 7 with side 4 and mask prefix"),
        ({"side": 9, "blanks": 18, "mask": "suffix"}, "1 <= blanks <= 17"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        Sudoku.Settings(**{"train_size": 2, "validation_size": 2} | changes)


SOLVED = "1234341221434321"


def file_row(puzzle, solution=SOLVED):
    return {"puzzle": puzzle, "solution": solution, "level": "kids"}


def from_files(tmp_path, rows, tokenizer, size=1):
    write_rows(tmp_path / "train.jsonl", rows)
    # Another solution, so that it takes no row from train.
    write_rows(tmp_path / "validation.jsonl", [file_row("0", "4" * 16)])
    files = Files("train.jsonl", "validation.jsonl")
    settings = Sudoku.Settings(
        train_size=size, validation_size=1, blanks=0, mask="given", files=files
    )
    return load_split(Sudoku(), settings, "train", tokenizer, tmp_path / "cache", [tmp_path])


def test_rows_of_a_file_keep_their_own_blanks(tmp_path, tokenizer):
    split = from_files(tmp_path, [file_row("0" + SOLVED[1:15] + "0")], tokenizer)
    assert list(puzzles(Sudoku, split, tokenizer)) == [("0" + SOLVED[1:15] + "0", SOLVED)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (file_row("0" + SOLVED), "boards of another size than 4x4"),
        (file_row("." + SOLVED[1:]), "boards with other characters than 1-4, and 0 for a blank"),
        (file_row("0" + SOLVED[1:], "0" + SOLVED[1:]), "boards with other characters"),
        (file_row(SOLVED), "boards without a blank or with a broken rule"),
        (file_row("0" * 16, "1" * 16), "boards without a blank or with a broken rule"),
        (file_row("02" + SOLVED[2:], "21" + SOLVED[2:]), "puzzles with another solution"),
        (file_row("0" * 8 + SOLVED[8:]), "puzzles with several solutions"),
    ],
)
def test_rows_of_a_file_that_are_no_puzzle_are_counted(row, reason, tmp_path, tokenizer):
    with pytest.raises(TaskError, match=f"1 {reason}"):
        from_files(tmp_path, [row], tokenizer)


def test_real_rows_are_puzzles(real_data, tmp_path):
    path = real_data / "sudoku" / "train.jsonl"
    if not path.is_file():
        pytest.skip(f"no real rows: {path} is absent")
    lines = path.read_text().splitlines()
    write_rows(tmp_path / "a.jsonl", [json.loads(line) for line in lines[::200]])
    write_rows(tmp_path / "b.jsonl", [json.loads(line) for line in lines[1::500]])
    files = Files("a.jsonl", "b.jsonl")
    settings = Sudoku.Settings(
        train_size=25, validation_size=5, side=9, blanks=0, mask="given", files=files
    )
    tokenizer = WorldTokenizer()
    split = load_split(Sudoku(), settings, "train", tokenizer, tmp_path / "cache", [tmp_path])
    for puzzle, board in puzzles(Sudoku, split, tokenizer):
        assert keeps_the_rules(board, 9)
        if puzzle.count("0") < 50:
            assert list(solutions(puzzle, 9)) == [board]


def test_valid_units_are_those_that_a_player_would_accept():
    board = "1234341221434321"
    cells = [int(digit) for digit in board]
    assert valid_units(cells, 4, range(16)) == 1.0
    swapped = [*cells[:2], cells[3], cells[2], *cells[4:]]  # breaks columns 3 and 4 alone
    assert valid_units(swapped, 4, range(16)) == pytest.approx(10 / 12)
    assert valid_units(swapped, 4, [2]) == pytest.approx(2 / 3)
    assert valid_units(swapped, 4, [0]) == 1.0
    assert valid_units([0, *cells[1:]], 4, [0]) == 0.0
