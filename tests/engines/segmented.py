"""Tiny data sets with masks, and the configuration of a U-Net that is trained on one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from PIL import Image

from detkd.config import parse_config
from detkd.data.masks import encode_mask
from detkd.engines import run as running
from tests.engines.runs import same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytest
    from torch import Tensor, nn

    from detkd.config import RunConfig
    from detkd.distiller import Distiller

TINY_UNET = {"model": "unet", "width": 0.25}
QUICK = {"lr": 0.01, "warmup_epochs": 0, "schedule": "constant"}
SHAPES = ("disc", "square")
# Height and width of each picture, and its discs: row, column and radius. Two of them touch, and one picture is empty.
Disc = tuple[int, int, int]
PICTURES: tuple[tuple[tuple[int, int], tuple[Disc, ...]], ...] = (
    ((48, 64), ((16, 16, 9), (16, 34, 8), (36, 50, 8))),
    ((64, 48), ((20, 20, 10), (46, 32, 9))),
    ((80, 56), ((24, 28, 12), (60, 30, 10))),
    ((40, 72), ((20, 20, 9), (20, 54, 9))),
    ((64, 64), ((30, 30, 14),)),
    ((56, 56), ()),
)


def write_discs(root: Path, splits: Sequence[str] = ("train", "val"), side: int | None = None) -> Path:
    """Pictures of unlike sizes, or squares of one side, with an instance map each."""
    for split in splits:
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index, (own, discs) in enumerate(PICTURES):
            size = own if side is None else (side, side)
            mask = np.zeros(size, np.uint8)
            for number, disc in enumerate(discs, start=1):
                mask[_disc(size, *disc)] = number
            _save(root / "images" / split / f"{index}.png", (mask > 0) * 160)
            Image.fromarray(mask).save(root / "masks" / split / f"{index}.png")
    tree = {"path": ".", **{split: f"images/{split}" for split in splits}, "names": ["disc"]}
    (root / "data.yaml").write_text(yaml.safe_dump(tree))
    return root / "data.yaml"


def write_shapes(root: Path) -> Path:
    """Pictures of a disc and a square each, and a corner that is ignored, with COCO's annotations."""
    names = dict(enumerate(SHAPES, start=1))
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(1, 5):
            size = (64, 64 + 8 * index)
            square, corner = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
            square[34:54, 36:56] = corner[:16, -16:] = True
            disc = _disc(size, 20, 14 + 2 * index, 10)
            _save(root / "images" / split / f"{index}.png", disc * 160 + square * 90 + corner * 120)
            images.append({"id": index, "file_name": f"{index}.png", "height": size[0], "width": size[1]})
            annotations += [_annotation(index, *row) for row in ((1, disc, 0), (2, square, 0), (1, corner, 1))]
        rows = [{"id": number, **row} for number, row in enumerate(annotations, start=1)]
        categories = [{"id": number, "name": name} for number, name in names.items()]
        tree = {"images": images, "annotations": rows, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(tree))
    tree = {"path": ".", "format": "coco", "train": "images/train", "val": "images/val", "names": list(SHAPES)}
    (root / "data.yaml").write_text(yaml.safe_dump(tree))
    return root / "data.yaml"


def configure_unet(data: Path, /, **changes: Any) -> RunConfig:
    """A run of two epochs of three steps; `changes` replace whole sections."""
    tree = {
        "name": "run",
        "data": str(data),
        "student": TINY_UNET,
        "distill": None,
        "train": {"epochs": 2, "imgsz": 64, "batch": 2},
        "augment": [{"HorizontalFlip": {"p": 0.5}}],
        "optim": QUICK,
        "evaluate": ["val"],
    }
    return parse_config({**tree, **changes})


class Watched:
    """The teachers and the distiller of a run, and what they were before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[tuple[Distiller, list[nn.Module]]] = []
        self.before: list[dict[str, Tensor]] = []
        build = running.build_distiller

        def watch(student: Any, teachers: Any, *rest: Any) -> Distiller:
            distiller = build(student, teachers, *rest)
            self.built.append((distiller, list(teachers)))
            self.before += [_copy(teacher.state_dict()) for teacher in teachers]
            self.aligners = _copy(dict(distiller.named_parameters()))
            return distiller

        monkeypatch.setattr(running, "build_distiller", watch)

    def check(self) -> None:
        """The aligners have learnt, and the teachers have not."""
        ((distiller, teachers),) = self.built
        assert self.aligners
        for name, value in distiller.named_parameters():
            assert value.grad is not None, name
            assert not torch.equal(value, self.aligners[name]), name
        for teacher, before in zip(teachers, self.before, strict=True):
            assert same(teacher.state_dict(), before)
            assert all(parameter.grad is None for parameter in teacher.parameters())


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _disc(size: tuple[int, int], row: int, column: int, radius: int) -> Any:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def _save(path: Path, brightness: Any) -> None:
    """A grey picture with some noise."""
    noise = np.random.default_rng(int(path.stem)).integers(20, 50, brightness.shape)
    Image.fromarray((brightness + noise).astype(np.uint8)).convert("RGB").save(path)


def _annotation(image: int, category: int, mask: Any, crowd: int) -> dict[str, Any]:
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [int(side) for side in box],
        "area": int(mask.sum()),
        "iscrowd": crowd,
        "segmentation": encode_mask(mask),
    }
