"""Classifiers of small pictures: torchvision's parts behind a stem that keeps their size, as CIFAR's 32 pixels need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf
from torchvision.models.resnet import BasicBlock, conv1x1

from detkd.adapters.classifier import Taps
from detkd.models.classifier import Classifier

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.models.classifier import ClassifierArchitecture

MEAN, SPREAD = 0.5, 0.25  # of natural pictures, about; norms behind the first layer take up the rest


class PictureClassifier(Classifier):
    """A body of feature maps, their pooling, and layers to the classes.

    Args:
        architecture: What it is built as.
        body: From pictures to the last feature map; its modules are named in `levels`.
        levels: Paths in the body of the modules whose outputs are the levels of features.
        pool: From the last feature map to numbers [B, D].
        head: From there to the logits; the last linear layer, or layers that end with it.
    """

    def __init__(
        self,
        architecture: ClassifierArchitecture,
        body: nn.Sequential,
        levels: tuple[str, ...],
        pool: nn.Module,
        head: nn.Module,
    ) -> None:
        last = f"head.{len(head) - 1}" if isinstance(head, nn.Sequential) else "head"
        side = architecture.imgsz
        super().__init__(architecture, Taps(tuple(f"body.{level}" for level in levels), last, (3, side, side)))
        self.body, self.pool, self.head = body, pool, head

    def classify(self, inputs: Tensor) -> Tensor:
        """Class logits [B, C] of pictures [B, 3, H, W]."""
        logits: Tensor = self.head(self.pool(self.body((inputs - MEAN) / SPREAD)))
        return logits


def _globally() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def _channels(count: float) -> int:
    """A count of channels as a multiple of 8, at least 8."""
    return max(8, int(count / 8 + 0.5) * 8)


def resnet18(architecture: ClassifierArchitecture) -> Classifier:
    """ResNet-18 for small pictures: a 3×3 stem and no pooling before the first stage (He et al. 2016, arXiv:1512.03385)."""
    planes = [_channels(64 * architecture.width * 2**stage) for stage in range(4)]
    stem = nn.Sequential(
        nn.Conv2d(3, planes[0], 3, padding=1, bias=False), nn.BatchNorm2d(planes[0]), nn.ReLU(inplace=True)
    )
    stages, before = [], planes[0]
    for index, count in enumerate(planes):
        stride = 1 if index == 0 else 2
        shortcut = None
        if stride != 1:
            shortcut = nn.Sequential(conv1x1(before, count, stride), nn.BatchNorm2d(count))
        stages.append(nn.Sequential(BasicBlock(before, count, stride, shortcut), BasicBlock(count, count)))
        before = count
    body = nn.Sequential(stem, *stages)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    head = nn.Linear(planes[-1], len(architecture.class_names))
    return PictureClassifier(architecture, body, ("1", "2", "3", "4"), _globally(), head)


def cnn(architecture: ClassifierArchitecture) -> Classifier:
    """Three times convolution and pooling, and two fully connected layers."""
    planes = [_channels(32 * architecture.width * 2**stage) for stage in range(3)]
    blocks, before = [], 3
    for count in planes:
        convolution = nn.Conv2d(before, count, 3, padding=1, bias=False)
        blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(count), nn.ReLU(inplace=True), nn.MaxPool2d(2)))
        before = count
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(1))
    head = nn.Sequential(
        nn.Linear(4 * before, before), nn.ReLU(inplace=True), nn.Linear(before, len(architecture.class_names))
    )
    return PictureClassifier(architecture, nn.Sequential(*blocks), ("0", "1", "2"), pool, head)


def mobilenet_v3_small(architecture: ClassifierArchitecture) -> Classifier:
    """MobileNet V3 small that halves small pictures three times, not five (Howard et al. 2019, arXiv:1905.02244)."""
    settings: Any
    settings, last = _mobilenet_v3_conf("mobilenet_v3_small", width_mult=architecture.width)
    settings[0].stride = 1
    model = MobileNetV3(settings, last, num_classes=len(architecture.class_names))
    model.features[0][0].stride = (1, 1)
    # Of each stride the last block; behind the last one follows a 1×1 convolution at the same stride.
    ends = [index for index, following in enumerate(settings[1:], 1) if following.stride == 2]
    levels = tuple(str(end) for end in (*ends, len(settings) + 1))
    return PictureClassifier(architecture, model.features, levels, _globally(), model.classifier)
