"""Segmentation: its data, and how segmenters, and the detectors that teach them, are judged at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detkd.adapters.families import make_any_adapter
from detkd.data.masks import PixelLabels, decode_segment, encode_mask
from detkd.data.pictures import read_picture
from detkd.data.segmentation import SegmentationDataset, check_segmentation
from detkd.engines.detection import in_words_of
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.segmentation import as_labels, choose_settings, predict_images, tally_images
from detkd.models.segmenter import Segmenter
from detkd.report.overlays import OverlayRow, overlay_panels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detkd.config import SegmentationConfig
    from detkd.data.segmented import SegmentedImage
    from detkd.engines.tasks import Judged

METRICS: tuple[str, ...] = ("AP", "AP50", "mIoU", "Dice", "boundary_F1")
PICTURES = "segments.png"
WATCHED = "metrics/AP"
ROWS = 4  # of pictures
SURE = 0.5  # score from which a detection is drawn


def load_data(config: SegmentationConfig, splits: tuple[str, ...] | None = None) -> SegmentationDataset:
    """Read the data set of a run, and refuse what is missing or broken in the splits that it needs, or those named.

    Raises:
        DetkdError: If anything is wrong.
    """
    dataset = SegmentationDataset.load(config.data)
    check_segmentation(dataset, splits or ("train", dataset.watched, *config.evaluate))
    return dataset


def evaluate(
    models: Mapping[str, Judged], dataset: SegmentationDataset, config: SegmentationConfig, folder: Path
) -> dict[str, dict[str, Any]]:
    """Metrics of each model on every wanted split; pictures of the last split.

    A detector that teaches a segmenter is judged by COCO metrics alone, of its masks, or of its boxes taken for masks.
    """
    splits = {split: _Split(dataset.annotated(split), dataset.coco(split)) for split in config.evaluate}
    report: dict[str, dict[str, Any]] = {}
    columns: dict[str, list[PixelLabels]] = {}
    for role, judged in models.items():
        if isinstance(judged.model, Segmenter):
            report[role], columns[role] = _judge_segmenter(judged, splits, dataset, config)
        else:
            report[role], columns[role] = _judge_detector(judged, splits)
    shown = splits[config.evaluate[-1]].images[:ROWS]
    roles = [role for role in models if role != "student"]
    rows = [
        OverlayRow(
            title=image.path.stem,
            pixels=read_picture(image.path),
            truth=image.decode(),
            teacher=columns[roles[0]][index] if roles else None,
            student=columns["student"][index],
        )
        for index, image in enumerate(shown)
    ]
    overlay_panels(rows, folder / PICTURES, dataset.names)
    return report


class _Split(NamedTuple):
    """A split's images, and its COCO ground truth: every mask is decoded for them, once for all models."""

    images: list[SegmentedImage]
    truth: dict[str, Any]


def _judge_segmenter(
    judged: Judged, splits: Mapping[str, _Split], dataset: SegmentationDataset, config: SegmentationConfig
) -> tuple[dict[str, Any], list[PixelLabels]]:
    """Metrics of each split, and what the segmenter says of the first pictures of the last one."""
    model = judged.model
    # Tiles keep the pictures' scale, at which a teacher of a larger input was not trained either.
    imgsz = judged.imgsz if config.segment.pictures == "fit" else config.train.imgsz
    how: dict[str, Any] = {"imgsz": imgsz, "mode": config.segment.pictures, "batch": config.train.batch}
    names = [judged.classes.get(name, name) for name in dataset.names]
    settings = config.segment.instances or InstanceSettings.model_validate({})
    if config.segment.instances is None and "val" in dataset.splits:
        settings = choose_settings(model, dataset, "val", names=names, **how)
    metrics: dict[str, Any] = {}
    for split, (images, truth) in splits.items():
        known = in_words_of((), judged.classes, truth)
        tally = tally_images(model, images, known, names, settings=settings, **how)
        metrics[split] = {**tally.metrics(truth, dataset.names).as_dict(), "instances": settings.model_dump()}
    shown = splits[config.evaluate[-1]].images[:ROWS]
    return metrics, [as_labels(found, settings) for found in predict_images(model, shown, names, **how)]


def _judge_detector(judged: Judged, splits: Mapping[str, _Split]) -> tuple[dict[str, Any], list[PixelLabels]]:
    """COCO metrics of masks on each split, and what a detector finds on the first pictures of the last one."""
    assert judged.family.predictor is not None, "segmenters are judged otherwise"
    predict, names = judged.family.predictor(judged.model), make_any_adapter(judged.model).class_names
    metrics: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    truth: dict[str, Any] = {}
    for split, (images, truth) in splits.items():
        known = in_words_of(names, judged.classes, truth)
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        detections = predict([image.path for image in images], known, imgsz=judged.imgsz)
        found = [_with_mask(one, *sizes[one["image_id"]]) for one in detections if one["category_id"] is not None]
        metrics[split] = evaluate_coco(truth, found, "segm").as_dict()
    return metrics, [_painted(found, image, truth) for image in truth["images"][:ROWS]]


def _with_mask(detection: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """A detection with a mask: its own, or its box."""
    if "segmentation" in detection:
        return detection
    x, y, w, h = detection["bbox"]
    mask = np.zeros((height, width), np.uint8)
    mask[max(0, round(y)) : round(y + h), max(0, round(x)) : round(x + w)] = 1
    return {**detection, "segmentation": encode_mask(mask)}


def _painted(found: Sequence[Mapping[str, Any]], image: Mapping[str, Any], truth: Mapping[str, Any]) -> PixelLabels:
    """A picture's surest detections as labels."""
    places = {category["id"]: index for index, category in enumerate(truth["categories"])}
    sure = [one for one in found if one["image_id"] == image["id"] and one["score"] >= SURE]
    own = sorted(sure, key=lambda one: float(one["score"]))  # the surest is drawn last
    classes = np.zeros((image["height"], image["width"]), np.int16)
    instances = np.zeros(classes.shape, np.int32)
    for number, one in enumerate(own, start=1):
        pixels = decode_segment(one["segmentation"], *classes.shape) > 0
        classes[pixels], instances[pixels] = places[one["category_id"]] + 1, number
    return PixelLabels(classes, instances, np.array([places[one["category_id"]] for one in own], np.int64))
