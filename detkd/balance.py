"""Weights of the distillation terms against the task loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from detkd.agreeing import mean_over_processes
from detkd.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Features = Mapping[str, Sequence[Tensor]]

BalanceName = Literal["none", "gradient_ratio", "uncertainty", "meta"]

STEADY = 0.2  # share of its average by which a proportion of gradients may be off; batches differ by .1 to .3
LEAP = 2.0  # growth that is no noise: from there on a term is held back at once
HALF_SCALE = 1024.0  # of gradients at features in half precision, most of which would be 0 there


class Balance(nn.Module):
    """What every balance answers; most have nothing to add to the loss and nothing to report."""

    def forward(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> dict[str, Tensor]:
        """Return the weight of each term for this step.

        Args:
            task_loss: The scalar that the trainer minimises without distillation.
            terms: The unweighted scalar of each term; those that the balance was made for, or some of them.
            features: For each term student activations that it and the task loss depend on.
        """
        raise NotImplementedError

    def look_ahead(self, held_out: Callable[[], Tensor]) -> None:
        """Look at samples that the student does not train on, before it runs on the batch of a step.

        Args:
            held_out: Runs the student on a batch of them and returns its task loss, a scalar with gradient.
        """
        del held_out

    def penalty(self, name: str) -> Tensor | float:
        """What a term's weight adds to the loss by itself."""
        del name
        return 0.0

    def held_back(self, published: Mapping[str, float]) -> list[str]:
        """Say which terms would drown the task loss at their published weights and are held back."""
        del published
        return []


