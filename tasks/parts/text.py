"""Text as prompts have it."""

import re

# A mark of an end, what may close after it, a space, and what may begin a sentence.
_SENTENCE_END = re.compile(r"(?<=[.!?])([\"')\]”’]*) (?=[\"'(\[“‘]*[A-Z0-9])")


def one_line(text: str) -> str:
    """The text with every run of white space as one space: line ends separate pieces only."""
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """The sentences of a line, which joined by spaces give it again.

    A rule of thumb: an abbreviation before a capital ends one too.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return [
        text[low:high].strip() for low, high in zip([0, *ends], [*ends, len(text)], strict=True)
    ]


# How WikiText writes marks (Merity et al., arXiv 1609.07843, section 4.3): apart from their words,
# and with @ around those inside numbers and compounds.
_APART = (
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r'(?<!\S)" ([^"]*?) "(?!\S)'), r'"\1"'),
    (re.compile(r"(?<=\S) ([,.;:!?)\]])(?!\S)"), r"\1"),
    (re.compile(r"(?<!\S)([(\[]) (?=\S)"), r"\1"),
    (re.compile(r"(?<=\w) ('(?:s|t|re|ve|ll|d|m))(?!\w)"), r"\1"),
)


def detokenised(line: str) -> str:
    """A line with its marks where a writer puts them; text that is so already stays as it is."""
    for apart, together in _APART:
        line = apart.sub(together, line)
    return line
