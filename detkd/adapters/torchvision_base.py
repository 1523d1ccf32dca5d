"""What the adapters of torchvision's detectors share: normalisation, a backbone of levels, anchors, one head for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from detkd.adapters.hooked import Hooked
from detkd.errors import AdapterError
from detkd.hooks import Capture
from detkd.modes import evaluating
from detkd.types import DensePredictions, DetectorOutputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detkd.adapters.base import DenseKind

PROBE_SIDE = 128  # pixels of the image that strides are read off; doubled where a level shrinks to one position
LARGEST_PROBE = 1024


class TorchvisionAdapter(Hooked):
    """Base of the adapters: what goes into the backbone and comes out of it, and out of the head behind it.

    Args:
        model: A detector of torchvision.
        class_names: Names of its classes without the background; None reads ``model.class_names``.
        head: Path of the module that takes all levels at once.
        generator: Its anchor generator.
        columns: Number of classes that the model was built for, the background counted; None where it doesn't say.
        fixed_size: Height and width that the model is made for, None where its levels' strides depend on no size.
        watched: Paths of further modules to capture.

    Raises:
        AdapterError: If the classes have no names, or not as many as the model has classes.
    """

    dense: DenseKind

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str] | None,
        *,
        head: str,
        generator: nn.Module,
        columns: int | None,
        fixed_size: tuple[int, int] | None = None,
        watched: Sequence[str] = (),
    ) -> None:
        backbone: Any = model.backbone
        self.model: Any = model
        self.class_names = _class_names(model, class_names, columns)
        levels, size = _probe_levels(backbone, fixed_size)
        self.level_names = tuple(levels)
        self.feature_channels = tuple(level.shape[1] for level in levels.values())
        self.strides = tuple(round(size[1] / level.shape[3]) for level in levels.values())
        self.anchor_shapes = _anchor_shapes(generator, tuple(levels.values()), size)
        self.stage_channels: tuple[tuple[int, int], ...] = ()
        self._generator = generator
        self._head_path = head
        self._capture = Capture(model, ["backbone", head, *watched])

    def run(self, images: Tensor) -> None:
        """Run backbone and head on images [B, 3, H, W] in [0, 1]: normalised, not resized, and nothing behind the head."""
        self._capture.clear()
        levels = level_maps(self.model.backbone(self.model.transform.normalize(images)))
        self.model.get_submodule(self._head_path)(list(levels.values()))

    def finish(self, stages: Mapping[int, tuple[Tensor, Tensor]]) -> DensePredictions:
        """Refuse: all levels share one head, whose inner layers know none of them.

        Raises:
            AdapterError: Always.
        """
        raise AdapterError(
            f"Expected a head that can be entered behind its first layer (`cross_kd` needs that), but the one of "
            f"{type(self.model).__name__} cannot. Distil without `cross_kd`."
        )

    def _levels_and_anchors(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """Feature maps of the latest pass, and all anchors (x1, y1, x2, y2) in pixels of its input, [A, 4]."""
        features = tuple(level_maps(self._capture.output("backbone")).values())
        height, width = self._capture.inputs("backbone")[0].shape[-2:]
        return features, anchor_boxes(self._generator, features, (height, width))


class OneStageAdapter(TorchvisionAdapter):
    """Base of the adapters of detectors whose head says the class at every anchor.

    Such a head gives ``cls_logits`` [B, A, 1 + C] and ``bbox_regression`` [B, A, 4].

    Args:
        model: A detector of torchvision.
        class_names: Names of its classes without the background; None reads ``model.class_names``.
        columns: Number of classes that the model was built for, the background counted.
        fixed_size: Height and width that the model is made for, None where its levels' strides depend on no size.
    """

    def __init__(
        self,
        model: Any,
        class_names: Sequence[str] | None,
        columns: int,
        fixed_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(
            model, class_names, head="head", generator=model.anchor_generator, columns=columns, fixed_size=fixed_size
        )

    def take_outputs(self) -> DetectorOutputs:
        """Return what the head saw and said in the latest forward pass, and let go of it."""
        features, anchors = self._levels_and_anchors()
        raw = self._capture.output(self._head_path)
        self._capture.clear()
        logits = raw["cls_logits"].transpose(1, 2)
        softmax = self.dense == "softmax"
        return DetectorOutputs(
            features=features,
            heads=(
                DensePredictions(
                    # Labels start at 1, so that column 0 of a head without a background never meets a positive.
                    logits=logits if softmax else logits[:, 1:],
                    boxes=self._decode(raw["bbox_regression"], anchors),
                    softmax=softmax,
                ),
            ),
            anchor_points=centres(anchors),
        )

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return decode(self.model.box_coder, deltas, anchors)


def level_maps(output: Any) -> Mapping[str, Tensor]:
    """A backbone's levels by name, finest first; one without a pyramid gives a bare tensor."""
    return {"0": output} if isinstance(output, Tensor) else output


