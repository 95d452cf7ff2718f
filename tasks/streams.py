"""Random numbers that follow from a text alone, the same on every machine."""

import hashlib
import random


def stream_of(text: str) -> random.Random:
    """What a row draws from its own content, so that it depends on no other row."""
    return random.Random(hashlib.sha256(text.encode()).digest())
