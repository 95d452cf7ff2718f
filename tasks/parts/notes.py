"""Prompts filled to a length: pieces of quoted text, whole as far as they go, the last one cut."""

from collections.abc import Iterable

from tasks.example import TaskError


def filled(pieces: Iterable[list[int]], room: int, what: str, advice: str) -> list[list[int]]:
    """So many tokens of the pieces, in their order.

    Args:
        pieces: tokens of each; read only as far as needed.
        room: tokens wanted.
        what: names the task and the pieces, for the error.
        advice: what to do about it.

    Raises:
        TaskError: if the pieces do not suffice.
    """
    found: list[list[int]] = []
    for tokens in pieces:
        if room == 0:
            break
        found.append(tokens[:room])
        room -= len(found[-1])
    if room:
        raise TaskError(f"{what} are {room} tokens too short to fill a prompt: {advice}")
    return found
