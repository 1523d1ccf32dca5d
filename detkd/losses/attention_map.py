"""What a Transformer's layer attends to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops._common import accumulate, check_floating

if TYPE_CHECKING:
    from torch import Tensor

Distance = Literal["mse", "kl"]


def attention_map(
    student_attention: Tensor, teacher_attention: Tensor, token_mask: Tensor, *, distance: Distance = "mse"
) -> Tensor:
    r"""Distance of attention probabilities between real tokens, by their squared difference or their divergence.

    .. math::
        \mathrm{mse:} \; \frac{1}{B H} \sum_{b,h} \frac{1}{n_b^2} \sum_{i,j} (a^s_{bhij} - a^t_{bhij})^2 \qquad
        \mathrm{kl:} \; \frac{1}{B H} \sum_{b,h} \frac{1}{n_b} \sum_{i,j} a^t_{bhij} (\log a^t_{bhij} - \log a^s_{bhij})

    over the n_b real tokens of each sentence. TinyBERT takes the scores before the softmax for the first, MiniLM the last
    layer alone for the second. Where the models differ in their number of heads, the means over their heads are compared.

    Args:
        student_attention: Probabilities of the student, rows that sum up to 1, [B, H, L, L].
        teacher_attention: Those of the teacher, [B, H_t, L, L]; receives no gradient.
        token_mask: Which tokens are no padding, [B, L] of bool.
        distance: ``mse`` or ``kl``.

    Returns:
        A float32 scalar, the mean over the sentences; 0 for an empty input.

    Raises:
        ArgumentError: If the shapes do not fit each other or the distance is unknown.

    Source:
        mse: Jiao et al.: TinyBERT, Findings of EMNLP 2020, arXiv:1909.10351, equation 7. kl: Wang et al.: MiniLM,
        NeurIPS 2020, arXiv:2002.10957, equation 5.
    """
    _check(student_attention, teacher_attention, token_mask)
    if distance not in {"mse", "kl"}:
        raise ArgumentError(f"Expected argument `distance` to be mse or kl, but got {distance!r}.")
    if not student_attention.numel():
        return accumulate(student_attention).sum()
    student, teacher = accumulate(student_attention), accumulate(teacher_attention.detach())
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    real = token_mask[:, None, :, None] & token_mask[:, None, None, :]
    counts = token_mask.sum(1).clamp(min=1).to(student.dtype)
    if distance == "mse":
        distances, counts = (student - teacher).square(), counts.square()
    else:
        tiny = torch.finfo(torch.float32).tiny  # a probability that has underflowed says no more than that
        distances = torch.xlogy(teacher, teacher) - teacher * student.clamp(min=tiny).log()
    by_head = distances.where(real, distances.new_zeros(())).sum((2, 3)) / counts[:, None]
    return by_head.mean()


def _check(student: Tensor, teacher: Tensor, token_mask: Tensor) -> None:
    check_floating(student, "student_attention")
    check_floating(teacher, "teacher_attention")
    sizes = [(x.shape[0], *x.shape[2:]) for x in (student, teacher)]
    if student.ndim != 4 or student.shape[2] != student.shape[3] or sizes[0] != sizes[1]:
        raise ArgumentError(
            f"Expected argument `teacher_attention` to be [B, H, L, L] of the student's sentences, but got "
            f"{tuple(teacher.shape)} for {tuple(student.shape)}."
        )
    if tuple(token_mask.shape) != (student.shape[0], student.shape[2]):
        raise ArgumentError(
            f"Expected argument `token_mask` to be [B, L] for attention {tuple(student.shape)}, but got "
            f"{tuple(token_mask.shape)}."
        )


class AttentionMap(nn.Module):
    """Module form of :func:`attention_map`."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self, distance: Distance = "mse") -> None:
        super().__init__()
        self.distance: Distance = distance

    def forward(self, student_attention: Tensor, teacher_attention: Tensor, token_mask: Tensor) -> Tensor:
        """Return the scalar loss; see :func:`attention_map`."""
        return attention_map(student_attention, teacher_attention, token_mask, distance=self.distance)
