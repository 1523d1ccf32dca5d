"""The one place where teachers, student, losses and their weights meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from detkd.balance import Balance, BalanceName, FixedWeights, GradientRatio, Uncertainty
from detkd.distances import Distances
from detkd.errors import AdapterError
from detkd.kinds import make_terms
from detkd.losses import LOSSES
from detkd.meta_balance import Meta
from detkd.modes import evaluating
from detkd.teachers.ensemble import EnsembleName, confidence_weights
from detkd.teachers.itself import Itself
from detkd.terms import teaches_itself
from detkd.types import DetectorOutputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from detkd.adapters.base import Adapter
    from detkd.teachers.base import Teacher
    from detkd.terms import Term, Terms
    from detkd.types import Labels, Outputs

# All terms together pull as hard as the labels: on bccd half of that gained less, and more drowned the task.
TOTAL_SHARE = 1.0


@dataclass(frozen=True)
class Distillation:
    """What distillation adds to one training step.

    Attributes:
        loss: Weighted sum of all terms, a scalar with gradient.
        terms: Unweighted value of each term (the weighted mean over teachers), detached; 0 where its schedule is at 0.
        weights: Weight of each term in this step, detached.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, Tensor]


class Distiller(nn.Module):
    """Runs the teachers on the student's batch and computes every distillation term.

    The student must have run its own forward pass on the same images before the call. The parameters of this module are
    those of aligners, losses and balance alone: teachers and student are held by their adapters, so none of them appears in
    its ``state_dict``.

    Args:
        student: Adapter of the student; its hooks are installed by :meth:`attach`.
        teachers: One teacher or several, of any architectures. Each has aligners of its own. None at all, where the student
            teaches itself by all terms.
        terms: The losses, see :class:`detkd.terms.Term`.
        balance: ``none`` uses weights as they are, ``gradient_ratio`` holds gradients in proportion, ``uncertainty`` learns
            them, see :mod:`detkd.balance`; ``meta`` learns them on held-out samples, see :mod:`detkd.meta_balance`.
        ensemble: ``mean`` weighs the teachers by `weights`, ``ca_mkd`` by their confidence on each image, see
            :func:`detkd.teachers.ensemble.confidence_weights`.
        weights: Weight of each teacher under ``mean``; equal if None. They are divided by their sum.

    Attributes:
        epoch: Epochs that have passed, with the fraction of the current one; whoever trains sets it, for the schedules.
        epochs: Length of the run.

    Raises:
        AdapterError: If a teacher and the student do not fit each other in what a term needs.
    """

    def __init__(
        self,
        student: Adapter,
        teachers: Sequence[Teacher],
        terms: Sequence[Term],
        balance: BalanceName = "gradient_ratio",
        *,
        ensemble: EnsembleName = "mean",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self._student, self._teachers, self._terms = student, tuple(teachers), tuple(terms)
        own = [term for term in terms if teaches_itself(term.name)]
        taught = [term for term in terms if not teaches_itself(term.name)]
        self.teacher_terms = nn.ModuleList(make_terms(student, teacher, taught) for teacher in teachers)
        self.own_terms = make_terms(student, Itself(student), own) if own else None
        self.balance = _make_balance(balance, terms, student)
        self.distances = Distances({term.name: term.schedule.distance for term in terms if term.schedule.distance > 0})
        self._ensemble = ensemble
        self._head_weights: tuple[float, ...] = ()
        given = torch.ones(len(teachers)) if weights is None else torch.tensor(weights)
        self._weights = (given / given.sum()).tolist()
        self.epoch, self.epochs = 0.0, 1.0
        if ensemble == "ca_mkd":
            self._check_confidence()

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        """The frozen models of the teachers; no submodules of the distiller."""
        return tuple(teacher.adapter.model for teacher in self._teachers)

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The views of the student and of each teacher, in this order."""
        return self._student, *(teacher.adapter for teacher in self._teachers)

    def attach(self) -> None:
        """Install the hooks on teachers and student; call it once nothing will copy the student any more."""
        self._student.attach()
        for teacher in self._teachers:
            teacher.attach()

    def detach(self) -> None:
        """Remove all hooks."""
        self._student.detach()
        for teacher in self._teachers:
            teacher.detach()

    def try_out(self, images: Tensor) -> None:
        """Run teachers, student and every term once without gradients, so that a misfit shows before training starts.

        Raises:
            AdapterError: If a tensor that a term needs is missing, or a teacher's weights are not finite.
            ArgumentError: If the tensors of teacher and student do not fit each other.
        """
        for number, teacher in enumerate(self.teachers, start=1):
            broken = [name for name, value in teacher.state_dict().items() if not value.isfinite().all()]
            if broken:
                raise AdapterError(
                    f"Expected finite weights of teacher {number}, but {len(broken)} of its tensors hold NaN or infinity, "
                    f"the first {broken[0]}. It diverged in its own training; take another checkpoint."
                )
        model = self._student.model
        self.attach()
        try:
            with torch.no_grad(), evaluating(model):  # batch statistics of a trial must not stay in the student
                self._student.run(images)
                nothing = self._any_terms().no_labels(images)
                self._compute([term.name for term in self._terms], images, nothing, self._run_teachers(images, None))
        finally:
            self.detach()

    def weigh_heads(self, weights: Sequence[float]) -> None:
        """Say how the task loss weighs the heads of an end-to-end student, from the next forward pass on."""
        self._head_weights = tuple(weights)

    def look_ahead(self, held_out: Callable[[], Tensor]) -> None:
        """Let the balance look at samples that the student does not train on; call it before the student's forward pass.

        Args:
            held_out: See :meth:`detkd.balance.Balance.look_ahead`.
        """
        if any(term.schedule.factor(self.epoch, self.epochs) > 0 for term in self._terms):
            self.balance.look_ahead(held_out)

    def forward(
        self, images: Tensor, targets: Labels, task_loss: Tensor, views: Sequence[Any] | None = None
    ) -> Distillation:
        """Compute all terms for the batch that the student just ran on.

        Args:
            images: The student's batch, [B, 3, H, W].
            targets: Its labels.
            task_loss: The student's own scalar loss on this batch; only its gradient's norm is used.
            views: What identifies each image's augmented view, for cached teachers.
        """
        factors = {term.name: term.schedule.factor(self.epoch, self.epochs) for term in self._terms}
        active = [name for name, factor in factors.items() if factor > 0]
        nothing = task_loss.new_zeros(())
        if not active:
            self._student.take_outputs()
            zeros = dict.fromkeys(factors, nothing)
            return Distillation(loss=nothing, terms=zeros, weights=zeros)
        outputs = self._run_teachers(images, views) if any(not teaches_itself(name) for name in active) else []
        with torch.autocast(images.device.type, enabled=False):
            terms, features = self._compute(active, images, targets, outputs)
            near = self.distances(terms)
            shares = {name: factors[name] * near.get(name, 1.0) for name in terms}
            weights = {name: shares[name] * weight for name, weight in self.balance(task_loss, terms, features).items()}
            parts = [weights[name] * value + shares[name] * self.balance.penalty(name) for name, value in terms.items()]
        return Distillation(
            loss=torch.stack(parts).sum(),
            terms={name: terms[name].detach() if name in terms else nothing for name in factors},
            weights={name: weights[name].detach() if name in weights else nothing for name in factors},
        )

    def held_back(self) -> list[str]:
        """Say which terms would drown the task loss at their published weights and are held back by the balance."""
        return self.balance.held_back({term.name: default_weight(term.name) for term in self._terms})

    def _run_teachers(self, images: Tensor, views: Sequence[Any] | None) -> list[Outputs]:
        return [teacher.run(images, views) for teacher in self._teachers]

    def _compute(
        self, names: Sequence[str], images: Tensor, targets: Labels, outputs: Sequence[Outputs]
    ) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, ...]]]:
        """The weighted mean of each term over the teachers, and the student's features at which it is weighed."""
        student = self._student.take_outputs()
        if self._head_weights and isinstance(student, DetectorOutputs):
            student = replace(student, head_weights=self._head_weights)
        size = (images.shape[2], images.shape[3])
        judged = self._ensemble == "ca_mkd"
        taught = [name for name in names if not teaches_itself(name)]
        outputs = [
            terms.prepare(output, size, taught, judged=judged) for terms, output in zip(self._pairs(), outputs, strict=True)
        ]
        shares, per_image = self._shares(outputs, targets, size)
        totals: dict[str, Tensor] = {}
        for index, (terms, share, teacher) in enumerate(zip(self._pairs(), shares, outputs, strict=True)):
            # A teacher that errs far more than the others has no share in the batch, and none in any image of it.
            factors = None if per_image is None else per_image[index] / cast("Tensor", share).clamp(min=1e-12)
            for name, value in terms(taught, student, teacher, targets, size, factors).items():
                totals[name] = share * value + totals.get(name, 0.0)
        for terms in self._own():
            totals |= terms([name for name in names if teaches_itself(name)], student, student, targets, size)
        return totals, self._any_terms().weighed_at(names, student)

    def _shares(
        self, teachers: Sequence[Outputs], targets: Labels, size: tuple[int, int]
    ) -> tuple[Sequence[float | Tensor], Tensor | None]:
        """Share of each teacher in the batch's loss, and where it varies by image the weights [K, B] behind it."""
        if self._ensemble == "mean":
            return self._weights, None
        pairs = zip(self._pairs(), teachers, strict=True)
        losses = [terms.confidence_loss(teacher, targets, size) for terms, teacher in pairs]
        weights = confidence_weights(torch.stack(losses))
        return weights.mean(1).unbind(), weights

    def _pairs(self) -> Sequence[Terms]:
        return cast("Sequence[Terms]", self.teacher_terms)

    def _own(self) -> tuple[Terms, ...]:
        """The terms by which the student teaches itself, if there are any."""
        return () if self.own_terms is None else (cast("Terms", self.own_terms),)

    def _any_terms(self) -> Terms:
        """Those with the first teacher, or else the student's own: what all of one kind of student answer alike."""
        return next(iter((*self._pairs(), *self._own())))

    def _check_confidence(self) -> None:
        for terms in self._pairs():
            terms.check_confidence()
        if len(self._teachers) < 2:
            raise AdapterError("Expected two teachers or more for the ensemble `ca_mkd`, but got one. Use `mean`.")


def _make_balance(name: BalanceName, terms: Sequence[Term], student: Adapter) -> Balance:
    if name in {"gradient_ratio", "meta"}:
        share = TOTAL_SHARE / max(len(terms), 1)
        shares = {term.name: share if term.weight is None else term.weight for term in terms}
        # The gradient of a game fades where it is lost; raised to its share it would be noise as strong as a teacher.
        most = {term.name: default_weight(term.name) for term in terms if getattr(LOSSES[term.name], "fades", False)}
        trained = [parameter for parameter in student.model.parameters() if parameter.requires_grad]
        return Meta(shares, trained, most=most) if name == "meta" else GradientRatio(shares, most=most)
    weights = {term.name: default_weight(term.name) if term.weight is None else term.weight for term in terms}
    return Uncertainty(weights) if name == "uncertainty" else FixedWeights(weights)


def default_weight(name: str) -> float:
    """The weight that a method was published with."""
    weight: float = vars(LOSSES[name])["default_weight"]
    return weight
