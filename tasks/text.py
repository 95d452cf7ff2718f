"""Text as prompts have it."""


def one_line(text: str) -> str:
    """The text with every run of white space as one space: line ends separate pieces only."""
    return " ".join(text.split())
