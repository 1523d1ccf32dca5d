"""A tiny detector of torchvision's own parts, and a distiller with a real loss that knows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from detkd.config import parse_config
from detkd.distiller import Distillation
from detkd.engines.lightning.detection import DetectionTraining
from detkd.engines.lightning.training import LightningEngine
from detkd.hooks import Capture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from detkd.config import DetectionConfig
    from detkd.types import Targets

SIZE = 64
ENGINE = LightningEngine(DetectionTraining())
QUICK = {"lr": 0.003, "warmup_epochs": 0, "schedule": "constant"}


def faster_rcnn(channels: int = 8, *, seed: int = 0, **more: Any) -> FasterRCNN:
    """A Faster R-CNN of some ten thousand parameters for two classes, on one level of stride 8."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs in (3, channels, channels):
        layers += [nn.Conv2d(inputs, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    backbone: Any = nn.Sequential(*layers)
    backbone.out_channels = channels
    kind = MaskRCNN if more else FasterRCNN
    return kind(
        backbone,
        min_size=SIZE,  # pictures of this size are not resized
        max_size=SIZE,
        rpn_anchor_generator=AnchorGenerator(((16, 24),), ((1.0,),)),
        rpn_pre_nms_top_n_train=64,
        rpn_post_nms_top_n_train=32,
        rpn_batch_size_per_image=32,  # fewer than there are, so that they are drawn
        box_batch_size_per_image=16,
        box_roi_pool=MultiScaleRoIAlign(["0"], 4, 1),
        box_head=TwoMLPHead(channels * 16, 32),
        box_predictor=FastRCNNPredictor(32, 3),
        **more,
    )


def mask_rcnn(channels: int = 8) -> MaskRCNN:
    """The same with masks."""
    return faster_rcnn(
        channels,
        mask_roi_pool=MultiScaleRoIAlign(["0"], 8, 1),
        mask_head=MaskRCNNHeads(channels, (16,), 1),
        mask_predictor=MaskRCNNPredictor(16, 16, 3),
    )


class FeatureDistiller(nn.Module):
    """The interface of :class:`detkd.distiller.Distiller` around one loss: features through a 1x1 aligner."""

    def __init__(self, student: Any, teacher: Any, weight: float = 1.0, stop: float = math.inf) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.aligner = nn.Conv2d(student.backbone.out_channels, teacher.backbone.out_channels, 1)
        teacher.requires_grad_(False).eval()
        self._held = (student, teacher)  # in a tuple: no submodules
        self._weight, self._stop = weight, stop
        self._capture = Capture(student, ["backbone"])
        self.epoch, self.epochs = 0.0, 1.0
        self.seen: list[float] = []
        self.views: list[Any] = []
        self.pictures: list[Tensor] = []

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        return self._held[1:]

    def attach(self) -> None:
        self._capture.attach()

    def detach(self) -> None:
        self._capture.detach()

    def held_back(self) -> list[str]:
        return ["features: held at 1.00 times."]

    def forward(
        self, images: Tensor, targets: Targets, task_loss: Tensor, views: Sequence[Any] | None = None
    ) -> Distillation:
        assert targets.boxes.shape[:2] == targets.classes.shape
        self.seen.append(self.epoch)
        if views is not None:
            self.views += views
            self.pictures += images
        if self.epoch >= self._stop:
            zeros = {"features": torch.zeros(())}
            return Distillation(torch.zeros(()), zeros, zeros)
        with torch.no_grad():
            wanted = self._held[1].backbone(images)
        loss = (self.aligner(self._capture.output("backbone")).float() - wanted.float()).square().mean()
        weight = torch.tensor(self._weight)
        return Distillation(weight * loss, {"features": loss.detach()}, {"features": weight})


def configure(data: Path, /, **changes: object) -> DetectionConfig:
    """A run of two epochs; `changes` replace whole sections."""
    tree = {
        "name": "run",
        "data": str(data),
        "student": {"model": "fasterrcnn_tiny"},
        "distill": None,
        "train": {"epochs": 2, "imgsz": SIZE, "batch": 2},
        "augment": [{"HorizontalFlip": {"p": 0.5}}],
        "optim": QUICK,
        "evaluate": ["val"],
    }
    return parse_config({**tree, **changes})


class MeanDetector(nn.Module):
    """A detector whose losses are means over pictures of equal weight, without batch statistics or anything random.

    Its gradient on a batch is the mean of those on the batch's halves, as only in theory for others.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.backbone: Any = nn.Sequential(nn.Conv2d(3, channels, 3, stride=4, padding=1), nn.SiLU())
        self.backbone.out_channels = channels
        self.head = nn.Linear(channels, 5)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        found = self.head(self.backbone(torch.stack(images)).mean((2, 3)))
        if targets is not None:
            wanted = torch.stack([target["boxes"].sum(0) / 64 for target in targets])
            return {"loss_box": (found[:, :4] - wanted).square().mean(), "loss_score": found[:, 4].square().mean()}
        where = torch.tensor([[4.0, 4.0, 28.0, 28.0]])
        return [{"boxes": where, "scores": row[4:].sigmoid(), "labels": torch.ones(1, dtype=torch.long)} for row in found]
