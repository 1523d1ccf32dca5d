"""How well a classifier does: accuracy, calibration, and agreement with another one."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from detkd.errors import ArgumentError
from detkd.modes import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

BINS = 15  # of confidence, as Guo et al. take them


@dataclass(frozen=True)
class Reliability:
    """How often a classifier is right where it is so sure.

    Attributes:
        edges: Bounds of the bins of confidence, [K + 1].
        counts: Samples in each bin, [K].
        confidence: Mean probability of the predicted class in each bin, [K]; 0 where it is empty.
        accuracy: Share that is right in each bin, [K]; 0 where it is empty.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        r"""Expected calibration error, :math:`\sum_k \frac{n_k}{N} |\mathrm{acc}_k - \mathrm{conf}_k|`; 0 for none."""
        gaps = self.counts * np.abs(self.accuracy - self.confidence)
        return float(gaps.sum() / max(int(self.counts.sum()), 1))


def reliability(logits: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Sort samples by the probability of the predicted class into bins of equal width, (0, 1/K], ... (1 - 1/K, 1].

    Args:
        logits: [N, C].
        labels: Index of the class, [N].
        bins: Number K of bins.

    Raises:
        ArgumentError: If the shapes do not fit each other.

    Source:
        Guo, Pleiss, Sun and Weinberger: On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.
    """
    _check(logits, labels)
    sure, predicted = logits.double().softmax(1).max(1) if len(logits) else (logits.new_zeros(0), labels)
    right = (predicted == labels).double()
    place = ((sure * bins).ceil().long() - 1).clamp(0, bins - 1)
    counts = torch.bincount(place, minlength=bins)
    sums = [torch.zeros(bins, dtype=torch.float64).index_add_(0, place, values.double()) for values in (sure, right)]
    confidence, accuracy = ((total / counts.clamp(min=1)).numpy() for total in sums)
    return Reliability(np.linspace(0, 1, bins + 1), counts.numpy(), confidence, accuracy)


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, negative log-likelihood and expected calibration error (ECE) of logits [N, C] on labels [N]."""
    _check(logits, labels)
    return {
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
        "NLL": float(F.cross_entropy(logits.double(), labels)),
        "ECE": reliability(logits, labels).error,
    }


def class_accuracy(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Share of the samples of each class that are told right, from logits [N, C]; NaN of a class without samples."""
    _check(logits, labels)
    right = (logits.argmax(1) == labels).double()
    shares = {name: right[labels == index].mean() for index, name in enumerate(names)}
    return {name: float(share) for name, share in shares.items()}


def accuracy_interval(right: int, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    r"""The interval of a share of `count` samples of which `right` are: Wilson's score interval.

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    Source:
        Wilson: Probable Inference, the Law of Succession, and Statistical Inference, Journal of the American Statistical
        Association 22, 1927.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = right / count, z**2 / count
    half = z * ((share * (1 - share) + spread / 4) / count) ** 0.5
    return (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)


def agreement(first: Tensor, second: Tensor) -> float:
    """Share of samples that two classifiers of the same classes predict alike, from their logits [N, C]."""
    if first.shape != second.shape:
        raise ArgumentError(
            f"Expected argument `second` to have the shape {tuple(first.shape)} of `first`, but got {tuple(second.shape)}."
        )
    return float((first.argmax(1) == second.argmax(1)).double().mean())


@torch.no_grad()
def predict_logits(model: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Logits of all samples in float32 on the CPU, [N, C].

    Args:
        model: The classifier; its modes are restored.
        batches: Its inputs, some at a time.
    """
    device = next((parameter.device for parameter in model.parameters()), None)
    with evaluating(model):
        return torch.cat([model(batch.to(device)).float().cpu() for batch in batches])


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ArgumentError(
            f"Expected arguments `logits` [N, C] and `labels` [N], but got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
