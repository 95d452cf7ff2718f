"""Controls: what may be done to every example of a task so that an effect must change.

Which one is a setting of every task (`TaskSettings.control`), applied while a split is built.
"""

from dataclasses import replace

from tasks.example import Example, TaskError
from tasks.streams import stream_of
from tasks.task import Dropped


def controlled(example: Example, control: str) -> Example | Dropped:
    """The example under a control.

    Args:
        example: as the task builds it.
        control: none, shuffled_future or repeat_prompt.

    Raises:
        TaskError: shuffled_future of an example whose target is an answer: nothing is behind it.
    """
    if control == "none":
        return example
    if control == "repeat_prompt":
        length = len(example.prompt)
        positions = tuple(length + position for position in example.target_positions)
        return replace(example, prompt=example.prompt * 2, target_positions=positions)
    return _shuffled_future(example)


def _shuffled_future(example: Example) -> Example | Dropped:
    """Permutes the prompt's tokens behind the first target, those at targets left in place."""
    if not example.target_positions:
        raise TaskError(
            "control shuffled_future: nothing stands to the right of an answer; it is for tasks "
            "with targets inside the prompt"
        )
    targets = set(example.target_positions)
    first = min(targets)
    behind = [place for place in range(first + 1, len(example.prompt)) if place not in targets]
    tokens = [example.prompt[place] for place in behind]
    if len(set(tokens)) < 2:
        return Dropped("prompts with nothing to shuffle behind their first target")
    # The permutation follows from the prompt, so that it depends on no other example.
    stream_of(repr(example.prompt)).shuffle(tokens)
    prompt = list(example.prompt)
    for place, token in zip(behind, tokens, strict=True):
        prompt[place] = token
    return replace(example, prompt=tuple(prompt))
