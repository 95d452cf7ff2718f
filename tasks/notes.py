"""Prompts of an exact length: pieces of other rows, the last one cut."""

from collections.abc import Iterable

from tasks.example import TaskError


def filled(task: str, pieces: Iterable[list[int]], room: int) -> list[list[int]]:
    """The first pieces, so many that they have exactly `room` tokens together.

    Raises:
        TaskError: if the pieces do not suffice.
    """
    filling: list[list[int]] = []
    for tokens in pieces:
        if room == 0:
            break
        filling.append(tokens[:room])
        room -= len(filling[-1])
    if room:
        raise TaskError(
            f"{task}: {room} tokens are missing to fill a prompt; "
            "give data with more rows, or a smaller fill_to"
        )
    return filling
