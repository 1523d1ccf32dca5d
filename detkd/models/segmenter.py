"""A network that says something of every pixel, with its classes, its normalisation and what it learns from labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detkd.errors import ArgumentError
from detkd.models.segmenter_losses import boundary_loss, class_loss, dice_loss
from detkd.types import PixelPredictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detkd.models.unet_architecture import UNetArchitecture
    from detkd.types import PixelTargets

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which published encoders were trained with


class Segmenter(nn.Module):
    """A segmentation network of C classes.

    Its logits are those of one sigmoid if C is 1, else of a softmax with the background first; and behind them, where it
    says where objects end, of one more sigmoid.

    Args:
        network: Takes normalised images [B, 3, H, W], returns logits [B, K, H, W].
        class_names: Names of the classes, without the background.
        boundary: Whether its last channel says where objects end.
        stride: The sides of its input must be multiples of this, in pixels.
        architecture: What it was built as; None if nothing can build it again.
        class_weights: Weight of the background and of each class in the cross-entropy; None for 1.
    """

    mean: Tensor
    deviation: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        class_names: Sequence[str],
        *,
        boundary: bool,
        stride: int,
        architecture: UNetArchitecture | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.class_names = tuple(class_names)
        self.boundary = boundary
        self.stride = stride
        self.architecture = architecture
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.register_buffer("class_weights", None, persistent=False)
        if class_weights is not None:
            self.weigh_classes(class_weights)

    def weigh_classes(self, class_weights: Sequence[float]) -> None:
        """Weigh the pixels of each class in the cross-entropy from now on.

        Args:
            class_weights: Weight of the background and of each class.

        Raises:
            ArgumentError: If they are more or fewer.
        """
        if len(class_weights) != 1 + len(self.class_names):
            raise ArgumentError(
                f"Expected argument `class_weights` to hold one for the background and for each of "
                f"{list(self.class_names)}, but got {len(class_weights)}."
            )
        self.class_weights = torch.tensor(class_weights, dtype=torch.float32)

    @property
    def softmax(self) -> bool:
        """Whether its classes exclude each other."""
        return len(self.class_names) > 1

    def forward(self, images: Tensor | Sequence[Tensor], targets: PixelTargets | None = None) -> Tensor | dict[str, Tensor]:
        """Say something of every pixel, or learn from labels.

        Args:
            images: RGB in [0, 1], [B, 3, H, W] or as many [3, H, W] of one size.
            targets: The labels; None to predict.

        Returns:
            Logits [B, K, H, W]; with labels the losses instead, float32 scalars: ``classes``, ``dice``, and ``boundary``
            where it learns that. Pixels without a label count in none of them.

        Raises:
            ArgumentError: If sizes do not fit, or boundaries are to be learnt and not labelled.
        """
        batch = images if isinstance(images, Tensor) else torch.stack(list(images))
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not tracing and not torch.compiler.is_compiling():  # where sizes are symbols
            self._check_size(batch)
        logits: Tensor = self.network((batch - self.mean) / self.deviation)
        return logits if targets is None else self._losses(logits, targets)

    def split(self, logits: Tensor) -> tuple[PixelPredictions, ...]:
        """What logits [B, K, H, W] say of the classes, and behind it of the boundaries where the model knows them."""
        sizes = [logits.shape[1] - self.boundary, *([1] if self.boundary else [])]
        parts = logits.split(sizes, 1)  # whose gradients meet in one tensor, as slices' would not
        softmax = (self.softmax, False)
        return tuple(PixelPredictions(logits=part, softmax=kind) for part, kind in zip(parts, softmax, strict=False))

    def _losses(self, logits: Tensor, targets: PixelTargets) -> dict[str, Tensor]:
        classes, boundary = targets.classes, targets.boundary
        size = (logits.shape[0], *logits.shape[2:])
        if tuple(classes.shape) != size:
            raise ArgumentError(
                f"Expected argument `targets` to label each pixel, [B, H, W] = {size}, but got {tuple(classes.shape)}."
            )
        said = self.split(logits)
        losses = {
            "classes": class_loss(said[0].logits, classes, self.class_weights),
            "dice": dice_loss(said[0].logits, classes),
        }
        if not self.boundary:
            return losses
        if boundary is None:
            raise ArgumentError(
                "Expected argument `targets` to say where objects end, but its `boundary` is None. Label them, or build "
                "the model with `boundary: false`."
            )
        return losses | {"boundary": boundary_loss(said[1].logits[:, 0], boundary, classes >= 0)}

    def _check_size(self, batch: Tensor) -> None:
        if batch.ndim != 4 or batch.shape[1] != 3:
            raise ArgumentError(f"Expected argument `images` to be [B, 3, H, W], but got {tuple(batch.shape)}.")
        height, width = batch.shape[2:]
        if height % self.stride or width % self.stride:
            larger = tuple(-(-side // self.stride) * self.stride for side in (height, width))
            raise ArgumentError(
                f"Expected argument `images` to have sides that are multiples of {self.stride}, but got {height} x {width} "
                f"pixels. Pad them, as to {larger[0]} x {larger[1]}, or cut them into tiles."
            )
