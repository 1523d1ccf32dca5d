"""COCO metrics of masks, and beside them those of pixels, for segmenters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from detkd.data.masks import PixelLabels, decode_segment, encode_mask
from detkd.data.pictures import read_picture
from detkd.errors import DataError
from detkd.evaluation.boundary import boundary_f1
from detkd.evaluation.coco import CocoMetrics, average_precision, evaluate_coco
from detkd.evaluation.instances import InstanceSettings, PixelProbabilities, find_instances
from detkd.evaluation.lookup import category_ids, image_ids
from detkd.evaluation.pixels import predict_probabilities
from detkd.types import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from torch import nn

    from detkd.data.segmentation import SegmentationDataset
    from detkd.data.segmented import SegmentedImage
    from detkd.types import Mode

THRESHOLDS = (0.4, 0.5, 0.6)
BOUNDARY_THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
MIN_DISTANCES = (3, 5, 10)
MIN_AREAS = (4, 8, 16, 32)


@dataclass(frozen=True)
class SegmentationMetrics:
    """How well objects and pixels are told; NaN of what a class has neither labels nor predictions of.

    Attributes:
        masks: COCO's mask AP of the objects.
        iou: Intersection over union of the pixels of ``background`` and of each class, of all pictures together.
        dice: Dice of the pixels of each class, of all pictures together.
        boundary: Boundary F1 of each class, mean of the pictures that have it.
        boundary_f1: Boundary F1 of a picture, mean of the classes that it has; mean of the pictures.
    """

    masks: CocoMetrics
    iou: dict[str, float]
    dice: dict[str, float]
    boundary: dict[str, float]
    boundary_f1: float

    def __getitem__(self, name: str) -> float:
        """Return one of the numbers that :meth:`as_dict` gives."""
        value: float = self.as_dict()[name]
        return value

    def as_dict(self) -> dict[str, Any]:
        """All numbers in one flat mapping, ``per_class`` nested.

        Beside COCO's: ``mIoU`` is the mean over the background and the classes, ``Dice`` the mean over the classes.
        """
        tables = {"AP": self.masks.per_class, "IoU": self.iou, "Dice": self.dice, "boundary_F1": self.boundary}
        return {
            **self.masks.as_dict(),
            "mIoU": _mean(list(self.iou.values())),
            "Dice": _mean(list(self.dice.values())),
            "boundary_F1": self.boundary_f1,
            "per_class": {name: {key: values[name] for key, values in tables.items()} for name in self.dice},
        }


@dataclass(frozen=True)
class Tally:
    """What was counted on some pictures, which can be added to what was on others: by processes that share a split.

    Attributes:
        detections: COCO results.
        confusion: Pixels by their true class (rows) and the one predicted, background first, [1 + C, 1 + C].
        boundary: Boundary F1 of each class in each of N pictures, [N, C].
    """

    detections: list[dict[str, Any]]
    confusion: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.float64]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.detections + other.detections,
            self.confusion + other.confusion,
            np.concatenate((self.boundary, other.boundary)),
        )

    def metrics(self, truth: dict[str, Any], names: Sequence[str], *, resamples: int = 0) -> SegmentationMetrics:
        """Score what was counted.

        Args:
            truth: COCO ground truth with masks, of all pictures that were counted.
            names: The data set's classes.
            resamples: See :func:`detkd.evaluation.coco.evaluate_coco`.
        """
        hits, predicted, real = self.confusion.diagonal(), self.confusion.sum(0), self.confusion.sum(1)
        with np.errstate(invalid="ignore"):  # NaN of classes that are nowhere
            iou, dice = hits / (predicted + real - hits), 2 * hits / (predicted + real)
        return SegmentationMetrics(
            masks=evaluate_coco(truth, self.detections, "segm", resamples=resamples),
            iou=dict(zip((BACKGROUND, *names), iou.tolist(), strict=True)),
            dice=dict(zip(names, dice[1:].tolist(), strict=True)),
            boundary={name: _mean(self.boundary[:, index]) for index, name in enumerate(names)},
            boundary_f1=_mean([_mean(scores) for scores in self.boundary]),
        )


def evaluate_segmentation(
    model: nn.Module,
    dataset: SegmentationDataset,
    split: str,
    *,
    imgsz: int,
    mode: Mode = "fit",
    settings: InstanceSettings,
    batch: int = 8,
) -> SegmentationMetrics:
    """Evaluate a segmenter on a split; it runs once over each picture.

    Args:
        model: See :func:`detkd.evaluation.pixels.predict_probabilities`; its classes are matched by name.
        dataset: The data set.
        split: Which of its splits.
        imgsz: Side of the network's input in pixels.
        mode: How pictures reach the network.
        settings: How objects are told apart.
        batch: Pictures at a time.

    Raises:
        DataError: If the split is broken, or no class of the model is one of the data set's.
    """
    truth = dataset.coco(split)
    tally = tally_images(
        model, dataset.annotated(split), truth, dataset.names, imgsz=imgsz, mode=mode, settings=settings, batch=batch
    )
    return tally.metrics(truth, dataset.names)


def tally_images(
    model: nn.Module,
    images: Sequence[SegmentedImage],
    truth: dict[str, Any],
    names: Sequence[str],
    *,
    imgsz: int,
    mode: Mode = "fit",
    settings: InstanceSettings,
    batch: int = 8,
) -> Tally:
    """Count what a segmenter says of some pictures of a split; see :func:`evaluate_segmentation`.

    Args:
        model: The segmenter.
        images: The pictures.
        truth: COCO ground truth, for the ids of images and categories.
        names: The data set's classes.
        imgsz: Side of the network's input in pixels.
        mode: How pictures reach the network.
        settings: How objects are told apart.
        batch: Pictures at a time.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    categories, ids = category_ids(truth, names), image_ids(truth, [image.path for image in images])
    predictions = predict_images(model, images, names, imgsz=imgsz, mode=mode, batch=batch)
    detections: list[dict[str, Any]] = []
    confusion = np.zeros((1 + len(names), 1 + len(names)), np.int64)
    boundary = np.full((len(images), len(names)), np.nan)
    for row, (image, index, found) in enumerate(zip(images, ids, predictions, strict=True)):
        labels = image.decode()
        detections += without_void(coco_results(found, settings, index, categories), image.void(labels))
        real, predicted = labels.classes, found.classes.argmax(0)
        confusion += multiclass_confusion_matrix(
            torch.from_numpy(predicted), torch.from_numpy(real.astype(np.int64)), 1 + len(names), ignore_index=-1
        ).numpy()
        boundary[row] = boundary_f1(predicted, real, len(names))
    return Tally(detections, confusion, boundary)


