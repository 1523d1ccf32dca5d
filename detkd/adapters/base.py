"""What a detector family exposes so that it can be distilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from detkd.types import (
        ClassifierOutputs,
        DensePredictions,
        DetectorOutputs,
        MaskPredictions,
        RegionPredictions,
        SegmenterOutputs,
    )

# What a detector says at its anchors: independent classes, classes that exclude each other, or whether there is an object.
DenseKind = Literal["sigmoid", "softmax", "objectness"]
POINT = ((0.0, 0.0),)  # shapes of the anchors of a level whose positions have a point each, and no box


class DetectorAdapter(Protocol):
    """A view of one detector, teacher or student, in terms that all families share.

    An adapter watches the model it was given by hooks and never changes it.

    Attributes:
        model: The detector, as whoever trains it calls it.
        class_names: Names of the classes, in the order of the logits (without a background).
        feature_channels: Channels of each feature level that enters the head, finest first.
        strides: Pixels of the network's input for one step on each level.
        dense: What the dense head says.
        anchor_shapes: Width and height in pixels of the anchors at each position, for each level; ``POINT`` where a
            position has no box. Every level has as many.
        stage_channels: Channels behind the first layer of the head's box and class branches, for each level; empty where
            the head cannot be entered there, which ``cross_kd`` alone needs.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    feature_channels: tuple[int, ...]
    strides: tuple[int, ...]
    dense: DenseKind
    anchor_shapes: tuple[tuple[tuple[float, float], ...], ...]
    stage_channels: tuple[tuple[int, int], ...]

    def attach(self) -> None:
        """Install the hooks; call it on the model object that will run, after any copy was made."""

    def detach(self) -> None:
        """Remove the hooks and let go of captured tensors."""

    def run(self, images: Tensor) -> None:
        """Run a forward pass that the hooks see, as far as the dense head.

        Args:
            images: RGB in [0, 1], [B, 3, H, W]; they reach the network at this size.
        """

    def take_outputs(self) -> DetectorOutputs:
        """Return what the latest forward pass computed, and let go of it.

        Raises:
            AdapterError: If no forward pass ran since the last call.
        """

    def finish(self, stages: Mapping[int, tuple[Tensor, Tensor]]) -> DensePredictions:
        """Run the rest of the one-to-many head on feature maps that another model computed for its first layer.

        Args:
            stages: For each level to run, by its index, the maps of the box branch and of the class branch.

        Returns:
            Predictions at the anchors of those levels, finest first.
        """


@runtime_checkable
class TwoStageAdapter(DetectorAdapter, Protocol):
    """A view of a detector that proposes regions first and classifies them then.

    Attributes:
        draws_masks: Whether it also has a mask head.
    """

    draws_masks: bool

    def propose(self, outputs: DetectorOutputs, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """The regions that the detector itself would classify in a test, best first, [R_i, 4] for each image.

        Args:
            outputs: The detector's own.
            size: Height and width of its input in pixels.
        """

    def classify(self, features: Sequence[Tensor], proposals: Sequence[Tensor], size: tuple[int, int]) -> RegionPredictions:
        """Run the second stage on any regions.

        Args:
            features: The detector's own feature maps, all of them.
            proposals: The regions of each image, (x1, y1, x2, y2) in pixels of its input, [R_i, 4] each.
            size: Height and width of its input in pixels.
        """

    def mask(self, features: Sequence[Tensor], proposals: Sequence[Tensor], size: tuple[int, int]) -> MaskPredictions:
        """Run the mask head on any regions, where there is one; see :meth:`classify`."""


@runtime_checkable
class SegmenterAdapter(Protocol):
    """A view of one segmenter, teacher or student; see :class:`DetectorAdapter`.

    Attributes:
        model: The segmenter, as whoever trains it calls it.
        class_names: Names of the classes, without the background.
        feature_channels: Channels of each level of features, finest first: of the decoder where it has that stride, else of
            the encoder.
        strides: Pixels of the network's input for one step on each level.
        softmax: Whether its classes exclude each other; a segmenter of one class has a sigmoid instead.
        boundary: Whether it also says where objects end.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    feature_channels: tuple[int, ...]
    strides: tuple[int, ...]
    softmax: bool
    boundary: bool

    def attach(self) -> None:
        """Install the hooks; call it on the model object that will run, after any copy was made."""

    def detach(self) -> None:
        """Remove the hooks and let go of captured tensors."""

    def run(self, images: Tensor) -> None:
        """Run a forward pass that the hooks see.

        Args:
            images: RGB in [0, 1], [B, 3, H, W]; they reach the network at this size.
        """

    def take_outputs(self) -> SegmenterOutputs:
        """Return what the latest forward pass computed, and let go of it.

        Raises:
            AdapterError: If no forward pass ran since the last call.
        """


@runtime_checkable
class ClassifierAdapter(Protocol):
    """A view of one classifier of pictures or sentences, teacher or student; see :class:`DetectorAdapter`.

    Attributes:
        model: The classifier, as whoever trains it calls it.
        class_names: Names of the classes, in the order of the logits.
        feature_channels: Channels of each level of features.
        strides: Pixels of the network's input for one step on each level; 1 for sentences.
        embedding_size: Numbers that the last linear layer sees.
        attention_layers: How many layers say their attention.
        tokenizer: What makes tokens of sentences, as JSON; None for a classifier of pictures.
        example: An input that the model takes, a batch of one.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    feature_channels: tuple[int, ...]
    strides: tuple[int, ...]
    embedding_size: int
    attention_layers: int
    tokenizer: str | None
    example: Tensor

    def attach(self) -> None:
        """Install the hooks; call it on the model object that will run, after any copy was made."""

    def detach(self) -> None:
        """Remove the hooks and let go of captured tensors."""

    def run(self, images: Tensor) -> None:
        """Run a forward pass that the hooks see.

        Args:
            images: RGB in [0, 1], [B, 3, H, W]; or token ids, [B, 1, 1, L].
        """

    def take_outputs(self) -> ClassifierOutputs:
        """Return what the latest forward pass computed, and let go of it.

        Raises:
            AdapterError: If no forward pass ran since the last call.
        """


Adapter = DetectorAdapter | SegmenterAdapter | ClassifierAdapter
