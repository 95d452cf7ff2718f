"""Boundaries of group-sequential confirmations, by the seeds of the last look.

Made by `python tests/benchmarks/sequential_bounds.py`, not by hand. What they are for stands in
`sequential.py`. Each design has, for its looks in order, the multiple of the standard error at
which an interval ends (a gain is one that excludes zero), and that at which an effect is excluded.
"""

BOUNDS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    6: (
        (6.741, 3.630),
        (2.821, 1.590),
    ),
    8: (
        (8.575, 4.357, 3.304),
        (3.740, 2.169, 1.570),
    ),
    12: (
        (10.215, 4.941, 3.709, 3.074),
        (4.541, 2.608, 1.958, 1.597),
    ),
    16: (
        (11.724, 5.442, 4.043, 3.322, 2.948),
        (5.268, 2.972, 2.258, 1.878, 1.586),
    ),
    24: (
        (13.139, 5.880, 4.327, 3.527, 3.128, 2.884),
        (5.943, 3.286, 2.509, 2.102, 1.809, 1.639),
    ),
    32: (
        (14.479, 6.280, 4.576, 3.701, 3.281, 3.017, 2.829),
        (6.580, 3.563, 2.724, 2.286, 1.991, 1.820, 1.632),
    ),
}
