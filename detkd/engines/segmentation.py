"""Segmentation: its data, and how segmenters, and the detectors that teach them, are judged at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detkd.adapters.families import make_adapter
from detkd.data.masks import encode_mask
from detkd.data.segmentation import SegmentationDataset, check_segmentation
from detkd.engines.detection import in_words_of
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.segmentation import as_labels, choose_settings, predict_images, tally_images
from detkd.models.segmenter import Segmenter
from detkd.report.overlays import Row, overlay_panels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from detkd.config import SegmentationConfig
    from detkd.engines.tasks import Judged

METRICS: tuple[str, ...] = ("AP", "AP50", "mIoU", "Dice", "boundary_F1")
PICTURES = "segments.png"
WATCHED = "metrics/AP"
ROWS = 4  # of pictures


def load_data(config: SegmentationConfig, splits: tuple[str, ...] | None = None) -> SegmentationDataset:
    """Read the data set of a run, and refuse what is missing or broken in the splits that it needs, or those named.

    Raises:
        DetkdError: If anything is wrong.
    """
    dataset = SegmentationDataset.load(config.data)
    check_segmentation(dataset, splits or ("train", dataset.watched, *config.evaluate))
    return dataset


def class_names(model: nn.Module) -> tuple[str, ...]:
    """Classes of a segmenter."""
    return make_adapter(model).class_names


def evaluate(
    models: Mapping[str, Judged], dataset: SegmentationDataset, config: SegmentationConfig, folder: Path
) -> dict[str, dict[str, Any]]:
    """Metrics of each model on every wanted split; pictures of the last split.

    A detector that teaches a segmenter is judged by COCO metrics alone, of its masks, or of its boxes taken for masks.
    """
    report: dict[str, dict[str, Any]] = {}
    for role, judged in models.items():
        how = _judge_segmenter if isinstance(judged.model, Segmenter) else _judge_detector
        report[role] = how(judged, dataset, config)
    _draw(models, report, dataset, config, folder)
    return report