def predict_images(
    model: nn.Module,
    images: Sequence[SegmentedImage],
    names: Sequence[str],
    *,
    imgsz: int,
    mode: Mode = "fit",
    batch: int = 8,
) -> Iterator[PixelProbabilities]:
    """Run a segmenter over a data set's pictures, and give what it says in the order of the data set's classes.

    Args:
        model: See :func:`detkd.evaluation.pixels.predict_probabilities`.
        images: The pictures.
        names: The data set's classes; what the model does not know has no probability, and what it alone knows is
            background.
        imgsz: Side of the network's input in pixels.
        mode: How pictures reach the network.
        batch: Pictures at a time.

    Raises:
        DataError: If no class of the model is one of the data set's.
    """
    known: Any = model.class_names
    if not set(known) & set(names):
        raise DataError(f"Expected classes of the data set's {sorted(names)}, but the model's are {sorted(known)}.")
    places = [0, *(1 + list(names).index(name) if name in names else 0 for name in known)]
    pictures = (read_picture(image.path) for image in images)
    for found in predict_probabilities(model, pictures, imgsz=imgsz, mode=mode, batch=batch):
        classes = np.zeros((1 + len(names), *found.classes.shape[1:]), np.float32)
        np.add.at(classes, places, found.classes)
        yield PixelProbabilities(classes, found.boundary)


