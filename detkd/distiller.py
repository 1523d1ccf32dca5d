"""The one place where teacher, student, aligners, losses and their weights meet."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from detkd.aligners import make_aligner
from detkd.balance import BalanceName, GradientRatio
from detkd.errors import AdapterError
from detkd.losses import LOSSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detkd.adapters.base import DetectorAdapter
    from detkd.types import DetectorOutputs

# All terms together pull half as hard as the labels: enough to steer the student, too little to drown its task.
TOTAL_SHARE = 0.5

# Names that a loss may give the parameters of its `forward`; the distiller passes the tensor of that name.
FEATURE_TENSORS = ("student_feature", "teacher_feature", "teacher_scores")  # of one level; called once a level
DENSE_TENSORS = (
    "student_logits",
    "teacher_logits",
    "student_boxes",
    "teacher_boxes",
    "student_bins",
    "teacher_bins",
    "anchor_points",
    "target_boxes",
)


@dataclass(frozen=True)
class Term:
    """One distillation loss: its name in ``LOSSES``, its weight, its own arguments.

    Attributes:
        name: Key of ``detkd.losses.LOSSES``.
        weight: Factor of the loss; under ``gradient_ratio`` the norm of its gradient as a share of the task loss's. None
            is the method's published weight, or an equal part of ``TOTAL_SHARE`` under ``gradient_ratio``.
        arguments: Keyword arguments of the loss module.
    """

    name: str
    weight: float | None = None
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Distillation:
    """What distillation adds to one training step.

    Attributes:
        loss: Weighted sum of all terms, a scalar with gradient.
        terms: Unweighted value of each term, detached.
        weights: Weight of each term in this step, detached.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, Tensor]


