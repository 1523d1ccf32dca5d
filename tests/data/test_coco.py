from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detkd.data.coco import _run_lengths
from detkd.data.detection import DetectionDataset, check_dataset
from detkd.errors import DataError

POLYGON = [[2, 1, 6, 1, 6, 4, 2, 4]]


def truth() -> dict[str, Any]:
    """Two pictures; ids and order of the classes are other ones than in data.yaml."""
    return {
        "images": [
            {"id": 7, "file_name": "sub/b.png", "width": 20, "height": 10},
            {"id": 3, "file_name": "a.png", "width": 20, "height": 10},
        ],
        "categories": [{"id": 90, "name": "ring"}, {"id": 1, "name": "disc"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [2, 1, 4, 3], "segmentation": POLYGON, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [15, 5, 10, 3]},
            {
                "id": 3,
                "image_id": 3,
                "category_id": 1,
                "bbox": [0, 0, 20, 10],
                "iscrowd": 1,
                "segmentation": {"size": [10, 20], "counts": [0, 200]},
            },
            {"id": 4, "image_id": 3, "category_id": 1, "bbox": [5, 5, 0, 3]},
        ],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "unlisted.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / "pictures" / name)
    (tmp_path / "train.json").write_text(json.dumps(truth()))
    (tmp_path / "data.yaml").write_text(
        "path: .\nformat: coco\ntrain: pictures\nannotations: {train: train.json}\nnames: [disc, ring]\n"
    )
    return tmp_path / "data.yaml"


def test_reads_boxes_masks_and_crowds(data: Path) -> None:
    dataset = DetectionDataset.load(data)
    check_dataset(dataset, ("train",))
    first, second = dataset.annotated("train")
    assert first.path == data.parent / "pictures" / "sub" / "b.png"
    assert first.boxes.shape == (0, 4)
    assert second.boxes.tolist() == [[2, 1, 6, 4], [15, 5, 20, 8], [0, 0, 20, 10]]  # clipped, and without the empty one
    assert second.classes.tolist() == [1, 0, 0]
    assert second.crowd.tolist() == [False, False, True]
    assert second.segments[0] == POLYGON
    assert second.segments[1] is None
    assert dataset.images("train") == [first.path, second.path]
    assert dataset.coco("train") == truth()


@pytest.mark.parametrize("seed", range(3))
def test_packed_run_lengths_are_read_as_pycocotools_packs_them(data: Path, seed: int) -> None:
    drawn = np.random.default_rng(seed).random((10, 20)) < (0.02, 0.5, 0.98)[seed]
    packed = coco_mask.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"].decode()
    tree = truth()
    tree["annotations"][0]["segmentation"] = {"size": [10, 20], "counts": packed}
    (data.parent / "train.json").write_text(json.dumps(tree))
    check_dataset(DetectionDataset.load(data), ("train",))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], drawn.T.ravel(), [not drawn.T.ravel()[-1]]))))
    assert _run_lengths(packed) == np.diff(edges, prepend=0).tolist()


def test_other_formats_are_none_of_ultralytics(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`format` is coco"):
        DetectionDataset.load(data).write_yaml(tmp_path / "out.yaml")


def change(tree: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split("/")
    node: Any = tree
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("images/0/file_name", "../outside.png", "path below the split's folder"),
        ("images/0/file_name", "/etc/passwd", "path below the split's folder"),
        ("images/0/file_name", "a\\..\\..\\b.png", "path below the split's folder"),
        ("images/0/file_name", "C:\\b.png", "path below the split's folder"),
        ("images/0/file_name", 3, "path below the split's folder"),
        ("images/0/width", 0, "`width` and `height`"),
        ("images/0/width", 21, "expected 21x10 as annotated, but it has 20x10"),
        ("images/0/id", 3, "is there twice"),
        ("images/0/id", [3], "expected an `id`"),
        ("annotations/0/image_id", 99, r"annotations\[0\]: expected `image_id`"),
        ("annotations/0/image_id", {}, r"annotations\[0\]: expected `image_id`"),
        ("annotations/0/category_id", 2, "expected `category_id`"),
        ("annotations/0/bbox", [1, 2, -3, 4], "expected `bbox`"),
        ("annotations/0/bbox", [1, 2, 10**400, 4], "expected `bbox`"),
        ("annotations/0/bbox", [1, 2, float("nan"), 4], "expected `bbox`"),
        ("annotations/0/segmentation", [[1, 2, 3]], "expected `segmentation`"),
        ("annotations/2/segmentation", {"size": [10, 20], "counts": [0, 10**6]}, "expected `segmentation`"),
        ("annotations/2/segmentation", {"size": [10**6, 10**6], "counts": "0"}, "expected `segmentation`"),
        ("annotations/2/segmentation", {"size": [10, 20], "counts": [True] * 200}, "expected `segmentation`"),
        ("annotations/2/segmentation", {"size": [10, 20], "counts": ""}, "expected `segmentation`"),
        ("annotations/2/segmentation", {"size": [10, 20], "counts": "000"}, "expected `segmentation`"),
        ("annotations/2/segmentation", {"size": [10, 20], "counts": "X7 "}, "expected `segmentation`"),
        ("annotations/0/segmentation", [[0, 0, 9e8, 0, 9e8, 9e8]], "expected `segmentation`"),  # pycocotools would crash
        ("categories/0/name", "cat", "expected the classes of data.yaml"),
        ("annotations", 3, "expected COCO ground truth"),
    ],
)
def test_a_fault_is_one_line(data: Path, place: str, value: Any, reason: str) -> None:
    tree = truth()
    change(tree, place, value)
    (data.parent / "train.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=reason) as error:
        check_dataset(DetectionDataset.load(data), ("train",))
    assert "\n" not in str(error.value)


def test_faults_are_counted_and_hostile_json_is_refused(data: Path) -> None:
    tree = truth()
    tree["annotations"][0]["bbox"] = None
    tree["annotations"][1]["category_id"] = None
    (data.parent / "train.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="1 more faults"):
        check_dataset(DetectionDataset.load(data), ("train",))
    (data.parent / "train.json").write_text("[" * 10**5)
    with pytest.raises(DataError, match="expected COCO ground truth"):
        DetectionDataset.load(data).coco("train")


def test_a_mask_without_a_box_has_its_own(data: Path) -> None:
    tree = truth()
    tree["annotations"][0]["bbox"] = [0, 0, 0, 0]
    (data.parent / "train.json").write_text(json.dumps(tree))
    _, second = DetectionDataset.load(data).annotated("train")
    assert second.boxes[0].tolist() == [2, 1, 6, 4]
    found = DetectionDataset.load(data).coco("train")["annotations"]
    assert found[0]["bbox"] == [2, 1, 4, 3]  # as in training
    assert found[3]["bbox"] == [5, 5, 0, 3]
