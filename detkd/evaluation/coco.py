"""COCO metrics by pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkd.data.annotations import are_pixels
from detkd.data.coco import check_truth, is_segment
from detkd.data.masks import compress_segment
from detkd.errors import DataError, one_line, shorten
from detkd.evaluation.bootstrap import precision_intervals
from detkd.trees import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
IouType = Literal["bbox", "segm"]


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision, made monotonous as COCO does, at the recalls 0, .01, … 1.

    Attributes:
        by_overlap: Mean of the classes at IoU ``0.5``, ``0.75``, and of ten IoU ``0.5:0.95``, [101] each.
        by_class: Class name to precision at IoU .5, [101]; without classes that have no labelled object.
    """

    by_overlap: dict[str, list[float]]
    by_class: dict[str, list[float]]


@dataclass(frozen=True)
class CocoMetrics:
    """The 12 standard numbers of COCO, and AP for each class.

    Attributes:
        summary: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, in [0, 1]. NaN where the ground truth
            has no such object (COCO prints -1); null in JSON.
        per_class: Class name to AP.
        curves: What AP is the area below.
        intervals: 95 % intervals of AP, AP50 and AP75, see
            :func:`detkd.evaluation.bootstrap.precision_intervals`; None where they were not asked for.
    """

    summary: dict[str, float]
    per_class: dict[str, float]
    curves: PrecisionRecall
    intervals: dict[str, tuple[float, float]] | None = None

    def __getitem__(self, name: str) -> float:
        """Return one of the 12 numbers."""
        return self.summary[name]

    def as_dict(self) -> dict[str, Any]:
        """All numbers in one flat mapping, ``per_class`` and ``intervals`` nested; the curves are left out."""
        intervals = {} if self.intervals is None else {"intervals": self.intervals}
        return {**self.summary, **intervals, "per_class": dict(self.per_class)}


def evaluate_coco(
    ground_truth: dict[str, Any] | Path,
    detections: Sequence[dict[str, Any]] | Path,
    iou_type: IouType = "bbox",
    *,
    resamples: int = 0,
) -> CocoMetrics:
    """Score detections against COCO ground truth.

    Args:
        ground_truth: COCO json, read or as a path; for ``segm`` with a ``segmentation`` of each object.
        detections: COCO results: dicts of ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height in
            pixels) or ``segmentation``; or a path to them.
        iou_type: ``bbox`` or ``segm``.
        resamples: How often pictures are drawn anew for intervals; 0 for none, which take longer than the metrics.

    Raises:
        DataError: If a file is unreadable, a detection names an image or a category that the ground truth lacks, or there
            are no masks where they are to be scored.
    """
    truth = _read(ground_truth) if isinstance(ground_truth, Path) else ground_truth
    if isinstance(ground_truth, Path):
        check_truth(truth, str(ground_truth))
    results = _read_results(detections, truth) if isinstance(detections, Path) else detections
    evaluation = _prepare(truth, results, iou_type)
    _run(evaluation, summarize=True)
    coco = evaluation.cocoGt
    summary = {name: _number(value) for name, value in zip(METRICS, evaluation.stats, strict=True)}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [thresholds, recalls, classes], all areas, 100 detections
    per_class = {}
    for index, category in enumerate(evaluation.params.catIds):
        valid = precision[:, :, index][precision[:, :, index] > -1]
        per_class[coco.cats[category]["name"]] = float(valid.mean()) if valid.size else math.nan
    return CocoMetrics(
        summary=summary,
        per_class=per_class,
        curves=_curves(precision, [coco.cats[category]["name"] for category in evaluation.params.catIds]),
        intervals=precision_intervals(evaluation, resamples) if resamples else None,
    )


def average_precision(truth: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: IouType = "bbox") -> float:
    """COCO's AP alone, in a quarter of the time that all numbers take: objects are not judged by their sizes too.

    Args:
        truth: See :func:`evaluate_coco`.
        results: See :func:`evaluate_coco`.
        iou_type: ``bbox`` or ``segm``.

    Returns:
        In [0, 1]; NaN where there is no object.

    Raises:
        DataError: As :func:`evaluate_coco` does.
    """
    evaluation = _prepare(truth, results, iou_type)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [evaluation.params.areaRng[0]], ["all"]
    evaluation.params.maxDets = evaluation.params.maxDets[-1:]
    _run(evaluation, summarize=False)
    precision = evaluation.eval["precision"]
    known = precision[precision > -1]
    return float(known.mean()) if known.size else math.nan


