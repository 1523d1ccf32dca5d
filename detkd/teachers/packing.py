"""A detector's outputs as the few float16 tensors that a cache keeps, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from detkd.types import DensePredictions, DetectorOutputs
from detkd.vocabulary import confidence

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from detkd.adapters.base import DenseKind

LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Kept:
    """What of a teacher's outputs is kept; a detector's class logits and boxes always are.

    Attributes:
        anchors: Most anchors of an image and head: those with the highest class probability.
        bins: Whether the distributions of box sides are.
        coefficients: Whether the factors of the mask prototypes are.
        prototypes: Whether the mask prototypes are.
        levels: Levels whose feature maps are.
        drawn: Whether what it finds is, drawn on the pixels of a segmenter that learns from it.
        pixels: Whether what a segmenter says at every pixel is; it has none of the above but levels.
        embedding: Whether the embedding of a classifier is; it has none of the above but levels.
        attentions: Layers of a classifier of sentences whose attention is.
    """

    anchors: int
    bins: bool = False
    coefficients: bool = False
    prototypes: bool = False
    levels: tuple[int, ...] = ()
    drawn: bool = False
    pixels: bool = False
    embedding: bool = False
    attentions: tuple[int, ...] = ()

    @classmethod
    def needed(cls, names: Collection[str], levels: Sequence[int], anchors: int) -> Kept:
        """What losses need that ask for tensors by these names of :mod:`detkd.vocabulary`.

        Args:
            names: Parameters of the losses' ``forward``.
            levels: The teacher's levels whose feature maps the losses need.
            anchors: See above.
        """
        return cls(
            anchors,
            bins="teacher_bins" in names,
            coefficients="teacher_coefficients" in names,
            prototypes="teacher_prototypes" in names,
            levels=tuple(levels),
        )


@dataclass(frozen=True)
class Frame:
    """What is the same for every picture of a size.

    Attributes:
        features: Channels, height and width of each level.
        points: Centres of the anchors in pixels, [A, 2].
        kind: Whether the heads say classes of their own (a sigmoid's or a softmax's), or objectness alone.
    """

    features: tuple[torch.Size, ...]
    points: Tensor
    kind: DenseKind

    @classmethod
    def of(cls, outputs: DetectorOutputs) -> Frame:
        """The frame of any outputs for pictures of that size."""
        kind: DenseKind = "objectness" if outputs.objectness is not None else "sigmoid"
        if outputs.dense[0].softmax:
            kind = "softmax"
        return cls(tuple(feature.shape[1:] for feature in outputs.features), outputs.anchor_points, kind)

    def to(self, device: torch.device) -> Frame:
        """The frame on a device."""
        return self if self.points.device == device else replace(self, points=self.points.to(device))

    def pack(self, outputs: DetectorOutputs, kept: Kept, *, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors to keep; see :func:`pack`."""
        return pack(outputs, kept, like=like)

    def unpack(self, tensors: Mapping[str, Tensor]) -> DetectorOutputs:
        """The outputs out of them; see :func:`unpack`."""
        return unpack(tensors, self)


