"""Channel-wise distillation of a segmenter's logits: where each class is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from detkd.losses._pixels import check_of_pixels, check_pixels
from detkd.losses.cwd import cwd
from detkd.ops import kl_div

if TYPE_CHECKING:
    from torch import Tensor


def pixel_cwd(
    student_pixels: Tensor,
    teacher_pixels: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    temperature: float = 4.0,
) -> Tensor:
    r"""KL divergence of each class's softmax over the pixels of an image; see :func:`detkd.losses.cwd`.

    .. math::
        \frac{T^2}{B K} \sum_{n,k} \mathrm{KL}(q^t_{n,k} \| q^s_{n,k})

    with q the softmax of channel k at temperature T over the pixels of image n that have a weight.

    A class that covers few pixels counts as much as one that covers most, which a mean over pixels would drown.

    Args:
        student_pixels: Logits of the student, [B, K, H, W].
        teacher_pixels: Logits of the teacher, same shape; receives no gradient.
        pixel_weights: Weight of each pixel, [B, H, W]; those of 0 are left out of both softmaxes, the others count alike.
            None takes all.
        temperature: Softening T > 0.

    Returns:
        A float32 scalar; an image none of whose pixels counts adds 0.

    Raises:
        ArgumentError: If the shapes do not fit each other or the temperature is not positive.

    Source:
        Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv:2011.13256.
    """
    check_pixels(student_pixels, teacher_pixels)
    if pixel_weights is None:
        return cwd(student_pixels, teacher_pixels, temperature=temperature)
    check_of_pixels(pixel_weights, "pixel_weights", student_pixels)
    student, teacher = student_pixels.flatten(2), teacher_pixels.flatten(2)
    return kl_div(student, teacher, 2, temperature, mask=pixel_weights.flatten(1)[:, None])


class PixelCWD(nn.Module):
    """Module form of :func:`pixel_cwd`."""

    default_weight: ClassVar[float] = 3.0

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_pixels: Tensor, teacher_pixels: Tensor, pixel_weights: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`pixel_cwd`."""
        return pixel_cwd(student_pixels, teacher_pixels, pixel_weights, temperature=self.temperature)
