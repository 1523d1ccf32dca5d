"""How far the student still is from its teacher, as a share of how far it was at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detkd.agreeing import mean_over_processes

if TYPE_CHECKING:
    from collections.abc import Mapping

START = 16  # measurements of a term whose mean is its distance at the start
MOMENTUM = 0.95  # share of the average that a further measurement keeps: about the last 20 of them count


class Distances(nn.Module):
    r"""Factors of the terms whose weight falls as the student nears the teacher.

    A term's own value says how far the student is from the teacher in what the term compares. Its average over the latest
    steps, as a share of the mean over its first ones, raised to the power :math:`\alpha` of the term's schedule and at most
    1, is the factor of its weight:

    .. math:: \min\Big(1, \frac{\bar L(t)}{\bar L(0)}\Big)^{\alpha}

    So what has been learnt of the teacher leaves the labels the last word, and a student that falls back, or that a teacher
    has more to say to later on, is taught again. A term whose value measures no distance (`adversarial`) gains nothing.

    Args:
        powers: Power of each term that has one.

    Source:
        The ratio is the (inverse) training rate of Chen et al.: GradNorm, ICML 2018, arXiv:1711.02257, section 3.1, there
        relative to the other tasks, with the same power. That distillation should fade as the student saturates: Cho and
        Hariharan: On the Efficacy of Knowledge Distillation, ICCV 2019, arXiv:1910.01348.
    """

    averages: Tensor

    def __init__(self, powers: Mapping[str, float]) -> None:
        super().__init__()
        self.powers = dict(powers)
        if powers:  # a run without them has nothing to keep
            # Of each term the mean at the start, the latest average, and how often it was measured.
            self.register_buffer("averages", torch.zeros(3, len(powers)))

    def forward(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Measure a step, and return the factor of each term that has a power; 1 until its start is known.

        Args:
            terms: The unweighted scalar of each term that was computed.
        """
        names = [name for name in terms if name in self.powers]
        if not names:
            return {}
        places = [list(self.powers).index(name) for name in names]
        values = mean_over_processes(torch.stack([terms[name].detach().float() for name in names]))
        before = self.averages[:, places]
        first, latest, count = before
        starting = count < START
        first = torch.where(starting, (first * count + values) / (count + 1), first)
        latest = torch.where(starting, first, MOMENTUM * latest + (1 - MOMENTUM) * values)
        after = torch.stack((first, latest, count + 1))
        # An overflow in half precision must not stay in the averages for ever.
        first, latest, _ = self.averages[:, places] = torch.where(values.isfinite(), after, before)
        shares = torch.where(first > 0, latest / first.clamp(min=1e-12), 1.0).clamp(0.0, 1.0)
        return {name: share ** self.powers[name] for name, share in zip(names, shares, strict=True)}
