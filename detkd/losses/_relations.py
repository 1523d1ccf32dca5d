"""What losses share that compare relations between rows: samples of a batch, or pixels of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError
from detkd.ops._common import check_floating

if TYPE_CHECKING:
    from torch import Tensor

# What a length counts at least, as a share of the longest (of distances, of the mean). The slope of a direction is one over
# the length: without a bound, one dead pixel or two equal samples would throw the student off.
MIN_LENGTH = 1e-3


def check_samples(student: Tensor, teacher: Tensor, kind: str) -> None:
    """Refuse a teacher of other samples, and tensors that are not floating point; `kind` completes their names."""
    check_floating(student, f"student_{kind}")
    check_floating(teacher, f"teacher_{kind}")
    if student.shape[0] != teacher.shape[0]:
        raise ArgumentError(
            f"Expected argument `teacher_{kind}` to hold the student's {student.shape[0]} samples in dimension 0, but got "
            f"{tuple(teacher.shape)}. Run both on the same batch."
        )


def scaled(rows: Tensor) -> Tensor:
    """Rows [..., R, D] divided by their largest absolute value, so that their squares neither overflow nor vanish.

    For what does not depend on a common scale: the divisor gets no gradient.
    """
    largest = rows.detach().abs().amax((-2, -1), keepdim=True)
    return rows / torch.where(largest > torch.finfo(rows.dtype).tiny, largest, torch.ones_like(largest))


def gram(rows: Tensor) -> Tensor:
    """Inner products of all pairs of rows, [..., R, D] to [..., R, R], under autocast in the rows' own type, too."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.mT


def unit(rows: Tensor) -> Tensor:
    """Rows [..., R, D] at length 1; those shorter than ``MIN_LENGTH`` of the longest stay in proportion to it."""
    rows = scaled(rows)
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    longest = lengths.detach().amax(-2, keepdim=True).clamp(min=1)  # scaled, it is below 1 only where all are 0
    return rows / torch.maximum(lengths, MIN_LENGTH * longest)
