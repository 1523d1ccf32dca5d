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
from detkd.pairing import Pairing
from detkd.vocabulary import (
    CROSSED_NAMES,
    DENSE_NAMES,
    LEVEL_NAMES,
    MASK_NAMES,
    NEEDS_CLASSES,
    dense_tensors,
    level_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detkd.adapters.base import DetectorAdapter
    from detkd.types import DetectorOutputs

# All terms together pull half as hard as the labels: enough to steer the student, too little to drown its task.
TOTAL_SHARE = 0.5


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
    those of aligners and losses alone: teacher and student are held by their adapters, so neither appears in its
    ``state_dict``.

    Args:
        student: Adapter of the student; its hooks are installed by :meth:`attach`.
        teacher: Adapter of the teacher, whose model is frozen and set to evaluation mode here.
        terms: The losses, see :class:`Term`.
        balance: ``none`` uses weights as they are, ``gradient_ratio`` holds gradients in proportion, see
            :class:`detkd.balance.GradientRatio`.
        classes: Teacher's class for a student's class where their names differ, see :class:`detkd.pairing.Pairing`.
        scale: Side of the teacher's input as a multiple of the student's.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """

    def __init__(
        self,
        student: DetectorAdapter,
        teacher: DetectorAdapter,
        terms: Sequence[Term],
        balance: BalanceName = "gradient_ratio",
        *,
        classes: Mapping[str, str] | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self._student, self._teacher = student, teacher
        teacher.model.requires_grad_(False).eval()
        self._pairing = Pairing(student, teacher, classes=classes, scale=scale)
        self._inputs = {term.name: tuple(inspect.signature(LOSSES[term.name].forward).parameters)[1:] for term in terms}
        self._check()
        self.losses = nn.ModuleDict({term.name: self._build_loss(term) for term in terms})
        self.aligners = nn.ModuleDict({name: aligners for name in self.losses if (aligners := self._build_aligners(name))})
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
                student, teacher = self._student.take_outputs(), self._run_teacher(images)
                self._terms(student, teacher, images.new_zeros(len(images), 0, 4), images.shape)
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
        student, teacher = self._student.take_outputs(), self._run_teacher(images)
        with torch.autocast(images.device.type, enabled=False):
            terms = self._terms(student, teacher, target_boxes, images.shape)
            weights = self._weights(task_loss, terms, student.features)
            loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return Distillation(
            loss=loss,
            terms={name: value.detach() for name, value in terms.items()},
            weights=weights,
        )

    def _run_teacher(self, images: Tensor) -> DetectorOutputs:
        with torch.no_grad():
            self._teacher.model(self._pairing.teacher_images(images))
            return self._teacher.take_outputs()

    def _terms(
        self, student: DetectorOutputs, teacher: DetectorOutputs, target_boxes: Tensor, shape: Sequence[int]
    ) -> dict[str, Tensor]:
        whole, size = teacher, (shape[2], shape[3])
        student, teacher = self._pairing.align(student, teacher)
        levels = level_tensors(teacher, target_boxes, size)
        heads = [
            dense_tensors(student, teacher, pair, target_boxes, size)
            for pair in zip(student.heads, teacher.heads, strict=False)  # of end-to-end and other models, the common one
        ]
        terms = {}
        for name, loss in self.losses.items():
            if isinstance(loss, nn.ModuleList):
                parts = self._level_parts(name, student.features, levels)
                terms[name] = torch.stack(parts).sum()
            elif name in self.aligners:
                terms[name] = loss(*_pick(self._crossed(student, whole) | heads[0], self._inputs[name], name))
            else:
                parts = [loss(*_pick(head, self._inputs[name], name)) for head in heads]
                terms[name] = torch.stack(parts).mean()
        return terms

    def _level_parts(self, name: str, features: Sequence[Tensor], levels: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        losses, aligners = cast("nn.ModuleList", self.losses[name]), cast("nn.ModuleList", self.aligners[name])
        return [
            loss(*_pick({**level, "student_feature": aligner(feature.float())}, self._inputs[name], name))
            for loss, aligner, feature, level in zip(losses, aligners, features, levels, strict=True)
        ]

    def _crossed(self, student: DetectorOutputs, teacher: DetectorOutputs) -> dict[str, Tensor]:
        """What the teacher's head says of the student's features, and of its own."""
        stages = {}
        for (_, level), pair, aligners in zip(
            self._pairing.levels, student.stages, cast("nn.ModuleList", self.aligners["cross_kd"]), strict=True
        ):
            box_aligner, class_aligner = cast("nn.ModuleList", aligners)
            stages[level] = (box_aligner(pair[0].float()), class_aligner(pair[1].float()))
        crossed = self._teacher.finish(stages)
        return {
            "crossed_logits": crossed.logits,
            "crossed_boxes": crossed.boxes / self._pairing.scale,
            "whole_teacher_logits": self._pairing.common_levels(teacher).heads[0].logits,
        }

    def _weights(self, task_loss: Tensor, terms: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        if self.balance is not None:
            weights: dict[str, Tensor] = self.balance(task_loss, terms, features)
            return weights
        return {name: task_loss.new_tensor(weight) for name, weight in self._fixed.items()}

    def _build_loss(self, term: Term) -> nn.Module:
        """The loss module; one for each common level if it works on features."""
        kind, arguments = LOSSES[term.name], dict(term.arguments or {})
        if "student_feature" not in self._inputs[term.name]:
            return kind(**arguments)
        sized = "channels" in inspect.signature(kind).parameters
        return nn.ModuleList(
            kind(**arguments, **({"channels": self._teacher.feature_channels[level]} if sized else {}))
            for _, level in self._pairing.levels
        )

    def _build_aligners(self, name: str) -> nn.ModuleList | None:
        student, teacher = self._student, self._teacher
        if "student_feature" in self._inputs[name]:
            return nn.ModuleList(
                make_aligner(vars(LOSSES[name])["aligner"], student.feature_channels[s], teacher.feature_channels[t])
                for s, t in self._pairing.levels
            )
        if "crossed_logits" in self._inputs[name]:
            return nn.ModuleList(
                nn.ModuleList(
                    make_aligner("linear", *channels)
                    for channels in zip(student.stage_channels[s], teacher.stage_channels[t], strict=True)
                )
                for s, t in self._pairing.levels
            )
        return None

    def _check(self) -> None:
        """Refuse at the start what would only show as nonsense in the middle of a training run."""
        known = {*LEVEL_NAMES, *DENSE_NAMES, *MASK_NAMES, *CROSSED_NAMES}
        for name, inputs in self._inputs.items():
            unknown = [key for key in inputs if key not in known]
            if unknown:
                raise AdapterError(
                    f"Expected loss `{name}` to need only what a dense detector offers, but it needs {unknown}. "
                    "A sigmoid head has no softmax over classes: use `bckd` for its classes."
                )
            if NEEDS_CLASSES & set(inputs):
                self._pairing.check_classes(name)


def _default_weight(name: str) -> float:
    weight: float = vars(LOSSES[name])["default_weight"]
    return weight


def _pick(offered: Mapping[str, Any], wanted: Sequence[str], term: str) -> list[Any]:
    """The tensors of the wanted names, in their order."""
    missing = [name for name in wanted if name in MASK_NAMES and offered.get(name) is None]
    if missing:
        raise AdapterError(
            f"Expected teacher and student to be segmenters for `{term}`, but one of them has no {missing}. Leave `{term}` "
            "out, or take segmenters (such as yolo11n-seg.yaml)."
        )
    return [offered[name] for name in wanted]
