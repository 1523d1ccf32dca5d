"""COCO detections from an ultralytics model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from detkd.data.masks import encode_mask
from detkd.evaluation.lookup import category_ids, image_ids

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def predict_coco(
    model: Any,
    images: Sequence[Path],
    ground_truth: dict[str, Any],
    *,
    imgsz: int,
    confidence: float = 0.001,
    iou: float = 0.7,
    max_detections: int = 300,
) -> list[dict[str, Any]]:
    """Run a YOLO over images and return what it finds as COCO results.

    Args:
        model: An ``ultralytics.YOLO``.
        images: Image files; each is found in the ground truth by its name.
        ground_truth: COCO ground truth that gives image and category ids. Classes are matched by name.
        imgsz: Side of the network's input in pixels; the picture is scaled to it and padded.
        confidence: Lowest score kept; low, because AP integrates over all scores.
        iou: Threshold of non-maximum suppression.
        max_detections: Most boxes kept on an image.

    Returns:
        Dicts of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in the picture's pixels), ``score``, and of a
        segmenter ``segmentation``, the mask as run lengths.

    Raises:
        DataError: If an image or a class of the model is missing from the ground truth.
    """
    names: dict[int, str] = dict(model.names)
    categories = dict(zip(names, category_ids(ground_truth, list(names.values())), strict=True))
    detections = []
    for path, image in zip(images, image_ids(ground_truth, images), strict=True):
        # One at a time: a batch of unlike pictures would be padded to a common shape, and scores would depend on it.
        with torch.inference_mode():
            (result,) = model.predict(
                str(path),
                imgsz=imgsz,
                conf=confidence,
                iou=iou,
                max_det=max_detections,
                retina_masks=True,  # of the picture's own size
                verbose=False,
                save=False,
            )
        boxes = result.boxes.cpu()
        found = [
            {
                "image_id": image,
                "category_id": categories[int(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(
                boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True
            )
        ]
        if result.masks is not None:
            for detection, mask in zip(found, result.masks.data.cpu().numpy(), strict=True):
                detection["segmentation"] = encode_mask(mask)
        detections += found
    return detections