def _prepare(truth: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: IouType) -> COCOeval:
    if iou_type == "segm":
        _check_masks(truth, results)
        results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by printing
        coco = COCO()
        try:
            # Evaluation adds keys to annotations; the caller's stay as they are.
            coco.dataset = {**truth, "annotations": [_complete(*item) for item in enumerate(truth["annotations"], 1)]}
            coco.dataset.setdefault("info", {})
            coco.createIndex()
        except (KeyError, TypeError) as error:
            raise DataError(f"Expected COCO ground truth, but: {type(error).__name__} {error}.") from error
        _check(coco, results)
        detected = coco.loadRes([dict(result) for result in results]) if results else _nothing(coco)
        return COCOeval(coco, detected, iou_type)


def _run(evaluation: COCOeval, *, summarize: bool) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        if summarize:
            evaluation.summarize()


def _curves(precision: npt.NDArray[np.float64], names: Sequence[str]) -> PrecisionRecall:
    """Curves of COCO's precisions [T, R, C], of which those of classes without objects are -1."""
    known = [index for index in range(len(names)) if (precision[:, :, index] > -1).any()]
    mean = precision[:, :, known].mean(2) if known else precision[:0, :, 0]
    rows = {"0.5": mean[:1], "0.75": mean[5:6], "0.5:0.95": mean}
    return PrecisionRecall(
        by_overlap={name: row.mean(0).tolist() for name, row in rows.items() if len(row)},
        by_class={names[index]: precision[0, :, index].tolist() for index in known},
    )


def _check(coco: COCO, results: Sequence[dict[str, Any]]) -> None:
    for index, result in enumerate(results):
        missing = {"image_id", "category_id", "score"} - set(result)
        if missing:
            raise DataError(f"Detection {index}: expected {sorted(missing)}, but got {sorted(result)}.")
        for key, known in (("image_id", coco.imgs), ("category_id", coco.cats)):
            if result[key] not in known:
                raise DataError(f"Detection {index}: expected `{key}` of the ground truth, but got {result[key]!r}.")


def _check_masks(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """Refuse what pycocotools would do without masks: score boxes as if they were masks."""
    for role, found in (("ground truth", truth.get("annotations", ())), ("detections", results)):
        missing = sum(not one.get("segmentation") for one in found)
        if missing:
            raise DataError(
                f"Expected a `segmentation` of every object for masks (segm), but {missing} of {len(found)} of the {role} "
                "have none. Score boxes (bbox), or take labels and a detector with masks."
            )


def _nothing(coco: COCO) -> COCO:
    empty = COCO()
    empty.dataset = {**coco.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _number(value: float) -> float:
    return float(value) if value > -1 else math.nan


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"Expected COCO json, but {path} is not readable: {one_line(error)}") from error


def _complete(number: int, annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation of the caller's, with what pycocotools wants and some tools leave out.

    It gets a number of its own: pycocotools takes the id 0 for no match, and of two annotations of an id loses one.
    """
    return {"iscrowd": 0, "area": annotation["bbox"][2] * annotation["bbox"][3], **annotation, "id": number}


def _read_results(path: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Read detections, and refuse what pycocotools would fail on or believe."""
    results = _read(path)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise DataError(f"{path}: expected a list of detections, but got {shorten(results)}.")
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    for index, result in enumerate(results):
        image, box, segment = (result.get(key) for key in ("image_id", "bbox", "segmentation"))
        if not isinstance(image, int | str) or not isinstance(result.get("category_id"), int | str):
            fault = "expected `image_id` and `category_id` of the ground truth"
        elif not are_pixels([result.get("score")]):
            fault = "expected a number as `score`"
        elif ("bbox" in result) != ("bbox" in results[0]) or ("bbox" not in result and segment is None):
            fault = "expected a `bbox` of each detection, or a `segmentation` of each"
        elif "bbox" in result and not (are_pixels(box, 4) and min(box[2:]) >= 0):
            fault = "expected `bbox` to be x, y, width, height in pixels"
        elif segment is not None and image in sizes and not is_segment(segment, sizes[image]):
            fault = "expected `segmentation` to be polygons, or run lengths of the image's size"
        else:
            if segment is not None and image in sizes:
                result["segmentation"] = compress_segment(segment, *reversed(sizes[image]))
            continue
        raise DataError(f"{path}: detection {index}: {fault}, but got {shorten(result)}.")
    return results