class Distiller(nn.Module):
    """Runs the teacher on the student's batch and computes every distillation term.

    The student must have run its own forward pass on the same images before the call. The parameters of this module are
    the aligners' alone: teacher and student are held by their adapters, so neither appears in its ``state_dict``.

    Args:
        student: Adapter of the student; its hooks are installed by :meth:`attach`.
        teacher: Adapter of the teacher, whose model is frozen and set to evaluation mode here.
        terms: The losses, see :class:`Term`.
        balance: ``none`` uses weights as they are, ``gradient_ratio`` holds gradients in proportion, see
            :class:`detkd.balance.GradientRatio`.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """

    def __init__(
        self,
        student: DetectorAdapter,
        teacher: DetectorAdapter,
        terms: Sequence[Term],
        balance: BalanceName = "gradient_ratio",
    ) -> None:
        super().__init__()
        self._student, self._teacher = student, teacher
        teacher.model.requires_grad_(False).eval()
        self.losses = nn.ModuleDict({term.name: LOSSES[term.name](**(term.arguments or {})) for term in terms})
        self._inputs = {name: tuple(inspect.signature(loss.forward).parameters) for name, loss in self.losses.items()}
        self._levels = _matching_levels(student, teacher)
        self._check()
        self.aligners = nn.ModuleDict(
            {name: self._level_aligners(loss) for name, loss in self.losses.items() if hasattr(loss, "aligner")}
        )
        share = TOTAL_SHARE / max(len(terms), 1)
        self._fixed = {term.name: _default_weight(term.name) if term.weight is None else term.weight for term in terms}
        shares = {term.name: share if term.weight is None else term.weight for term in terms}
        self.balance = GradientRatio(shares) if balance == "gradient_ratio" else None

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher; no submodule of the distiller."""
        return self._teacher.model

    def attach(self) -> None:
        """Install the hooks on teacher and student; call it once nothing will copy the student any more."""
        self._student.attach()
        self._teacher.attach()

    def detach(self) -> None:
        """Remove all hooks."""
        self._student.detach()
        self._teacher.detach()

    def try_out(self, images: Tensor) -> None:
        """Run teacher, student and every term once without gradients, so that a misfit shows before training starts.

        Raises:
            AdapterError: If a tensor that a term needs is missing.
            ArgumentError: If the tensors of teacher and student do not fit each other.
        """
        model = self._student.model
        training = model.training
        self.attach()
        try:
            with torch.no_grad():
                model.eval()(images)  # batch statistics of a trial must not stay in the student
                self._teacher.model(images)
                self._terms(self._student.take_outputs(), self._teacher.take_outputs(), images.new_zeros(len(images), 0, 4))
        finally:
            self.detach()
            model.train(training)

    def forward(self, images: Tensor, target_boxes: Tensor, task_loss: Tensor) -> Distillation:
        """Compute all terms for the batch that the student just ran on.

        Args:
            images: The student's batch, [B, 3, H, W].
            target_boxes: Labelled boxes in pixels, padded with zeros to the largest count, [B, M, 4].
            task_loss: The student's own scalar loss on this batch; only its gradient's norm is used.
        """
        student = self._student.take_outputs()
        with torch.no_grad():
            self._teacher.model(images)
            teacher = self._teacher.take_outputs()
        with torch.autocast(images.device.type, enabled=False):
            terms = self._terms(student, teacher, target_boxes)
            weights = self._weights(task_loss, terms, student.features)
            loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return Distillation(
            loss=loss,
            terms={name: value.detach() for name, value in terms.items()},
            weights=weights,
        )

    def _terms(self, student: DetectorOutputs, teacher: DetectorOutputs, target_boxes: Tensor) -> dict[str, Tensor]:
        dense = {
            "student_logits": student.logits,
            "teacher_logits": teacher.logits,
            "student_boxes": student.boxes,
            "teacher_boxes": teacher.boxes,
            "student_bins": student.bins,
            "teacher_bins": teacher.bins,
            "anchor_points": student.anchor_points,
            "target_boxes": target_boxes,
        }
        scores = _score_maps(teacher)
        terms = {}
        for name, loss in self.losses.items():
            if name not in self.aligners:
                terms[name] = loss(*(_present(dense, key, name) for key in self._inputs[name]))
                continue
            levels = []
            for (s, t), aligner in zip(self._levels, cast("nn.ModuleList", self.aligners[name]), strict=True):
                feature = {
                    "student_feature": aligner(student.features[s].float()),
                    "teacher_feature": teacher.features[t],
                    "teacher_scores": scores[t],
                }
                levels.append(loss(*(feature[key] for key in self._inputs[name])))
            terms[name] = torch.stack(levels).sum()
        return terms

    def _weights(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        if self.balance is not None:
            weights: dict[str, Tensor] = self.balance(task_loss, terms, features)
            return weights
        return {name: task_loss.new_tensor(weight) for name, weight in self._fixed.items()}

    def _level_aligners(self, loss: nn.Module) -> nn.ModuleList:
        return nn.ModuleList(
            make_aligner(str(loss.aligner), self._student.feature_channels[s], self._teacher.feature_channels[t])
            for s, t in self._levels
        )

    def _check(self) -> None:
        """Refuse at the start what would only show as nonsense in the middle of a training run."""
        for name, inputs in self._inputs.items():
            unknown = [key for key in inputs if key not in FEATURE_TENSORS + DENSE_TENSORS]
            if unknown:
                raise AdapterError(
                    f"Expected loss `{name}` to need only what a dense detector offers, but it needs {unknown}. "
                    "A sigmoid head has no softmax over classes: use `bckd` for its classes."
                )
            if "student_logits" in inputs and self._student.class_names != self._teacher.class_names:
                raise AdapterError(
                    f"Expected teacher and student to have the same classes for `{name}`, but the teacher has "
                    f"{list(self._teacher.class_names)} and the student {list(self._student.class_names)}. "
                    "Distil features only (`pkd`), or take a teacher trained on this data set."
                )
            if set(inputs) & set(DENSE_TENSORS) and self._student.strides != self._teacher.strides:
                raise AdapterError(
                    f"Expected teacher and student to have the same strides for `{name}`, but the teacher has "
                    f"{self._teacher.strides} and the student {self._student.strides}. Distil features only (`pkd`)."
                )


def _default_weight(name: str) -> float:
    weight: float = vars(LOSSES[name])["default_weight"]
    return weight


def _matching_levels(student: DetectorAdapter, teacher: DetectorAdapter) -> list[tuple[int, int]]:
    """Pairs of level indices of equal stride."""
    pairs = [(s, teacher.strides.index(stride)) for s, stride in enumerate(student.strides) if stride in teacher.strides]
    if not pairs:
        raise AdapterError(
            f"Expected teacher and student to share a feature stride, but the teacher has {teacher.strides} and the "
            f"student {student.strides}."
        )
    return pairs


def _present(tensors: Mapping[str, Tensor | None], key: str, term: str) -> Tensor:
    tensor = tensors[key]
    if tensor is None:
        raise AdapterError(
            f"Expected the head to offer `{key}` for `{term}`, but it has none (reg_max 1 regresses sides directly). "
            f"Leave `{term}` out: `bckd` carries the boxes."
        )
    return tensor


def _score_maps(outputs: DetectorOutputs) -> list[Tensor]:
    """Best class probability at each position of each level, [B, 1, H, W]."""
    sizes = [tuple(feature.shape[2:]) for feature in outputs.features]
    best = outputs.logits.float().sigmoid().amax(1, keepdim=True)
    parts = best.split([h * w for h, w in sizes], -1)
    return [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
