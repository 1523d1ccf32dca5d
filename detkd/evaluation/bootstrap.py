"""How far COCO metrics would move on other pictures of the same kind: a bootstrap over the pictures."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

RESAMPLES = 500
CONFIDENCE = 0.95
SEED = 0  # the same pictures are drawn for every model that is judged on a split


class _Found(NamedTuple):
    """What was found of one class, surest first: N detections at T overlaps, on I pictures.

    Attributes:
        picture: Index of each detection's picture, [N].
        hits: Whether it is right, [T, N].
        misses: Whether it is wrong, [T, N]; what COCO ignores is neither.
        objects: Labelled objects of each picture, [I].
    """

    picture: npt.NDArray[np.int64]
    hits: npt.NDArray[np.bool_]
    misses: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


def precision_intervals(evaluation: Any, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """95 % intervals of AP, AP50 and AP75 by the bias-corrected bootstrap over pictures.

    Pictures are drawn anew with replacement, and what was matched on each of them is accumulated again, as COCO does. That
    is the chance in which pictures were tested; what another seed of the training would change is not in it. The envelope
    of the precision favours few different pictures, so that AP of drawn ones lies above AP of all: hence the correction.

    Args:
        evaluation: A ``COCOeval`` behind ``evaluate()``.
        resamples: How often pictures are drawn.

    Returns:
        Lower and upper end of each; NaN where nothing is labelled.

    Source:
        Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 14.
    """
    parameters = evaluation.params
    classes, pictures = found_of_classes(evaluation), len(parameters.imgIds)
    generator = np.random.default_rng(SEED)
    overlaps = {"AP": slice(None), "AP50": _nearest(parameters.iouThrs, 0.5), "AP75": _nearest(parameters.iouThrs, 0.75)}

    def score(counts: npt.NDArray[np.int64]) -> list[float]:
        table = [average_precision(found, counts, parameters.recThrs) for found in classes]
        known = np.array([row for row in table if row is not None])
        return [float(known[:, place].mean()) if known.size else math.nan for place in overlaps.values()]

    drawn = [score(generator.multinomial(pictures, np.full(pictures, 1 / pictures))) for _ in range(resamples)]
    all_of_them = score(np.ones(pictures, np.int64))
    columns = zip(overlaps, all_of_them, np.array(drawn).T, strict=True)
    return {name: bias_corrected(estimate, values) for name, estimate, values in columns}


def bias_corrected(estimate: float, drawn: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of an estimate from its values on what was drawn; NaN where none is known.

    Its ends are the quantiles that would be 2.5 % and 97.5 % if the estimate were the median of what was drawn.
    """
    known = drawn[~np.isnan(drawn)]
    if math.isnan(estimate) or not known.size:
        return math.nan, math.nan
    below = ((known < estimate).sum() + 0.5 * (known == estimate).sum()) / known.size
    normal, least = NormalDist(), 0.5 / known.size
    bias = normal.inv_cdf(float(np.clip(below, least, 1 - least)))
    half = normal.inv_cdf((1 + CONFIDENCE) / 2)
    low, high = np.quantile(known, [normal.cdf(2 * bias - half), normal.cdf(2 * bias + half)])
    return float(low), float(high)


def found_of_classes(evaluation: Any) -> list[_Found]:
    """What ``COCOeval.evaluate()`` has matched of each class, of objects of all sizes."""
    parameters = evaluation.params
    pictures, areas = len(parameters.imgIds), len(parameters.areaRng)
    return [
        _found(evaluation.evalImgs[index * areas * pictures : index * areas * pictures + pictures], len(parameters.iouThrs))
        for index in range(len(parameters.catIds))
    ]


def average_precision(
    found: _Found, counts: npt.NDArray[np.int64], recalls: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64] | None:
    """AP of one class at each overlap, [T], if each picture were there `counts` times [I]; None without objects.

    A detection that is there twice counts twice at once: between the two lies no point of the precision's envelope.
    """
    objects = int(counts @ found.objects)
    if not objects:
        return None
    weights = counts[found.picture]
    hits, misses = (found.hits * weights).cumsum(1), (found.misses * weights).cumsum(1)
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    padded = np.concatenate((envelope, np.zeros((len(envelope), 1))), 1)  # recalls that are never reached
    reached = [np.searchsorted(row, recalls) for row in hits / objects]
    return np.array([row[place].mean() for row, place in zip(padded, reached, strict=True)])


def _found(matched: list[Any], overlaps: int) -> _Found:
    """One class of all pictures, sorted as COCO sorts: by score, stable."""
    objects = np.array([0 if one is None else int((~np.asarray(one["gtIgnore"], bool)).sum()) for one in matched], np.int64)
    there = [(index, one) for index, one in enumerate(matched) if one is not None and len(one["dtScores"])]
    if not there:
        nothing = np.zeros((overlaps, 0), bool)
        return _Found(np.zeros(0, np.int64), nothing, nothing, objects)
    order = np.argsort(-np.concatenate([one["dtScores"] for _, one in there]), kind="stable")
    picture = np.concatenate([np.full(len(one["dtScores"]), index) for index, one in there])[order]
    matches = np.concatenate([one["dtMatches"] for _, one in there], 1)[:, order] > 0
    counted = ~np.concatenate([one["dtIgnore"] for _, one in there], 1)[:, order].astype(bool)
    hits, misses = matches & counted, ~matches & counted
    end = int(hits.any(0).nonzero()[0][-1]) + 1 if hits.any() else 0  # what is less sure than the last hit changes nothing
    return _Found(picture[:end], hits[:, :end], misses[:, :end], objects)


def _nearest(thresholds: npt.NDArray[np.float64], value: float) -> slice:
    index = int(np.abs(thresholds - value).argmin())
    return slice(index, index + 1)
