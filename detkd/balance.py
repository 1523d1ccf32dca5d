"""Weights of the distillation terms against the task loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BalanceName = Literal["none", "gradient_ratio"]


class GradientRatio(nn.Module):
    """Holds the gradient of each term at a set share of the task loss's gradient.

    Both are measured as norms of the gradient at the features where the student's neck meets its head: every term and the
    task loss pass through them, and the way there costs one backward pass through the head alone. The norms are
    measured on every `interval`-th step and averaged, so the weights move slowly and cost little.

    A method's published weight was tuned to one task loss at one batch size; on another the same weight can drown the
    task, or do nothing. The idea of balancing by gradient norms is GradNorm's (Chen et al. 2018, arXiv:1711.02257); there
    the weights are learned, here they follow from the measured norms directly.

    Args:
        shares: For each term, the norm of its gradient as a share of the task loss's.
        interval: Steps from one measurement to the next.
        momentum: Share of the former average that a new measurement keeps.
    """

    norms: Tensor

    def __init__(self, shares: Mapping[str, float], *, interval: int = 8, momentum: float = 0.8) -> None:
        super().__init__()
        self.shares = dict(shares)
        self.interval = interval
        self.momentum = momentum
        # Averages of the norms, the task's first; 0 where never measured. Saved, so that a resumed run goes on from them.
        self.register_buffer("norms", torch.zeros(1 + len(self.shares)))
        self._step = 0

    def forward(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the weight of each term for this step.

        Args:
            task_loss: The scalar that the trainer minimises without distillation.
            terms: The unweighted scalar of each term, in the order of `shares`.
            features: Student activations that the task loss and the terms depend on.
        """
        if self._step % self.interval == 0:
            self._measure([task_loss, *terms.values()], features)
        self._step += 1
        task, *rest = self.norms.unbind()
        # A term without gradient (nothing to learn in this batch) must not blow its weight up.
        return {
            name: share * task / norm.clamp(min=1e-3 * task.clamp(min=1e-12))
            for (name, share), norm in zip(self.shares.items(), rest, strict=True)
        }

    def _measure(self, losses: Sequence[Tensor], features: Sequence[Tensor]) -> None:
        norms = torch.stack([_gradient_norm(loss, features) for loss in losses])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(norms)  # the same weights in every process
            norms = norms / torch.distributed.get_world_size()
        keep = self.momentum * (self.norms > 0)
        averages = keep * self.norms + (1 - keep) * norms
        # One overflow in half precision must not stay in the average for ever.
        self.norms.copy_(torch.where(torch.isfinite(norms), averages, self.norms))


def _gradient_norm(loss: Tensor, features: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(loss, list(features), retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=loss.device)