def anchor_boxes(generator: nn.Module, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """All anchors of feature maps of an input of a height and width, (x1, y1, x2, y2) in pixels, [A, 4].

    They are in float32 at least: the model's own are in the type of its features, and bfloat16 counts no pixels above 256.
    """
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    # The generator reads shapes, type and device only.
    levels = [feature.new_zeros((), dtype=dtype).expand(feature.shape) for feature in features]
    image = levels[0][:1, :1, :1, :1].expand(1, 3, *size)
    anchors: Tensor = generator(ImageList(image, [size]), levels)[0]
    return anchors


def centres(anchors: Tensor) -> Tensor:
    """Centres (x, y) of boxes [A, 4], [A, 2]."""
    return (anchors[:, :2] + anchors[:, 2:]) / 2


def decode(coder: Any, deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes of all images at all anchors, [B, A, 4], from what a head says of each anchor [B, A, 4]."""
    codes = deltas.to(anchors.dtype).flatten(0, 1)
    boxes: Tensor = coder.decode_single(codes, anchors.repeat(len(deltas), 1))
    return boxes.view(deltas.shape)


def _anchor_shapes(
    generator: Any, features: Sequence[Tensor], size: tuple[int, int]
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Widths and heights in pixels of the anchors at a position of each level."""
    counts = generator.num_anchors_per_location()
    sizes = [count * feature.shape[2] * feature.shape[3] for count, feature in zip(counts, features, strict=True)]
    levels = anchor_boxes(generator, features, size).split(sizes)
    sides = [(level[:count, 2:] - level[:count, :2]).tolist() for level, count in zip(levels, counts, strict=True)]
    return tuple(tuple((width, height) for width, height in level) for level in sides)


def _class_names(model: nn.Module, given: Sequence[str] | None, columns: int | None) -> tuple[str, ...]:
    names = getattr(model, "class_names", None) if given is None else given
    kind = type(model).__name__
    if names is None:
        raise AdapterError(
            f"Expected the names of the classes of {kind}, but got none. Give `class_names`, or set `model.class_names`."
        )
    if columns is not None and columns != 1 + len(names):
        raise AdapterError(
            f"Expected names for the {columns - 1} classes behind the background of {kind}, but got {len(names)}: "
            f"{list(names)}."
        )
    return tuple(names)


def _probe_levels(backbone: nn.Module, size: tuple[int, int] | None) -> tuple[Mapping[str, Tensor], tuple[int, int]]:
    """Levels of a black image, and its height and width: one large enough to tell all strides if none is given."""
    if size is not None:
        return _run_unchanged(backbone, size), size
    side = PROBE_SIDE
    while side <= LARGEST_PROBE:
        levels = _run_unchanged(backbone, (side, side))
        if all(min(level.shape[2:]) > 1 for level in levels.values()):
            return levels, (side, side)
        side *= 2
    raise AdapterError(
        f"Expected levels that grow with the image, but one has a single position even at {LARGEST_PROBE} pixels. Leave "
        "out the level that covers the whole image."
    )


@torch.no_grad()
def _run_unchanged(backbone: nn.Module, size: tuple[int, int]) -> Mapping[str, Tensor]:
    """Run a backbone on a black image in evaluation mode, and leave every module in the mode that it was in."""
    with evaluating(backbone):
        return level_maps(backbone(next(backbone.parameters()).new_zeros(1, 3, *size)))
