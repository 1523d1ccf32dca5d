"""How the samples of a batch lie to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detkd.errors import ArgumentError
from detkd.losses._relations import MIN_LENGTH, check_samples, scaled
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def rkd(
    student_embedding: Tensor, teacher_embedding: Tensor, *, distance_gain: float = 25.0, angle_gain: float = 50.0
) -> Tensor:
    r"""Distil the distances between samples, and the angles that triplets of them form.

    .. math::
        \lambda_D \, \mathrm{mean}_{i,j} \, h \Big( \frac{d^s_{ij}}{\mu^s} - \frac{d^t_{ij}}{\mu^t} \Big)
        + \lambda_A \, \mathrm{mean}_{i,j,k} \, h (\cos \angle^s_{jik} - \cos \angle^t_{jik})

    with the Euclidean distance d, its mean μ over the pairs that lie apart, the angle at sample i between the directions to
    j and k, and Huber's h(x), x²/2 up to 1 and |x| - 1/2 beyond. Scale, position, rotation and dimension of an embedding do
    not matter, so no aligner stands between.

    Where samples coincide, their distance has no gradient and their cosines are 0; up to a thousandth of the mean distance
    the cosines rise in proportion to it, which bounds their gradient. The angles keep four times N³ numbers for the
    backward pass, whatever the dimension (of 256 samples 268 MB), and none with an `angle_gain` of 0.

    Args:
        student_embedding: Embeddings of the student, one for each sample, [N, D].
        teacher_embedding: Embeddings of the teacher for the same samples, [N, D']; receives no gradient.
        distance_gain: Weight λ of the distances.
        angle_gain: Weight λ of the angles.

    Returns:
        A float32 scalar; 0 for fewer than 2 samples, and without the angles for fewer than 3.

    Raises:
        ArgumentError: If the embeddings are not [N, D], or the samples differ in number.

    Source:
        Park et al.: Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068; weights for classification, and means
        over all N² pairs and N³ triplets as in its code.
    """
    for name, embedding in (("student_embedding", student_embedding), ("teacher_embedding", teacher_embedding)):
        if embedding.ndim != 2:
            raise ArgumentError(
                f"Expected argument `{name}` to be [N, D], but got {tuple(embedding.shape)}. Pool or flatten each sample."
            )
    check_samples(student_embedding, teacher_embedding, "embedding")
    if not student_embedding.numel():
        return accumulate(student_embedding).sum()
    student, teacher = _distances(student_embedding), _distances(teacher_embedding.detach())
    loss = distance_gain * F.smooth_l1_loss(student, teacher)
    if angle_gain and student.shape[0] >= 3:
        loss = loss + angle_gain * F.smooth_l1_loss(_cosines(student), _cosines(teacher))
    return loss


def _distances(embedding: Tensor) -> Tensor:
    """Distances of all pairs as multiples of their mean, [N, N]."""
    rows = scaled(accumulate(embedding))
    # Not by inner products, which lose the distance of samples that lie close together.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / torch.where(mean > 0, mean, torch.ones_like(mean))


def _cosines(distances: Tensor) -> Tensor:
    """Cosine of the angle at i between j and k, [N, N, N], by the law of cosines: nothing here has the dimension D."""
    squares, sides = distances.square(), distances.clamp(min=MIN_LENGTH)
    products = squares[:, None, :] - squares[None] + squares[:, :, None]  # 2 (x_j - x_i)ᵀ (x_k - x_i)
    return products / (2 * sides[:, :, None] * sides[:, None, :])


class RKD(nn.Module):
    """Module form of :func:`rkd`.

    A detector has no embedding of a whole image, so its adapter offers neither name and
    :class:`detkd.distiller.Distiller` refuses this loss; :func:`detkd.losses.sp` compares samples by their feature maps.
    """

    default_weight: ClassVar[float] = 1.0

    def __init__(self, distance_gain: float = 25.0, angle_gain: float = 50.0) -> None:
        super().__init__()
        self.distance_gain = distance_gain
        self.angle_gain = angle_gain

    def forward(self, student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`rkd`."""
        return rkd(student_embedding, teacher_embedding, distance_gain=self.distance_gain, angle_gain=self.angle_gain)
