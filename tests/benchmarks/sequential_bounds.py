"""Makes the boundaries of group-sequential confirmations, by simulation.

    PYTHONPATH=. python tests/benchmarks/sequential_bounds.py
        [--paths 8000000] [--out fstune/results/sequential_bounds.py]

Of many confirmations of normal seeds, a look's boundary is the value of Student's t that just the
share of them meets there first which the look may spend; of the first look it is Student's own
quantile. The same seed and the same NumPy write the same file, byte for byte. Takes about a minute
and a gigabyte.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fstune.results.deltas import FALSE_GAIN
from fstune.results.sequential import FALSE_EXCLUSION, normal_seeds, spent
from fstune.specs.sections import LOOKS

SEED = 20_261_201
CHUNK = 250_000

HEAD = '''"""Boundaries of group-sequential confirmations, by the seeds of the last look.

Made by `python tests/benchmarks/sequential_bounds.py`, not by hand. What they are for stands in
`sequential.py`. Each design has, for its looks in order, the multiple of the standard error at
which an interval ends (a gain is one that excludes zero), and that at which an effect is excluded.
"""

BOUNDS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
'''


def students_t(num_paths: int, chance: np.random.Generator) -> NDArray[np.float32]:
    """Student's t at each look, [look, path]: paths and their mirror images, half each."""
    t_KP = np.empty((len(LOOKS), 2 * num_paths), np.float32)
    for start in range(0, num_paths, CHUNK):
        stop = min(start + CHUNK, num_paths)
        mean_KP, error_KP = normal_seeds(LOOKS, stop - start, chance)
        t_KP[:, start:stop] = mean_KP / error_KP
    t_KP[:, num_paths:] = -t_KP[:, :num_paths]
    return t_KP


def boundaries(t_KP: NDArray[np.float32], shares: Sequence[float]) -> list[float]:
    """For each look the t that a given share of all paths meets there first."""
    found = [float(stdtrit(LOOKS[0] - 1, 1 - shares[0]))]
    left_P = t_KP[0] < found[0]
    for t_P, share in zip(t_KP[1:], shares[1:], strict=False):
        kept = int(left_P.sum()) - round(share * t_KP.shape[1])
        found.append(float(np.partition(t_P[left_P], kept)[kept]))
        left_P &= t_P < found[-1]
    return found


def table(num_paths: int, chance: np.random.Generator) -> dict[int, list[list[float]]]:
    """Both boundaries of each design, by the seeds of its last look."""
    t_KP = students_t(num_paths, chance)
    return {
        LOOKS[last]: [
            boundaries(t_KP, spent(error, last + 1)) for error in (FALSE_GAIN, FALSE_EXCLUSION)
        ]
        for last in range(1, len(LOOKS))
    }


def written(found: dict[int, list[list[float]]]) -> str:
    """The module that has them."""
    lines = []
    for last, both in found.items():
        values = [", ".join(f"{value:.3f}" for value in bound) for bound in both]
        lines += [f"    {last}: (", *(f"        ({each})," for each in values), "    ),"]
    return HEAD + "\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=8_000_000)
    parser.add_argument("--out", type=Path, default=Path("fstune/results/sequential_bounds.py"))
    arguments = parser.parse_args()
    text = written(table(arguments.paths, np.random.default_rng(SEED)))
    arguments.out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
