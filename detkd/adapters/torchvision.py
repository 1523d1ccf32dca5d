"""Adapter for torchvision's two-stage detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from detkd.adapters.torchvision_base import TorchvisionAdapter, centres, decode
from detkd.errors import AdapterError
from detkd.modes import evaluating
from detkd.types import DensePredictions, DetectorOutputs, MaskPredictions, RegionPredictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torchvision.models.detection import FasterRCNN

    from detkd.adapters.base import DenseKind

POOL = "roi_heads.box_roi_pool"
PREDICTOR = "roi_heads.box_predictor"
MASK_POOL = "roi_heads.mask_roi_pool"
MASK_PREDICTOR = "roi_heads.mask_predictor"


class FasterRCNNAdapter(TorchvisionAdapter):
    """Watches a Faster R-CNN, or a Mask R-CNN: its pyramid, its region proposal network and its box head.

    The levels are those that enter the region proposal network, with the one that torchvision calls "pool". The second
    stage appears in the outputs where it has run, as in every call of the model itself.

    Args:
        model: A ``torchvision.models.detection.FasterRCNN`` (or a subclass), with any backbone.
        class_names: Names of its classes without the background; None reads ``model.class_names``.

    Raises:
        AdapterError: If the classes have no names, or not as many as the model has classes.
    """

    dense: DenseKind = "objectness"

    def __init__(self, model: FasterRCNN, class_names: Sequence[str] | None = None) -> None:
        # A predictor of one's own may hold its layers under other names.
        scores = getattr(model.roi_heads.box_predictor, "cls_score", None)
        super().__init__(
            model,
            class_names,
            head="rpn.head",
            generator=model.rpn.anchor_generator,
            columns=getattr(scores, "out_features", None),
            watched=(POOL, PREDICTOR, *((MASK_POOL, MASK_PREDICTOR) if model.roi_heads.has_mask() else ())),
        )
        self.draws_masks = bool(model.roi_heads.has_mask())

    def take_outputs(self) -> DetectorOutputs:
        """Return what both stages saw and said in the latest forward pass, and let go of it."""
        features, anchors = self._levels_and_anchors()
        logits, deltas = self._capture.output(self._head_path)
        regions = None
        if self._capture.has_run(PREDICTOR):
            proposals = self._capture.inputs(POOL)[1]
            regions = self._regions(proposals, *self._capture.output(PREDICTOR))
        masks = None
        if self.draws_masks and self._capture.has_run(MASK_PREDICTOR):
            exact = tuple(boxes.float() for boxes in self._capture.inputs(MASK_POOL)[1])
            masks = MaskPredictions(exact, self._capture.output(MASK_PREDICTOR)[:, 1:])
        self._capture.clear()
        return DetectorOutputs(
            features=features,
            heads=(),
            anchor_points=centres(anchors),
            objectness=DensePredictions(
                logits=_by_anchor(logits, 1).transpose(1, 2),
                boxes=decode(self.model.rpn.box_coder, _by_anchor(deltas, 4), anchors),
            ),
            regions=regions,
            masks=masks,
        )

    @torch.no_grad()
    def propose(self, outputs: DetectorOutputs, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """The regions of a test; see :class:`detkd.adapters.base.TwoStageAdapter`."""
        objectness = outputs.objectness
        if objectness is None:
            raise AdapterError("Expected outputs of a two-stage detector, but they have no objectness.")
        counts = [
            len(cell) * feature.shape[2] * feature.shape[3]
            for cell, feature in zip(self.anchor_shapes, outputs.features, strict=True)
        ]
        rpn = self.model.rpn
        with evaluating(rpn):
            logits = objectness.logits[:, 0].to(objectness.boxes.dtype)
            proposals, _ = rpn.filter_proposals(objectness.boxes, logits, [size] * len(logits), counts)
        return tuple(proposals)

    def classify(self, features: Sequence[Tensor], proposals: Sequence[Tensor], size: tuple[int, int]) -> RegionPredictions:
        """Run the box head on any regions; see :class:`detkd.adapters.base.TwoStageAdapter`."""
        heads = self.model.roi_heads
        with self._capture.paused():
            logits, deltas = heads.box_predictor(heads.box_head(self._pool(heads.box_roi_pool, features, proposals, size)))
        return self._regions(proposals, logits, deltas)

    def mask(self, features: Sequence[Tensor], proposals: Sequence[Tensor], size: tuple[int, int]) -> MaskPredictions:
        """Run the mask head on any regions; see :class:`detkd.adapters.base.TwoStageAdapter`."""
        heads = self.model.roi_heads
        with self._capture.paused():
            logits = heads.mask_predictor(heads.mask_head(self._pool(heads.mask_roi_pool, features, proposals, size)))
        return MaskPredictions(tuple(proposals), logits[:, 1:])

    def _pool(self, pool: Any, features: Sequence[Tensor], proposals: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        # The pooling wants regions and features of one type; autocast casts both for it, as here.
        dtype = next(self.model.roi_heads.box_predictor.parameters()).dtype
        levels = {name: level.to(dtype) for name, level in zip(self.level_names, features, strict=True)}
        pooled: Tensor = pool(levels, [boxes.to(dtype) for boxes in proposals], [size] * len(proposals))
        return pooled

    def _regions(self, proposals: Sequence[Tensor], logits: Tensor, deltas: Tensor) -> RegionPredictions:
        dtype = torch.promote_types(deltas.dtype, torch.float32)
        exact = tuple(boxes.to(dtype) for boxes in proposals)
        decoded: Tensor = self.model.roi_heads.box_coder.decode_single(deltas.to(dtype), torch.cat(exact))
        # Four numbers a class; those of the background are never trained.
        return RegionPredictions(proposals=exact, logits=logits, boxes=decoded.unflatten(1, (-1, 4))[:, 1:])


def _by_anchor(levels: Sequence[Tensor], values: int) -> Any:
    """What a head says of all anchors, [B, A, values], from its maps [B, anchors of a position * values, H, W]."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, values) for level in levels], 1)
