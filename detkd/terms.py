"""What the distillation terms of any student and teacher have in common."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn

from detkd.aligners import make_aligner
from detkd.losses import LOSSES
from detkd.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from detkd.adapters.base import Adapter


@dataclass(frozen=True)
class Term:
    """One distillation loss: its name in ``LOSSES``, its weight, its own arguments.

    Attributes:
        name: Key of ``detkd.losses.LOSSES``.
        weight: Factor of the loss; under ``gradient_ratio`` the norm of its gradient as a share of the task loss's. None
            is the method's published weight, or an equal part of a total share under ``gradient_ratio``.
        arguments: Keyword arguments of the loss module.
        schedule: Factor of the weight over time.
    """

    name: str
    weight: float | None = None
    arguments: Mapping[str, Any] | None = None
    schedule: Schedule = field(default_factory=Schedule)


class Terms(Protocol):
    """The terms between a student and one teacher, as the distiller sees them.

    Outputs and labels are those of the student's kind: :class:`detkd.teacher_terms.TeacherTerms` serves detectors,
    :class:`detkd.pixel_terms.PixelTerms` segmenters.
    """

    def check_confidence(self) -> None:
        """Refuse to judge the teacher by the labels, as ``ca_mkd`` does, where they share no classes.

        Raises:
            AdapterError: Listing the classes of both.
        """

    def no_labels(self, images: Tensor) -> Any:
        """The labels of a batch [B, 3, H, W] on which there is nothing."""

    def prepare(self, teacher: Any, size: tuple[int, int], names: Collection[str], *, judged: bool) -> Any:
        """The teacher's outputs with what more it must say, once a step, for all of the other methods.

        Args:
            teacher: What it said, in its own frame.
            size: Height and width of the student's input in pixels.
            names: The terms that will be computed.
            judged: Whether :meth:`confidence_loss` will be.
        """

    def confidence_loss(self, teacher: Any, targets: Any, size: tuple[int, int]) -> Tensor:
        """How badly the teacher says what the labels say, [B]; see :func:`detkd.teachers.ensemble.confidence_weights`.

        Args:
            teacher: Its outputs, prepared.
            targets: The labels of the batch.
            size: Height and width of the student's input in pixels.
        """

    def weighed_at(self, names: Collection[str], student: Any) -> dict[str, tuple[Tensor, ...]]:
        """For each named term the student's activations through which it and the task loss pass, as near as there are.

        Gradients are weighed against each other there: the further down, the more of the student each measurement costs.

        Args:
            names: The terms that are computed.
            student: The student's outputs.
        """

    def __call__(
        self,
        names: Collection[str],
        student: Any,
        teacher: Any,
        targets: Any,
        size: tuple[int, int],
        factors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the unweighted scalar of each named term.

        Args:
            names: The terms to compute.
            student: The student's outputs.
            teacher: The teacher's, prepared.
            targets: The labels of the batch.
            size: Height and width of the student's input in pixels.
            factors: By how much to multiply the gradient of each image, [B]; None leaves all as they are.
        """


def teaches_itself(name: str) -> bool:
    """Whether a loss takes all that it learns from from the student."""
    return bool(getattr(LOSSES[name], "of_itself", False))


def level_losses(term: Term, channels: Sequence[int]) -> nn.ModuleList:
    """A loss on feature maps for each common level, of the teacher's channels there."""
    kind, arguments = LOSSES[term.name], dict(term.arguments or {})
    sized = "channels" in inspect.signature(kind).parameters
    return nn.ModuleList(kind(**arguments, **({"channels": count} if sized else {})) for count in channels)


def level_aligners(name: str, student: Adapter, teacher: Adapter, levels: Sequence[tuple[int, int]]) -> nn.ModuleList:
    """The aligner that a loss on feature maps asks for, on each common level."""
    kind = vars(LOSSES[name])["aligner"]
    return nn.ModuleList(make_aligner(kind, student.feature_channels[s], teacher.feature_channels[t]) for s, t in levels)


def level_parts(
    losses: nn.Module,
    aligners: nn.Module,
    features: Sequence[Tensor],
    offered: Sequence[Mapping[str, Any]],
    wanted: Sequence[str],
) -> list[Tensor]:
    """The scalar of a loss on each common level.

    Args:
        losses: From :func:`level_losses`.
        aligners: From :func:`level_aligners`.
        features: The student's feature map on each level.
        offered: What else the loss may ask for on each level.
        wanted: The names that it asks for.
    """
    parts = zip(cast("nn.ModuleList", losses), cast("nn.ModuleList", aligners), features, offered, strict=True)
    found = []
    for loss, aligner, feature, others in parts:
        tensors = {**others, "student_feature": aligner(feature.float())}
        found.append(loss(*(tensors[name] for name in wanted)))
    return found
