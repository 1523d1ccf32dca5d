"""Segmentation: its data, and how segmenters, and the detectors that teach them, are judged at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from detkd.adapters.families import make_adapter
from detkd.data.masks import box_mask
from detkd.data.segmentation import SegmentationDataset, check_segmentation
from detkd.engines.detection import in_words_of
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.segmentation import choose_settings, evaluate_segmentation, predict_split
from detkd.models.segmenter import Segmenter
from detkd.report.overlays import overlay_panels

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
