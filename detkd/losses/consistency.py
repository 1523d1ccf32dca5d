"""The same answer to two views of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from detkd.errors import ArgumentError
from detkd.ops import kl_div
from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from torch import Tensor

Distance = Literal["mse", "kl"]


def consistency(student_logits: Tensor, teacher_logits: Tensor, *, distance: Distance = "mse") -> Tensor:
    r"""Distance of class probabilities, by their squared difference or their divergence.

    .. math::
        \mathrm{mse:} \; \frac{1}{N} \sum_{n,c} (p^s_{nc} - p^t_{nc})^2 \qquad
        \mathrm{kl:} \; \frac{1}{N} \sum_{n,c} p^t_{nc} (\log p^t_{nc} - \log p^s_{nc})

    It is meant for a teacher that is no better than its student, such as an average of its weights, and sees another
    augmentation: the squared difference is bounded, so that an answer that is wrong and sure does little harm.

    Args:
        student_logits: Logits of a softmax over dimension 1, [N, C] or [N, C, ...]; all positions of all samples are rows.
        teacher_logits: The same of the teacher, for another view of the samples; receives no gradient.
        distance: ``mse`` or ``kl``.

    Returns:
        A float32 scalar, the mean over the rows; 0 for an empty input.

    Raises:
        ArgumentError: If the shapes do not fit each other or the distance is unknown.

    Source:
        Tarvainen, Valpola: Mean Teachers Are Better Role Models, NeurIPS 2017, arXiv:1703.01780; the views: Laine, Aila
        2017, arXiv:1610.02242.
    """
    check_pair(student_logits, teacher_logits)
    if distance not in {"mse", "kl"}:
        raise ArgumentError(f"Expected argument `distance` to be mse or kl, but got {distance!r}.")
    if student_logits.ndim < 2:
        raise ArgumentError(
            f"Expected argument `student_logits` to be [N, C] or [N, C, ...], but got {tuple(student_logits.shape)}."
        )
    if not student_logits.numel():
        return accumulate(student_logits).sum()
    if distance == "kl":
        return kl_div(student_logits, teacher_logits, 1, 1.0, None, "mean")
    student, teacher = (accumulate(x).softmax(1) for x in (student_logits, teacher_logits.detach()))
    return (student - teacher).square().sum(1).mean()


class Consistency(nn.Module):
    """Module form of :func:`consistency`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, distance: Distance = "mse") -> None:
        super().__init__()
        self.distance: Distance = distance

    def forward(self, student_softmax_logits: Tensor, teacher_softmax_logits: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`consistency`."""
        return consistency(student_softmax_logits, teacher_softmax_logits, distance=self.distance)
