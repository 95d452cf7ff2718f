"""Timing for benchmarks: alternating runs of several contenders, and ratios with their spread.

These machines are noisy: contenders take turns, so that a slow moment meets all of them, and what
is reported is the ratio within a turn, not a time.
"""

import statistics
import time
from collections.abc import Callable, Mapping

Spread = dict[str, float]


def in_turns(contenders: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of each contender in each turn, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: list[float], digits: int = 4) -> Spread:
    """Median and quartiles."""
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    names = ("quartile_1", "median", "quartile_3")
    return {name: round(value, digits) for name, value in zip(names, quartiles, strict=True)}


def ratios(slow: list[float], fast: list[float]) -> Spread:
    """How many times faster `fast` is, turn by turn."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)], 2)
