from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from detkd.errors import DataError
from detkd.evaluation.coco import METRICS, average_precision, evaluate_coco


@pytest.mark.real_data
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_reproduces_published_numbers_in_full_precision(real_data: Path, iou_type: str) -> None:
    folder = real_data / "coco_fixture"
    expected = json.loads((folder / "expected.json").read_text())
    metrics = evaluate_coco(folder / expected["gt"], folder / expected["dt"][iou_type], iou_type)
    got = [metrics[name] for name in METRICS]
    assert expected["order"] == list(METRICS)
    assert got == pytest.approx(expected["pycocotools_full_precision"][iou_type], abs=1e-12)
    read = [json.loads((folder / name).read_text()) for name in (expected["gt"], expected["dt"][iou_type])]
    assert average_precision(*read, iou_type) == metrics["AP"]


def truth() -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}],
    }


def test_perfect_and_empty_detections() -> None:
    perfect = evaluate_coco(truth(), [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9}])
    assert perfect["AP"] == pytest.approx(1.0)
    assert math.isnan(perfect["APs"])  # no small object is labelled
    assert perfect.per_class["disc"] == pytest.approx(1.0)
    assert math.isnan(perfect.per_class["ring"])
    assert evaluate_coco(truth(), [])["AP"] == average_precision(truth(), []) == 0.0
    assert math.isnan(average_precision({**truth(), "annotations": []}, []))


def test_foreign_detections_are_named() -> None:
    with pytest.raises(DataError, match="`image_id`.*7"):
        evaluate_coco(truth(), [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}])
    with pytest.raises(DataError, match="`category_id`.*9"):
        evaluate_coco(truth(), [{"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1], "score": 1.0}])


@pytest.mark.parametrize("ids", [(0, 1), (1, 1), (0, 0), (7, 3)])
def test_ids_of_annotations_may_be_any(ids: tuple[int, int]) -> None:
    """pycocotools takes 0 for no match, and of two annotations of an id keeps one."""
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [40 * place, 10, 30, 30], "area": 900, "iscrowd": 0}
        for place, number in enumerate(ids)
    ]
    found = [{"image_id": 1, "category_id": 1, "bbox": one["bbox"], "score": 0.9} for one in annotations]
    metrics = evaluate_coco({**truth(), "annotations": annotations}, found)
    assert (metrics["AP"], metrics["AR100"]) == (1, 1)
