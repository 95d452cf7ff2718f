"""The order in which an arm sees its training examples."""

import numpy as np


class BatchStream:
    """Which examples a step sees: every epoch all of them once, in an order of its own.

    A batch may reach over the end of an epoch. Steps are random access: nothing has to be saved.
    """

    def __init__(self, num_examples: int, batch_size: int, order_seed: int) -> None:
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._order_seed = order_seed
        self._epoch: tuple[int, list[int]] = (-1, [])

    def indices(self, step: int) -> list[int]:
        """Examples of the batch after `step` optimiser steps."""
        first = step * self._batch_size
        return [self._example(place) for place in range(first, first + self._batch_size)]

    def _example(self, place: int) -> int:
        epoch, offset = divmod(place, self._num_examples)
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self._order_seed, epoch])
            self._epoch = (epoch, rng.permutation(self._num_examples).tolist())
        return self._epoch[1][offset]