def coco_results(
    found: PixelProbabilities, settings: InstanceSettings, image: Any, categories: Sequence[Any]
) -> list[dict[str, Any]]:
    """The objects of a picture as COCO results.

    Args:
        found: What a segmenter says of it.
        settings: How objects are told apart.
        image: Its id.
        categories: The id of each class.
    """
    return [
        {
            "image_id": image,
            "category_id": categories[instance.label],
            "score": instance.score,
            "segmentation": encode_mask(instance.mask),
        }
        for instance in find_instances(found, settings)
    ]


def without_void(results: list[dict[str, Any]], void: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """COCO results without the pixels that the labels ignore, [H, W]; those that are left with none are gone."""
    if not void.any():
        return results
    masks = [(decode_segment(result["segmentation"], *void.shape) > 0) & ~void for result in results]
    return [
        {**result, "segmentation": encode_mask(mask)} for result, mask in zip(results, masks, strict=True) if mask.any()
    ]


def as_labels(found: PixelProbabilities, settings: InstanceSettings) -> PixelLabels:
    """What a segmenter says of a picture in the form of labels: each pixel's likeliest class, and the objects."""
    instances = np.zeros(found.classes.shape[1:], np.int32)
    objects = find_instances(found, settings)
    for number, instance in enumerate(objects, start=1):
        instances[instance.mask] = number
    labels = np.array([instance.label for instance in objects], np.int64)
    return PixelLabels(found.classes.argmax(0).astype(np.int16), instances, labels)


def choose_settings(
    model: nn.Module,
    dataset: SegmentationDataset,
    split: str = "val",
    *,
    imgsz: int,
    mode: Mode = "fit",
    batch: int = 8,
    names: Sequence[str] | None = None,
) -> InstanceSettings:
    """Choose how objects are told apart, by mask AP on a split that is not the one to be reported.

    First method and thresholds of a grid, then the smallest object's size. The model runs once over each picture.

    Args:
        model: The segmenter.
        dataset: The data set.
        split: Which of its splits.
        imgsz: Side of the network's input in pixels.
        mode: How pictures reach the network.
        batch: Pictures at a time.
        names: What the model calls the data set's classes, in their order; as the data set does if None.
    """
    truth, images = dataset.coco(split), dataset.annotated(split)
    categories, ids = category_ids(truth, dataset.names), image_ids(truth, [image.path for image in images])
    grid = _grid(boundary=bool(model.boundary))
    results: list[list[dict[str, Any]]] = [[] for _ in grid]
    predictions = predict_images(model, images, names or dataset.names, imgsz=imgsz, mode=mode, batch=batch)
    for image, index, found in zip(images, ids, predictions, strict=True):
        void = image.void()
        for settings, own in zip(grid, results, strict=True):
            own.extend(without_void(coco_results(found, settings, index, categories), void))
    precisions = [_precision(truth, own) for own in results]
    best = int(np.argmax(precisions))
    # One by one: pycocotools counts the masks of a list in 8 bits.
    areas = [int(coco_mask.area(result["segmentation"])) for result in results[best]]
    by_area = [
        _precision(truth, [result for result, area in zip(results[best], areas, strict=True) if area >= least])
        for least in MIN_AREAS
    ]
    return grid[best].model_copy(update={"min_area": MIN_AREAS[int(np.argmax(by_area))]})


def _grid(*, boundary: bool) -> list[InstanceSettings]:
    own = (
        [{"boundary_threshold": value} for value in BOUNDARY_THRESHOLDS]
        if boundary
        else [{"min_distance": value} for value in MIN_DISTANCES]
    )
    methods: list[dict[str, Any]] = [{"method": "components"}, *({"method": "watershed", **values} for values in own)]
    return [
        InstanceSettings.model_validate({"threshold": threshold, "min_area": MIN_AREAS[0], **method})
        for threshold in THRESHOLDS
        for method in methods
    ]


def _precision(truth: dict[str, Any], results: list[dict[str, Any]]) -> float:
    return float(np.nan_to_num(average_precision(truth, results, "segm")))


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
