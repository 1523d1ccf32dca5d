"""Detection, as Lightning trains it: labelled boxes in, COCO metrics out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from detkd.data.augment import Augmentation
from detkd.data.loading import AugmentedPictures, Batch, collate
from detkd.engines.detection import TITLE, WATCHED
from detkd.engines.lightning.loading import salt, workers
from detkd.engines.lightning.sharing import gather, share_statistics
from detkd.engines.lightning.task import PictureTraining
from detkd.errors import ConfigError
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.torchvision import predict_coco
from detkd.models.checkpoints import write_checkpoint
from detkd.models.torchvision import save_model
from detkd.types import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from detkd.config import RunConfig
    from detkd.data.detection import DetectionDataset


STRIDE = 32  # torchvision's GeneralizedRCNNTransform


class DetectionTraining(PictureTraining):
    """The :class:`detkd.engines.lightning.task.TrainingTask` of detectors that follow torchvision's calling convention."""

    watched = WATCHED
    title = TITLE

    def check(self, config: RunConfig) -> None:
        """Refuse what albumentations would refuse, and sizes that a student pads in training and its teacher does not."""
        Augmentation(config.augment or (), config.train.imgsz)
        if config.distill is not None and config.train.imgsz % STRIDE:
            raise ConfigError(
                f"train.imgsz: expected a multiple of {STRIDE} pixels, which torchvision's detectors pad their input to, "
                f"but got {config.train.imgsz}."
            )

    def gather(self, samples: Sequence[Batch]) -> Batch:
        """Make a batch of batches of one picture."""
        return collate(samples)

    def pictures(self, config: RunConfig, dataset: DetectionDataset, student: nn.Module | None) -> AugmentedPictures:
        """The training pictures: those of a cache are the same in all runs."""
        return AugmentedPictures(
            dataset.annotated("train"),
            Augmentation(config.augment or (), config.train.imgsz),
            salt=salt(config),
            masks=student is not None and _takes_masks(student),
        )

    def targets(self, batch: Batch) -> Targets:
        """The labels, as distillation takes them."""
        return padded_targets(batch.targets)

    def judge(
        self, config: RunConfig, dataset: DetectionDataset, student: nn.Module, rank: int, processes: int
    ) -> Callable[[nn.Module], Mapping[str, float]]:
        """COCO metrics of a model on the validation split, or on the training images where there is none."""
        truth, images = dataset.coco(dataset.watched), dataset.images(dataset.watched)
        masks = _takes_masks(student) and all(annotation.get("segmentation") for annotation in truth["annotations"])
        settings = {"imgsz": config.train.imgsz, "batch": config.train.batch, "workers": workers(config)}

        def judge(model: nn.Module) -> dict[str, float]:
            share_statistics(model, processes)
            own = images[rank::processes]
            found = predict_coco(model, own, truth, class_names=dataset.names, **settings)
            found = [detection for share in gather(found, processes) for detection in share]
            boxes = evaluate_coco(truth, found)
            metrics = {"metrics/mAP50(B)": boxes["AP50"], WATCHED: boxes["AP"]}
            return {**metrics, "metrics/mAP50-95(M)": evaluate_coco(truth, found, "segm")["AP"]} if masks else metrics

        return judge

    def save(self, config: RunConfig, model: nn.Module, path: Path) -> None:
        """Write a model's tensors, with what it was built as where it says so."""
        del config
        if hasattr(model, "architecture"):
            save_model(model, path)
            return
        write_checkpoint(model, path)


def padded_targets(targets: Sequence[Mapping[str, Tensor]]) -> Targets:
    """Labels as torchvision takes them, padded to the largest count of a picture."""
    classes = nn.utils.rnn.pad_sequence([target["labels"] - 1 for target in targets], batch_first=True, padding_value=-1)
    return Targets(nn.utils.rnn.pad_sequence([target["boxes"] for target in targets], batch_first=True), classes)


def _takes_masks(student: nn.Module) -> bool:
    """Whether a detector learns masks, as torchvision's own have it."""
    heads: Any = getattr(student, "roi_heads", None)
    return heads is not None and bool(heads.has_mask())
