"""Segmentation: its data, and how segmenters, and the detectors that teach them, are judged at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detkd.adapters.families import make_any_adapter
from detkd.data.masks import PixelLabels, decode_segment, encode_mask
from detkd.data.pictures import read_picture
from detkd.data.segmentation import SegmentationDataset, check_segmentation
from detkd.engines.attention import with_attention
from detkd.engines.detection import in_words_of
from detkd.errors import DataError
from detkd.evaluation.bootstrap import RESAMPLES
from detkd.evaluation.coco import CocoMetrics, PrecisionRecall, evaluate_coco
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.lookup import image_ids
from detkd.evaluation.segmentation import as_labels, choose_settings, predict_images, tally_images, without_void
from detkd.models.segmenter import Segmenter
from detkd.report.curves import write_precision
from detkd.report.gallery import write_gallery
from detkd.report.overlays import OverlayRow, draw_overlays
from detkd.report.panels import gallery_panels
from detkd.report.watched import WATCHED_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detkd.config import SegmentationConfig
    from detkd.data.segmented import SegmentedImage
    from detkd.engines.tasks import Judged

METRICS: tuple[str, ...] = ("AP", "AP50", "mIoU", "Dice", "boundary_F1")
PICTURES = "segments.png"
WATCHED, _NAME = WATCHED_METRICS["segment"]
TITLE = f"val {_NAME}"  # what that is called on the terminal
ROWS = 4  # of pictures
SURE = 0.5  # score from which a detection is drawn


def load_data(config: SegmentationConfig, splits: tuple[str, ...] | None = None) -> SegmentationDataset:
    """Read the data set of a run, and refuse what is missing or broken in the splits that it needs, or those named.

    Raises:
        DetkdError: If anything is wrong.
    """
    dataset = SegmentationDataset.load(config.data)
    if config.segment.labelled < 1 and dataset.watched == "train":
        raise DataError(
            f"{config.data}: expected a split `val` where `segment.labelled` is below 1, or the best epoch would be chosen "
            "by labels that are not to be used. Give one, or `holdout: 5` in data.yaml."
        )
    check_segmentation(dataset, splits or ("train", dataset.watched, *config.evaluate))
    return dataset


def evaluate(
    models: Mapping[str, Judged], dataset: SegmentationDataset, config: SegmentationConfig, folder: Path
) -> dict[str, dict[str, Any]]:
    """Metrics of each model on every wanted split; curves and pictures of the last split.

    A detector that teaches a segmenter is judged by COCO metrics alone, of its masks, or of its boxes taken for masks.
    """
    splits = {split: _Split(dataset.annotated(split), dataset.coco(split)) for split in config.evaluate}
    judgements = {
        role: _judge_segmenter(judged, splits, dataset, config)
        if isinstance(judged.model, Segmenter)
        else _judge_detector(judged, splits)
        for role, judged in models.items()
    }
    write_precision(folder, config.evaluate[-1], {role: found.curves for role, found in judgements.items()})
    shown = splits[config.evaluate[-1]].images[:ROWS]
    roles = [role for role in models if role != "student"]
    rows = [
        OverlayRow(
            title=image.path.stem,
            pixels=read_picture(image.path),
            truth=image.decode(),
            teacher=judgements[roles[0]].shown[index] if roles else None,
            student=judgements["student"].shown[index],
        )
        for index, image in enumerate(shown)
    ]
    gallery = with_attention(draw_overlays(rows, dataset.names), [row.pixels for row in rows], models)
    write_gallery(gallery, folder)
    gallery_panels(gallery, folder / PICTURES)
    return {role: found.metrics for role, found in judgements.items()}


class _Split(NamedTuple):
    """A split's images, and its COCO ground truth: every mask is decoded for them, once for all models."""

    images: list[SegmentedImage]
    truth: dict[str, Any]


class _Judgement(NamedTuple):
    """Metrics of each split; of the last one precision-recall curves, and what the model says of its first pictures."""

    metrics: dict[str, Any]
    curves: PrecisionRecall
    shown: list[PixelLabels]


def _judge_segmenter(
    judged: Judged, splits: Mapping[str, _Split], dataset: SegmentationDataset, config: SegmentationConfig
) -> _Judgement:
    model = judged.model
    # Tiles keep the pictures' scale, at which a teacher of a larger input was not trained either.
    imgsz = judged.imgsz if config.segment.pictures == "fit" else config.train.imgsz
    how: dict[str, Any] = {"imgsz": imgsz, "mode": config.segment.pictures, "batch": config.train.batch}
    names = [judged.classes.get(name, name) for name in dataset.names]
    settings = config.segment.instances or InstanceSettings.model_validate({})
    if config.segment.instances is None and "val" in dataset.splits:
        settings = choose_settings(model, dataset, "val", names=names, **how)
    scores = {}
    for split, (images, truth) in splits.items():
        known = in_words_of((), judged.classes, truth)
        tally = tally_images(model, images, known, names, settings=settings, **how)
        scores[split] = tally.metrics(truth, dataset.names, resamples=RESAMPLES)
    last = config.evaluate[-1]
    shown = predict_images(model, splits[last].images[:ROWS], names, **how)
    return _Judgement(
        metrics={split: {**found.as_dict(), "instances": settings.model_dump()} for split, found in scores.items()},
        curves=scores[last].masks.curves,
        shown=[as_labels(found, settings) for found in shown],
    )


def _judge_detector(judged: Judged, splits: Mapping[str, _Split]) -> _Judgement:
    assert judged.family.predictor is not None, "segmenters are judged otherwise"
    predict, names = judged.family.predictor(judged.model), make_any_adapter(judged.model).class_names
    scores: dict[str, CocoMetrics] = {}
    found: list[dict[str, Any]] = []
    truth: dict[str, Any] = {}
    for split, (images, truth) in splits.items():
        known = in_words_of(names, judged.classes, truth)
        voids = {
            index: image.void()
            for index, image in zip(image_ids(truth, [image.path for image in images]), images, strict=True)
        }
        detections = predict([image.path for image in images], known, imgsz=judged.imgsz)
        masked = [_with_mask(one, *voids[one["image_id"]].shape) for one in detections if one["category_id"] is not None]
        found = [one for each in masked for one in without_void([each], voids[each["image_id"]])]
        scores[split] = evaluate_coco(truth, found, "segm", resamples=RESAMPLES)
    return _Judgement(
        metrics={split: own.as_dict() for split, own in scores.items()},
        curves=scores[split].curves,
        shown=[_painted(found, image, truth) for image in truth["images"][:ROWS]],
    )


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
