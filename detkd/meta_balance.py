"""Weights of the terms that are learned on held-out samples, by looking one step ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detkd.agreeing import mean_over_processes
from detkd.balance import Balance, GradientRatio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from detkd.balance import Features

RATE = 0.1  # a term that pulls straight against the held-out task is shut off by ten measurements


class Meta(Balance):
    r"""Lets a term pull only as far as its pull helps on samples that the student does not train on.

    One step of SGD on the weighted sum takes the student from :math:`\theta` to :math:`\theta - \eta (\nabla L + \sum_i w_i
    \nabla T_i)`. What that does to the task loss :math:`L_h` of a held-out batch changes with a term's weight by

    .. math:: \frac{\partial L_h}{\partial w_i} = -\eta \, \langle \nabla L_h, \nabla T_i \rangle

    with the gradients at the student's parameters, to first order in :math:`\eta`; no graph of gradients is needed. A
    weight is a gate :math:`m_i` in [0, 1], 1 at the start, times what :class:`detkd.balance.GradientRatio` gives, so that
    no term can drown the labels. The gate descends this gradient, freed of the scales of losses and learning rate:

    .. math:: m_i \leftarrow \mathrm{clip}\big(m_i + \rho \cos(\nabla L_h, \nabla T_i), 0, 1\big)

    It is measured every few steps, at the price of the student's forward pass on the held-out batch and of one backward
    pass for it and for each term. A term that was shut off is measured on, and may come back. Several processes measure
    their own batches, and take the mean of products and squared norms.

    Args:
        shares: For each term, the norm of its gradient as a share of the task loss's, with an open gate.
        parameters: The student's that train.
        most: See :class:`detkd.balance.GradientRatio`.
        rate: :math:`\rho`.
        interval: Steps from one measurement to the next.

    Source:
        Ren et al.: Learning to Reweight Examples for Robust Deep Learning, ICML 2018, arXiv:1803.09050, equations 7 to 12,
        with terms for examples, weights that are kept from step to step, and cosines for products.
    """

    gates: Tensor

    def __init__(
        self,
        shares: Mapping[str, float],
        parameters: Sequence[nn.Parameter],
        *,
        most: Mapping[str, float] | None = None,
        rate: float = RATE,
        interval: int = 8,
    ) -> None:
        super().__init__()
        self.ratio = GradientRatio(shares, most=most)
        self.rate, self.interval = rate, interval
        self.register_buffer("gates", torch.ones(len(self.ratio.shares)))
        self._student = list(parameters)  # a list, so that they are none of this module's own
        self._step = 0
        self._ahead: list[Tensor | None] | None = None

    def look_ahead(self, held_out: Callable[[], Tensor]) -> None:
        """Take the gradient of the held-out task loss, every few steps."""
        if self._step % self.interval == 0:
            self._ahead = _gradients(held_out(), self._student, keep=False)

    def forward(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> dict[str, Tensor]:
        """Return the weight of each term for this step."""
        weights = self.ratio(task_loss, terms, features)
        if self._ahead is not None:
            self._learn(terms, self._ahead)
            self._ahead = None
        self._step += 1
        return {name: self.gates[self._place(name)] * weight for name, weight in weights.items()}

    def held_back(self, published: Mapping[str, float]) -> list[str]:
        """Say which terms would drown the task loss at their published weights and are held back."""
        return self.ratio.held_back(published)

    def get_extra_state(self) -> Tensor:
        """When to measure next."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from :meth:`get_extra_state`."""
        self._step = int(state)

    def _place(self, name: str) -> int:
        return list(self.ratio.shares).index(name)

    def _learn(self, terms: Mapping[str, Tensor], ahead: Sequence[Tensor | None]) -> None:
        measured = [_products(ahead, _gradients(term, self._student, keep=True)) for term in terms.values()]
        product, own, other = mean_over_processes(torch.stack(measured)).unbind(1)
        cosines = product / (own * other).sqrt().clamp(min=1e-30)
        places = [self._place(name) for name in terms]
        # An overflow in half precision says nothing of the term.
        self.gates[places] = (self.gates[places] + self.rate * torch.nan_to_num(cosines, 0.0, 0.0, 0.0)).clamp(0.0, 1.0)


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter], *, keep: bool) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True))


def _products(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    """The inner product of two gradients and the square of each one's norm, [3]; None stands for zeros."""
    device = next((gradient.device for gradient in (*one, *other) if gradient is not None), None)
    total = torch.zeros(3, device=device)
    for first, second in zip(one, other, strict=True):
        if first is not None and second is not None:
            total[0] += (first.float() * second.float()).sum()
        for place, gradient in ((1, first), (2, second)):
            if gradient is not None:
                total[place] += gradient.float().square().sum()
    return total
