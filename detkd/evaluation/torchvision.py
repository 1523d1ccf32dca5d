"""COCO detections from a detector that follows torchvision's calling convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from detkd.data.augment import Augmentation
from detkd.data.loading import single_threaded
from detkd.data.masks import encode_mask
from detkd.data.pictures import read_picture
from detkd.evaluation.lookup import category_ids, image_ids
from detkd.modes import evaluating

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def predict_coco(
    model: nn.Module,
    images: Sequence[Path],
    ground_truth: dict[str, Any],
    *,
    class_names: Sequence[str],
    imgsz: int,
    batch: int = 8,
    workers: int = 0,
) -> list[dict[str, Any]]:
    """Run a detector over images and return what it finds as COCO results.

    What the model leaves out by its own thresholds, such as ``box_score_thresh``, is not among them.

    Args:
        model: Called with a list of RGB pictures in [0, 1], [3, imgsz, imgsz] each, it returns for each of them a dict of
            ``boxes`` (x1, y1, x2, y2), ``scores``, ``labels`` that count the classes from 1, and of a Mask R-CNN ``masks``.
            The mode of each of its modules is restored.
        images: Image files; each is found in the ground truth by its name.
        ground_truth: COCO ground truth that gives image and category ids. Classes are matched by name.
        class_names: The model's classes, in the order of their labels.
        imgsz: Side of the network's input in pixels; the picture is scaled to it and padded.
        batch: Pictures at a time.
        workers: Processes that decode pictures; 0 decodes them here.

    Returns:
        Dicts of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in the picture's pixels), ``score``, and where
        the model gives masks ``segmentation``.

    Raises:
        DataError: If an image or a class of the model is missing from the ground truth.
    """
    labels, ids = category_ids(ground_truth, class_names), iter(image_ids(ground_truth, images))
    device = next(model.parameters()).device
    loader = DataLoader(
        _Letterboxed(images, imgsz),
        batch_size=batch,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=single_threaded,
        generator=torch.Generator(),  # or the loader would draw from the caller's
    )
    detections: list[dict[str, Any]] = []
    # Inference mode would leave tensors in the model's caches that cannot be trained with.
    with evaluating(model), torch.no_grad():
        for samples in loader:
            results = model([sample.pixels.to(device) for sample in samples])
            for sample, result in zip(samples, results, strict=True):
                detections += _as_coco(result, sample.frame, next(ids), labels)
    return detections


class _Sample(NamedTuple):
    """The network's input [3, S, S] of a picture file, and the picture's width and height: in its own pixels, and in it."""

    pixels: Tensor
    frame: Tensor


class _Letterboxed(Dataset[_Sample]):
    def __init__(self, images: Sequence[Path], imgsz: int) -> None:
        self._images, self._letterbox = images, Augmentation([], imgsz)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> _Sample:
        pixels = read_picture(self._images[index])
        height, width, _ = pixels.shape
        result = self._letterbox(pixels, np.array([[0.0, 0.0, width, height]]))
        picture = torch.from_numpy(np.ascontiguousarray(result.pixels.transpose(2, 0, 1))).float() / 255
        return _Sample(picture, torch.tensor([[width, height], result.boxes[0, 2:].tolist()]))


def _as_coco(result: dict[str, Tensor], frame: Tensor, image: int, labels: Sequence[int]) -> list[dict[str, Any]]:
    """One picture's detections in its own pixels; a label beyond the classes is none of them."""
    own, scaled = frame
    corners = result["boxes"].detach().cpu().double().view(-1, 2, 2) * (own / scaled)
    corners = torch.minimum(corners.clamp(min=0), own.double())
    sides = corners[:, 1] - corners[:, 0]
    found = [
        {"image_id": image, "category_id": labels[label - 1], "bbox": box, "score": score}
        if 1 <= label <= len(labels)
        else None
        for box, score, label in zip(
            torch.cat((corners[:, 0], sides), 1).tolist(),
            result["scores"].tolist(),
            result["labels"].tolist(),
            strict=True,
        )
    ]
    for detection, mask in zip(found, result.get("masks", ()), strict="masks" in result):
        if detection is not None:
            detection["segmentation"] = _encode(mask[0], frame)
    return [detection for detection in found if detection is not None]


def _encode(mask: Tensor, frame: Tensor) -> dict[str, Any]:
    """Run lengths, in the picture's own pixels, of where a mask's probability [S, S] is at least a half."""
    (width, height), (right, bottom) = (tuple(map(round, size)) for size in frame.tolist())
    inside = mask[None, None, :bottom, :right].float()
    full = F.interpolate(inside, (height, width), mode="bilinear")[0, 0] >= 0.5
    return encode_mask(full.cpu().numpy())