class FixedWeights(Balance):
    """Uses weights as they are.

    Args:
        weights: Weight of each term.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> dict[str, Tensor]:
        """Return the weight of each term."""
        del features
        return {name: task_loss.new_tensor(self.weights[name]) for name in terms}


class GradientRatio(Balance):
    """Holds the gradient of each term at a set share of the task loss's gradient.

    Both are measured as norms of the gradient at features that both pass through, as near to them as there are, as where a
    detector's neck meets its head: the way there costs one backward pass through the head alone. The norms are
    measured every few steps and averaged, so the weights move slowly and cost little; as long as they keep to their
    average, in proportion to the task loss's, each measurement is twice as far from the last one. A term whose gradient
    has doubled is not averaged any more, and one whose value has doubled since the last measurement counts as one whose
    gradient grew with it: it would pull too hard until the next one.

    A method's published weight was tuned to one task loss at one batch size; on another the same weight can drown the
    task, or do nothing. The idea of balancing by gradient norms is GradNorm's (Chen et al. 2018, arXiv:1711.02257); there
    the weights are learned, here they follow from the measured norms directly.

    Args:
        shares: For each term, the norm of its gradient as a share of the task loss's.
        most: The largest weight of terms that are held back alone, and never raised to their share.
        interval: Steps from one measurement to the next, at first and wherever the proportions move.
        longest: Steps that these become at most.
        momentum: Share of the former average that a new measurement keeps.
    """

    norms: Tensor
    values: Tensor

    def __init__(
        self,
        shares: Mapping[str, float],
        *,
        most: Mapping[str, float] | None = None,
        interval: int = 8,
        longest: int = 64,
        momentum: float = 0.8,
    ) -> None:
        super().__init__()
        self.shares, self.most = dict(shares), dict(most or {})
        self.interval, self.longest = interval, longest
        self.momentum = momentum
        # For each term averages of the task's norm and of its own where it is weighed; 0 where never measured.
        self.register_buffer("norms", torch.zeros(2, len(self.shares)))
        self.register_buffer("values", torch.zeros(len(self.shares)))  # at the last measurement
        self._step = self._next = 0
        self._current = interval
        self._seen: set[str] = set()

    def forward(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> dict[str, Tensor]:
        """Return the weight of each term for this step; every few steps the gradients are measured for it."""
        if self._step == self._next or not terms.keys() <= self._seen:  # a schedule may bring a term in later
            steady = self._measure(task_loss, terms, features)
            self._current = min(2 * self._current, self.longest) if steady else self.interval
            self._next = self._step + self._current
            self._seen |= terms.keys()
        self._step += 1
        growth = self._growth(terms)
        weights = {}
        for name, grown in zip(terms, growth, strict=True):
            task, own = self.norms[:, self._place(name)]
            norm = grown * own
            # A faint gradient must not blow a term's weight up, and none at all (nothing to learn in the batch that was
            # measured) says nothing of the batches until the next measurement: without one a term has no weight.
            weight = self.shares[name] * task / norm.clamp(min=1e-3 * task.clamp(min=1e-12)) * (norm > 0)
            weights[name] = weight.clamp(max=self.most.get(name, torch.inf))
        return weights

    def get_extra_state(self) -> Tensor:
        """When to measure next: saved beside the norms, so that a resumed run goes on as if it had not stopped."""
        return torch.tensor([self._step, self._next, self._current, *(name in self._seen for name in self.shares)])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from :meth:`get_extra_state`."""
        self._step, self._next, self._current, *seen = state.tolist()
        self._seen = {name for name, was_seen in zip(self.shares, seen, strict=True) if was_seen}

    def pull(self, name: str, weight: float) -> float:
        """How hard a term would pull at a weight, as a multiple of the task loss; 0 where it was never measured."""
        task, own = self.norms[:, self._place(name)].tolist()
        return weight * own / task if task > 0 else 0.0

    def held_back(self, published: Mapping[str, float]) -> list[str]:
        """Say which terms would drown the task loss at their published weights and are held back."""
        lines = []
        for name, share in self.shares.items():
            weight = published[name]
            pull = self.pull(name, weight)
            if pull > max(share, 1.0):
                lines.append(
                    f"{name}: at its published weight {weight:g} it would pull {pull:.1f} times as hard as the task loss; "
                    f"it is held at {share:.2f} times."
                )
        return lines

    def _growth(self, terms: Mapping[str, Tensor]) -> Tensor:
        """By how much each term has grown since it was measured, where that is no noise."""
        now = mean_over_processes(torch.stack([value.detach().float() for value in terms.values()]))
        # One by one: a list as index would be copied to the GPU on every step.
        before = torch.stack([self.values[self._place(name)] for name in terms])
        # Of a batch that had nothing to teach nothing can have grown.
        return torch.where((now > LEAP * before) & (before > 0), now / before.clamp(min=1e-30), torch.ones_like(now))

    def _place(self, name: str) -> int:
        return list(self.shares).index(name)

    def _measure(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> bool:
        """Average the norms in; return whether each term's kept to its average in proportion to the task's."""
        values = torch.stack([value.detach().float() for value in terms.values()])
        measured = torch.stack((*_gradient_norms(task_loss, terms, features), values))
        measured = mean_over_processes(measured)
        norms, values = measured[:2], measured[2]
        places = [self._place(name) for name in terms]
        before = self.norms[:, places]
        keep = self.momentum * (before > 0) * (norms <= LEAP * before)
        averages = keep * before + (1 - keep) * norms
        # One overflow in half precision must not stay in the average for ever.
        self.norms[:, places] = torch.where(torch.isfinite(norms), averages, before)
        self.values[places] = values
        expected = before[1] * norms[0]
        return bool(((norms[1] * before[0] - expected).abs() < STEADY * expected).all())


class Uncertainty(Balance):
    r"""Learns the weight of each term as the inverse of its uncertainty.

    The loss of a term is :math:`w (e^{-s} L + s)` with a learned :math:`s` that starts at 0, where a term has its own
    weight; at the optimum :math:`e^{-s} = 1 / L`. The task loss keeps its weight 1, so that the learning rate keeps its
    meaning.

    Args:
        weights: Weight w of each term.

    Source:
        Kendall et al.: Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, arXiv:1705.07115, with s for the
        logarithm of the variance and without the factor 1/2.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in weights})

    def forward(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> dict[str, Tensor]:
        """Return the weight of each term, with gradient."""
        del task_loss, features
        return {name: self.weights[name] * torch.exp(-self.log_variances[name]) for name in terms}

    def penalty(self, name: str) -> Tensor:
        """What keeps a term's weight from falling to 0, added to the loss."""
        penalty: Tensor = self.weights[name] * self.log_variances[name]
        return penalty


def _gradient_norms(task_loss: Tensor, terms: Mapping[str, Tensor], features: Features) -> tuple[Tensor, Tensor]:
    """The task's gradient norm where each term is weighed, and the term's, [T] each; the task's gradient is taken once."""
    trained = {name: _trained(features[name]) for name in terms}
    everywhere = list({id(feature): feature for own in trained.values() for feature in own}.values())
    task = dict(zip(map(id, everywhere), _squares(task_loss, everywhere), strict=True))
    at_places = [torch.stack([task[id(feature)] for feature in own]).sum() for own in trained.values()]
    own = [_squares(value, trained[name]).sum() for name, value in terms.items()]
    return torch.stack(at_places).sqrt(), torch.stack(own).sqrt()


def _trained(features: Sequence[Tensor]) -> list[Tensor]:
    trained = [feature for feature in features if feature.requires_grad]
    if not trained:
        raise AdapterError(
            "Expected features of the student that train, to weigh gradients at, but all of them are frozen. Freeze fewer "
            "layers, or give `balance: none` and weights."
        )
    return trained


def _squares(loss: Tensor, features: Sequence[Tensor]) -> Tensor:
    """The square of the norm of a scalar's gradient at each feature."""
    scale = HALF_SCALE if any(feature.dtype == torch.float16 for feature in features) else 1.0
    gradients = torch.autograd.grad(
        loss, features, grad_outputs=torch.full_like(loss, scale), retain_graph=True, allow_unused=True
    )
    norms = [loss.new_zeros(()) if gradient is None else gradient.float().norm() for gradient in gradients]
    return (torch.stack(norms) / scale).square()