def pack(outputs: DetectorOutputs, kept: Kept, *, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors to keep, [B, ...] each, float16 but for the indices of anchors.

    Boxes are kept as offsets from their anchor, where float16 is exact to a thousandth of the box, not to half a pixel.

    Args:
        outputs: Of one batch.
        kept: What to keep.
        like: Tensors of the same pictures packed before, whose anchors to keep instead of the best.
    """
    tensors: dict[str, Tensor] = {}
    for number, head in enumerate(outputs.dense):
        prefix = f"heads.{number}."
        chosen = _best_anchors(head, kept.anchors) if like is None else like.get(f"{prefix}anchors")
        packed = _pack_head(head, outputs.anchor_points, kept, chosen)
        tensors |= {prefix + name: tensor for name, tensor in packed.items()}
    tensors |= {f"features.{level}": outputs.features[level] for level in kept.levels}
    if kept.prototypes and outputs.prototypes is not None:
        tensors["prototypes"] = outputs.prototypes
    if kept.drawn:
        assert outputs.drawn is not None, "whoever keeps it draws it"
        tensors["drawn"] = outputs.drawn
    return {name: half(tensor) for name, tensor in tensors.items()}


def unpack(tensors: Mapping[str, Tensor], frame: Frame) -> DetectorOutputs:
    """Outputs in float32 from what :func:`pack` kept.

    The logits of an anchor that was not kept are those of the mean probability of all such; :attr:`DensePredictions.known`
    says which ones they are. A feature map that was not kept has its shape, and no values.
    """
    values = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    heads: dict[str, dict[str, Tensor]] = {}
    for name, tensor in values.items():
        if name.startswith("heads."):
            _, number, part = name.split(".")
            heads.setdefault(number, {})[part] = tensor
    batch = len(next(iter(values.values())))
    dense = tuple(_unpack_head(heads[number], frame) for number in sorted(heads))
    return DetectorOutputs(
        features=unpack_maps("features", values, frame.features, batch),
        heads=() if frame.kind == "objectness" else dense,
        anchor_points=frame.points,
        prototypes=values.get("prototypes"),
        objectness=dense[0] if frame.kind == "objectness" else None,
        drawn=values.get("drawn"),
    )


def unpack_maps(kind: str, values: Mapping[str, Tensor], shapes: Sequence[torch.Size], batch: int) -> tuple[Tensor, ...]:
    """The tensors of a batch of one kind, such as the feature maps of all levels; those not kept have no values."""
    return tuple(
        values.get(f"{kind}.{place}", torch.empty(batch, *shape, device="meta")) for place, shape in enumerate(shapes)
    )


def _best_anchors(head: DensePredictions, count: int) -> Tensor | None:
    """Indices of the anchors with the highest class probability, ascending, [B, count]; None for all of them."""
    if count >= head.logits.shape[-1]:
        return None
    return confidence(head).topk(count, 1).indices.sort(1).values.int()


def _pack_head(head: DensePredictions, points: Tensor, kept: Kept, chosen: Tensor | None) -> dict[str, Tensor]:
    # Anchors last, here and in the cache.
    tensors = {"logits": head.logits, "boxes": (head.boxes - points.repeat(1, 2)).transpose(1, 2)}
    if kept.bins and head.bins is not None:
        tensors["bins"] = head.bins
    if kept.coefficients and head.coefficients is not None:
        tensors["coefficients"] = head.coefficients
    if chosen is None:
        return tensors
    packed = {name: tensor.gather(-1, _index(chosen, tensor)) for name, tensor in tensors.items()}
    return {"anchors": chosen, "rest": _rest(head, chosen), **packed}


def _unpack_head(tensors: dict[str, Tensor], frame: Frame) -> DensePredictions:
    points = frame.points
    chosen, rest = tensors.pop("anchors", None), tensors.pop("rest", None)
    whole = tensors
    if chosen is not None and rest is not None:
        whole = {
            name: (rest[..., None] if name == "logits" else tensor.new_zeros(()))
            .expand(*tensor.shape[:-1], len(points))
            .scatter(-1, _index(chosen, tensor), tensor)
            for name, tensor in tensors.items()
        }
        blank = torch.zeros(len(chosen), len(points), dtype=torch.bool, device=chosen.device)
        whole["known"] = blank.scatter(-1, chosen.long(), True)
    whole["boxes"] = whole["boxes"].transpose(1, 2) + points.repeat(1, 2)
    parts: dict[str, Any] = dict(whole)
    return DensePredictions(**parts, softmax=frame.kind == "softmax")


def _index(chosen: Tensor, tensor: Tensor) -> Tensor:
    """The chosen anchors [B, K] as an index along the last axis of a tensor [B, ..., A]."""
    return chosen.long().view(len(chosen), *[1] * (tensor.ndim - 2), -1).expand(*tensor.shape[:-1], -1)


def _rest(head: DensePredictions, chosen: Tensor) -> Tensor:
    """Logit of the mean probability of each class over the anchors that were not chosen, [B, C]."""
    logits = head.logits.float()
    scores = logits.softmax(1) if head.softmax else logits.sigmoid()
    dropped = scores.scatter(-1, _index(chosen, scores), 0.0)
    mean = dropped.sum(-1) / (scores.shape[-1] - chosen.shape[1])
    return mean.clamp(min=1e-7).log() if head.softmax else mean.logit(eps=1e-7)


def half(tensor: Tensor) -> Tensor:
    """A tensor in float16, values beyond it at its limits; one of integers as it is."""
    return tensor.clamp(-LARGEST, LARGEST).half() if tensor.is_floating_point() else tensor
