"""Which samples of a batch are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.errors import ArgumentError
from detkd.losses._relations import check_samples, gram, scaled, unit
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def sp(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    r"""Mean squared difference of the similarities between the samples of a batch.

    .. math::
        \frac{1}{N^2} \big\| \hat G^s - \hat G^t \big\|_F^2, \quad G = F F^\top,
        \quad \hat G_{i,:} = \frac{G_{i,:}}{\|G_{i,:}\|_2}

    with the flattened activations F, [N, D]. Only samples are compared with each other, so the activations may have any
    number of channels and any size, and no aligner stands between. One sample alone has no relations; data parallelism
    compares within each process. The row of a sample whose activations are (almost) all 0 is left shorter than 1, which
    bounds its gradient.

    Args:
        student_feature: Activations of the student, feature maps or embeddings, [N, ...].
        teacher_feature: Activations of the teacher for the same samples, [N, ...]; receives no gradient.

    Returns:
        A float32 scalar; 0 for an empty input.

    Raises:
        ArgumentError: If the samples differ in number, or there is nothing but samples.

    Source:
        Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv:1907.09682, with its weight of 3000.
    """
    for name, feature in (("student_feature", student_feature), ("teacher_feature", teacher_feature)):
        if feature.ndim < 2:
            raise ArgumentError(f"Expected argument `{name}` to be [N, ...], but got {tuple(feature.shape)}.")
    check_samples(student_feature, teacher_feature, "feature")
    if not student_feature.numel():
        return accumulate(student_feature).sum()
    return (_similarities(student_feature) - _similarities(teacher_feature.detach())).square().mean()


def _similarities(feature: Tensor) -> Tensor:
    return unit(gram(scaled(accumulate(feature).flatten(1))))


class SP(nn.Module):
    """Module form of :func:`sp`."""

    default_weight: ClassVar[float] = 3000.0
    aligner: ClassVar[str] = "none"

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`sp`."""
        return sp(student_feature, teacher_feature)
