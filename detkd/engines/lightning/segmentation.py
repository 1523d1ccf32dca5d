"""Segmentation, as Lightning trains it: labelled pixels in, mask AP and mIoU out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detkd.data.masks import Unlabelled
from detkd.data.pixel_augment import PixelAugmentation
from detkd.data.pixels import PixelBatch, SegmentedPictures, collate
from detkd.engines.lightning.loading import salt
from detkd.engines.lightning.sharing import gather, share_statistics
from detkd.engines.lightning.task import PictureTraining
from detkd.engines.segmentation import TITLE, WATCHED
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.segmentation import tally_images
from detkd.models.unet import save_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import nn

    from detkd.config import SegmentationConfig
    from detkd.data.segmentation import SegmentationDataset
    from detkd.types import PixelTargets


HALF = 0.5  # of the pictures shown have labels, where fewer of all have: labels and teacher teach in every batch


class SegmentationTraining(PictureTraining):
    """The :class:`detkd.engines.lightning.task.TrainingTask` of segmenters."""

    watched = WATCHED
    title = TITLE

    def check(self, config: SegmentationConfig) -> None:
        """Refuse what albumentations would refuse."""
        _augmentation(config)

    def gather(self, samples: Sequence[PixelBatch]) -> PixelBatch:
        """Make a batch of batches of one picture."""
        return collate(samples)

    def pictures(
        self, config: SegmentationConfig, dataset: SegmentationDataset, student: nn.Module | None
    ) -> SegmentedPictures:
        """The training pictures: those of a cache are the same in all runs.

        Where the labels of a share alone are used, a teacher still speaks of all pictures; without one the others are not
        shown.
        """
        images = dataset.annotated("train")
        count = max(1, round(config.segment.labelled * len(images)))
        known = {index * len(images) // count for index in range(count)}
        if config.distill is None:
            shown = [image for index, image in enumerate(images) if index in known]
        else:
            shown = [image if index in known else image.without_labels() for index, image in enumerate(images)]
        boundary = config.segment.boundary if bool(getattr(student, "boundary", False)) else None
        return SegmentedPictures(shown, _augmentation(config), salt=salt(config), boundary=boundary)

    def repeats(self, dataset: SegmentationDataset, pictures: SegmentedPictures) -> npt.NDArray[np.float64]:
        """As often each, but at least half of what is shown has labels."""
        labelled = self.labelled(pictures)
        share = float(np.mean(labelled))
        shown = np.ones(len(labelled)) if share >= HALF else np.where(labelled, HALF / share, (1 - HALF) / (1 - share))
        return shown * len(dataset.images("train")) / len(labelled)

    def labelled(self, pictures: SegmentedPictures) -> npt.NDArray[np.bool_]:
        """Those of the share whose labels are used."""
        return np.array([not isinstance(image.masks, Unlabelled) for image in pictures.images])

    def targets(self, batch: PixelBatch) -> PixelTargets:
        """The labels, as distillation takes them."""
        return batch.targets

    def judge(
        self, config: SegmentationConfig, dataset: SegmentationDataset, student: nn.Module, rank: int, processes: int
    ) -> Callable[[nn.Module], Mapping[str, float]]:
        """Mask AP, mIoU and Dice of a model on the validation split, or on the training images where there is none."""
        truth, images = dataset.coco(dataset.watched), dataset.annotated(dataset.watched)
        how: dict[str, Any] = {"imgsz": config.train.imgsz, "mode": config.segment.pictures, "batch": config.train.batch}
        settings = config.segment.instances or InstanceSettings.model_validate({})

        def judge(model: nn.Module) -> dict[str, float]:
            share_statistics(model, processes)
            tally = tally_images(model, images[rank::processes], truth, dataset.names, settings=settings, **how)
            first, *others = gather(tally, processes)
            metrics = sum(others, start=first).metrics(truth, dataset.names)
            return {f"metrics/{name}": metrics[name] for name in ("AP", "AP50", "mIoU", "Dice")}

        return judge

    def save(self, config: SegmentationConfig, model: nn.Module, path: Path) -> None:
        """Write a model's tensors, with what it was built as and how it was shown pictures."""
        save_model(model, path, pictures=config.segment.pictures)


def _augmentation(config: SegmentationConfig) -> PixelAugmentation:
    return PixelAugmentation(config.augment or (), config.train.imgsz, config.segment.pictures)
