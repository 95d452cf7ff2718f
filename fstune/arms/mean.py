"""The exponential mean of a module's weights over the optimiser steps.

With w_s the weights after step s and a decay d, after t steps it is

    m_t = Σ_s d^(t-s) · w_s / Σ_s d^(t-s),  s = 1 … t

the mean that starts at 0, corrected for its start as Adam corrects its moments (Kingma and Ba,
arXiv 1412.6980, section 3). Started from the initial weights instead, it would hold 40 % of them
after 30 steps at d = 0.97: a short rung would be told by what it began with. Kept as the corrected
mean itself, which moves by

    m_t = m_{t-1} + (1 - d) / (1 - d^t) · (w_t - m_{t-1})

so that no count beside the step has to be stored, and m_1 = w_1. What is evaluated is decided in
`trainer`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightMean:
    """The mean of all parameters that are trained, float32; the others have none.

    Args:
        module: what is trained; which of its parameters are is read off `requires_grad` now.
        decay: d above, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._trained = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._means = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in self._trained.items()
        }

    def update(self, steps: int) -> None:
        """Take the weights after so many steps in, counted from 1 and each once."""
        if self._means:
            share = (1.0 - self._decay) / (1.0 - self._decay**steps)
            weights = [parameter.detach() for parameter in self._trained.values()]
            torch._foreach_lerp_(list(self._means.values()), weights, share)

    def exchange(self) -> None:
        """Put the mean where the weights are, and the weights where it was; again undoes it."""
        for name, parameter in self._trained.items():
            parameter.data, self._means[name] = self._means[name], parameter.data

    def state_dict(self) -> dict[str, Tensor]:
        """The mean by the parameters' names."""
        return dict(self._means)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            ValueError: if it is of other parameters.
        """
        if state.keys() != self._means.keys():
            raise ValueError(f"a mean of {sorted(self._means)}, got one of {sorted(state)}")
        for name, mean in self._means.items():
            mean.copy_(state[name])
