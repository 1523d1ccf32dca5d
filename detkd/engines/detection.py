"""Detection: its data, and how detectors are judged at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.adapters.families import make_adapter
from detkd.data.detection import DetectionDataset, check_dataset
from detkd.data.pictures import read_picture
from detkd.engines.attention import with_attention
from detkd.errors import DataError
from detkd.evaluation.bootstrap import RESAMPLES
from detkd.evaluation.coco import evaluate_coco
from detkd.report.curves import write_precision
from detkd.report.gallery import write_gallery
from detkd.report.panels import gallery_panels
from detkd.report.pictures import draw_detections
from detkd.report.watched import WATCHED_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detkd.config import DetectionConfig
    from detkd.engines.tasks import Judged

METRICS: tuple[str, ...] = ("AP", "AP50", "AP75")
PICTURES = "detections.png"
WATCHED, _NAME = WATCHED_METRICS["detect"]
TITLE = f"val {_NAME}"  # what that is called on the terminal
ROWS = 4  # of pictures


def load_data(config: DetectionConfig, splits: tuple[str, ...] | None = None) -> DetectionDataset:
    """Read the data set of a run, and refuse what is missing or broken in the splits that it needs, or those named.

    Raises:
        DetkdError: If anything is wrong.
    """
    dataset = DetectionDataset.load(config.data)
    if config.family == "yolo" and dataset.format != "yolo":
        raise DataError(
            f"{config.data}: expected `format: yolo` for a YOLO student, which ultralytics trains, but got "
            f"{dataset.format}. Convert the labels, or take a detector of torchvision."
        )
    check_dataset(dataset, splits or ("train", dataset.watched, *config.evaluate))
    return dataset


def evaluate(
    models: Mapping[str, Judged], dataset: DetectionDataset, config: DetectionConfig, folder: Path
) -> dict[str, dict[str, Any]]:
    """COCO metrics of each model on every wanted split; curves and pictures of the last split."""
    report: dict[str, dict[str, Any]] = {}
    curves = {}
    last = config.evaluate[-1]
    truths = {split: dataset.coco(split) for split in config.evaluate}
    columns = {"ground truth": truths[last]["annotations"]}
    for role, (model, family, classes, imgsz) in models.items():
        metrics = {}
        assert family.predictor is not None, "a detector"
        predict, names = family.predictor(model), make_adapter(model).class_names
        for split, truth in truths.items():
            found = predict(dataset.images(split), in_words_of(names, classes, truth), imgsz=imgsz)
            found = [detection for detection in found if detection["category_id"] is not None]
            scored = evaluate_coco(truth, found, resamples=RESAMPLES)
            metrics[split] = scored.as_dict()
            if split == last:
                columns[role], curves[role] = found, scored.curves
        report[role] = metrics
    write_precision(folder, last, curves)
    images = dataset.images(last)[:ROWS]
    gallery = with_attention(
        draw_detections(images, columns, truths[last]), [read_picture(image) for image in images], models
    )
    write_gallery(gallery, folder)
    gallery_panels(gallery, folder / PICTURES)
    return report


def in_words_of(names: Sequence[str], classes: Mapping[str, str], truth: Mapping[str, Any]) -> dict[str, Any]:
    """Ground truth with a model's names of its classes; what else the model knows is there without an id."""
    categories = [{**category, "name": classes.get(category["name"], category["name"])} for category in truth["categories"]]
    known = {category["name"] for category in categories}
    others = [{"id": None, "name": name} for name in names if name not in known]
    return {**truth, "categories": [*categories, *others]}
