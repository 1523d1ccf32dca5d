"""A segmenter of two levels, its adapter, and losses on pixels, small enough for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkd.hooks import Capture
from detkd.types import PixelPredictions, PixelTargets, SegmenterOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = ("disc", "square")


class TinySegmenter(nn.Module):
    """Convolutions to strides 4 and 8, and logits at the size of the input."""

    def __init__(
        self, class_names: Sequence[str] = CLASSES, *, boundary: bool = False, width: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.class_names, self.boundary, self.width = tuple(class_names), boundary, width
        self.channels = 1 if len(class_names) == 1 else 1 + len(class_names)
        self.fine = nn.Conv2d(3, width, 4, 4)
        self.coarse = nn.Conv2d(width, 2 * width, 2, 2)
        self.head = nn.Conv2d(3 * width, self.channels + boundary, 1)
        nn.init.normal_(self.head.weight, std=2.0)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, K, H, W]."""
        fine = self.fine(images)
        coarse = self.coarse(fine.relu())
        both = torch.cat((fine, F.interpolate(coarse, fine.shape[2:])), 1)
        return F.interpolate(self.head(both.relu()), images.shape[2:], mode="bilinear")


class TinyAdapter:
    """Its adapter."""

    strides = (4, 8)

    def __init__(self, model: TinySegmenter) -> None:
        self.model: nn.Module = model
        self.class_names, self.boundary, self.softmax = model.class_names, model.boundary, model.channels > 1
        self.feature_channels = (model.width, 2 * model.width)
        self._channels = model.channels
        self._capture = Capture(model, ["", "fine", "coarse"])

    def attach(self) -> None:
        """Install the hooks."""
        self._capture.attach()

    def detach(self) -> None:
        """Remove the hooks."""
        self._capture.detach()

    def run(self, images: Tensor) -> None:
        """Run the model."""
        self.model(images)

    def take_outputs(self) -> SegmenterOutputs:
        """Features, and heads of classes and of boundaries."""
        features = tuple(self._capture.output(path) for path in ("fine", "coarse"))
        logits = self._capture.output("").split([self._channels, *([1] if self.boundary else [])], 1)
        self._capture.clear()
        return SegmenterOutputs(features, tuple(PixelPredictions(x, x.shape[1] > 1) for x in logits))


class PixelProbe(nn.Module):
    """The weighted mean of squared differences of probabilities, as a loss on pixels may be."""

    default_weight: ClassVar[float] = 1.0

    def forward(self, student_pixels: Tensor, teacher_pixels: Tensor, pixel_weights: Tensor) -> Tensor:
        """A scalar."""
        one, other = ((x.softmax(1) if x.shape[1] > 1 else x.sigmoid()) for x in (student_pixels, teacher_pixels.detach()))
        errors = (one - other).square().mean(1)
        return (errors * pixel_weights).sum() / (len(errors) * errors[0].numel())


class LabelProbe(nn.Module):
    """What it was given, kept; the loss is a sum of the student's logits."""

    default_weight: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, student_pixels: Tensor, pixel_weights: Tensor, pixel_labels: Tensor) -> Tensor:
        """A scalar."""
        self.seen.append((student_pixels.detach(), pixel_weights, pixel_labels))
        return student_pixels.float().sum()


def labels(batch: int, size: int, *, boundary: bool = False) -> PixelTargets:
    """Labels of classes 0 to 2 and some ignored pixels."""
    draw = torch.Generator().manual_seed(4)
    classes = torch.randint(-1, 1 + len(CLASSES), (batch, size, size), generator=draw)
    return PixelTargets(classes, torch.rand(batch, size, size, generator=draw) < 0.5 if boundary else None)
