"""What a detector family exposes so that it can be distilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from detkd.types import DensePredictions, DetectorOutputs


class DetectorAdapter(Protocol):
    """A view of one detector, teacher or student, in terms that all families share.

    An adapter watches the model it was given by hooks and never changes it.

    Attributes:
        model: The detector; calling it on images [B, 3, H, W] runs a forward pass that the hooks see.
        class_names: Names of the classes, in the order of the logits.
        feature_channels: Channels of each feature level that enters the head, finest first.
        strides: Pixels of the network's input for one step on each level.
        stage_channels: Channels behind the first layer of the head's box and class branches, for each level.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    feature_channels: tuple[int, ...]
    strides: tuple[int, ...]
    stage_channels: tuple[tuple[int, int], ...]

    def attach(self) -> None:
        """Install the hooks; call it on the model object that will run, after any copy was made."""

    def detach(self) -> None:
        """Remove the hooks and let go of captured tensors."""

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
