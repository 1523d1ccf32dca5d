from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from detkd.errors import DataError
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.torchvision import predict_coco


class WhiteBox(nn.Module):
    """Finds the bounding box of what is white, of class 2, and one of a class that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sizes: list[torch.Size] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert not self.training
        results = []
        for image in images:
            self.sizes.append(image.shape)
            rows, columns = (image.min(0).values > 0.9).nonzero().unbind(1)
            box = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()
            results.append(
                {
                    "boxes": torch.stack((box, box)),
                    "scores": torch.tensor([0.9, 0.8]),
                    "labels": torch.tensor([2, 3]),
                }
            )
        return results


def test_boxes_come_back_in_the_pictures_own_pixels(tmp_path: Path) -> None:
    truth = {"images": [], "annotations": [], "categories": [{"id": 5, "name": "ring"}, {"id": 9, "name": "disc"}]}
    paths = []
    for index, (width, height) in enumerate(((64, 64), (200, 100), (50, 300), (33, 17))):
        picture = Image.new("RGB", (width, height))
        box = (width // 4, height // 2, width // 4 + width // 2, height)
        picture.paste((255, 255, 255), box)
        paths.append(tmp_path / f"{index}.png")
        picture.save(paths[-1])
        truth["images"].append({"id": index + 10, "file_name": f"{index}.png", "width": width, "height": height})
        x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
        annotation = {"id": index + 1, "image_id": index + 10, "category_id": 5, "bbox": [x, y, w, h], "area": w * h}
        truth["annotations"].append({**annotation, "iscrowd": 0})
    model = WhiteBox().train()
    model.frozen = nn.BatchNorm2d(1).eval()
    found = predict_coco(model, paths, truth, class_names=("disc", "ring"), imgsz=96, batch=3)
    assert model.training
    assert not model.frozen.training
    assert predict_coco(model, paths, truth, class_names=("disc", "ring"), imgsz=96, batch=1, workers=1) == found
    assert set(model.sizes) == {torch.Size((3, 96, 96))}
    assert len(found) == 4
    for detection, annotation in zip(found, truth["annotations"], strict=True):
        assert (detection["image_id"], detection["category_id"]) == (annotation["image_id"], 5)
        height = truth["images"][detection["image_id"] - 10]["height"]
        assert detection["bbox"] == pytest.approx(annotation["bbox"], abs=1.5 * max(1, height / 96))
        x, y, w, h = detection["bbox"]
        assert y + h <= height
    assert evaluate_coco(truth, found)["AP50"] == pytest.approx(1)


class WhiteMask(WhiteBox):
    """Gives the white pixels as a mask, too."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        masks = [(image.min(0).values > 0.9).float()[None].repeat(2, 1, 1, 1) for image in images]
        return [{**result, "masks": mask} for result, mask in zip(super().forward(images), masks, strict=True)]


def test_masks_come_back_in_the_pictures_own_pixels(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 120))
    picture.paste((255, 255, 255), (40, 60, 160, 120))
    picture.save(tmp_path / "a.png")
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 120}],
        "annotations": [],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}],
    }
    (found,) = predict_coco(WhiteMask(), [tmp_path / "a.png"], truth, class_names=("disc", "ring"), imgsz=100)
    mask = coco_mask.decode(found["segmentation"])
    assert mask.shape == (120, 200)
    wanted = np.zeros((120, 200), bool)
    wanted[60:, 40:160] = True
    assert (mask.astype(bool) ^ wanted).sum() < 0.03 * wanted.sum()


def test_unknown_classes_and_images_are_refused(tmp_path: Path) -> None:
    truth = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "disc"}]}
    with pytest.raises(DataError, match=r"classes among .*'disc'.* but got \['ring'\]"):
        predict_coco(WhiteBox(), [], truth, class_names=("ring",), imgsz=64)
    with pytest.raises(DataError, match=r"Expected b\.png among the images"):
        predict_coco(WhiteBox(), [tmp_path / "b.png"], truth, class_names=("disc",), imgsz=64)
