"""Features that a discriminator cannot tell from the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from collections.abc import Callable


class _Reversed(torch.autograd.Function):
    """Identity whose gradient is multiplied by a negative factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def adversarial(
    student_feature: Tensor, teacher_feature: Tensor, discriminator: Callable[[Tensor], Tensor], *, strength: float = 1.0
) -> Tensor:
    r"""A discriminator's loss on features, which it descends and the student climbs.

    .. math:: \frac{1}{2} \mathrm{mean} \big[ \mathrm{softplus}(-D(f^t)) + \mathrm{softplus}(D(f^s)) \big]

    with the discriminator's logit D, high where it takes features for the teacher's. The student gets the gradient
    reversed, times `strength`, so that one optimizer trains both. The value does not fall as the student learns: at
    log 2 = 0.693 the discriminator can tell nothing.

    Args:
        student_feature: Features of the student behind its aligner, [N, C, ...].
        teacher_feature: Features of the teacher, same shape; they receive no gradient.
        discriminator: From features to logits of any shape.
        strength: Factor of the student's gradient, 0 or more.

    Returns:
        A float32 scalar; 0 for an empty input.

    Raises:
        ArgumentError: If the shapes differ.

    Source:
        Goodfellow et al. 2014, arXiv:1406.2661; the reversed gradient: Ganin et al. 2016, arXiv:1505.07818; on features of
        teacher and student: Shu et al. 2019, arXiv:1908.01520.
    """
    check_pair(student_feature, teacher_feature)
    if not student_feature.numel():
        return accumulate(student_feature).sum()
    own = cast("Tensor", _Reversed.apply(accumulate(student_feature), strength))
    logits = discriminator(own), discriminator(accumulate(teacher_feature.detach()))
    return (F.softplus(accumulate(logits[0])).mean() + F.softplus(-accumulate(logits[1])).mean()) / 2


class Adversarial(nn.Module):
    """Module form of :func:`adversarial`, with a discriminator that judges each position of a map.

    Args:
        channels: Channels of the teacher's features.
        hidden: Channels within the discriminator.
        strength: Factor of the student's gradient.
    """

    default_weight: ClassVar[float] = 0.1
    fades: ClassVar[bool] = True  # where the discriminator wins, so that a balance holds it back and never raises it
    aligner: ClassVar[str] = "linear"

    def __init__(self, channels: int, hidden: int = 64, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength
        self.discriminator = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1))

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`adversarial`."""
        return adversarial(student_feature, teacher_feature, self.discriminator, strength=self.strength)
