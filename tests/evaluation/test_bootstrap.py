"""Intervals by drawing pictures anew."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkd.evaluation.bootstrap import average_precision, bias_corrected, found_of_classes
from detkd.evaluation.classification import accuracy_interval
from detkd.evaluation.coco import evaluate_coco


def scene(pictures: int, *, alike: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pictures of some objects of two classes, and detections of which some are right, some shifted, some doubled."""
    draw = np.random.default_rng(3)
    truth: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(1, pictures + 1)],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}, {"id": 3, "name": "nowhere"}],
        "annotations": [],
    }
    found = []
    for image in range(1, pictures + 1):
        if alike:
            draw = np.random.default_rng(3)
        for _ in range(4):
            x, y, side = (float(value) for value in draw.uniform(0, 100, 3))
            label, number = int(draw.integers(1, 3)), len(truth["annotations"]) + 1
            box = [x, y, side + 10, side + 10]
            area = box[2] * box[3]
            crowd = 1 if number == 2 else 0
            one = {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
            truth["annotations"].append(one)
            for _ in range(2):
                moved = [x + float(draw.normal(0, 6)), y, side + 10, side + 10]
                score = round(float(draw.uniform()), 6)
                found.append({"image_id": image, "category_id": label, "bbox": moved, "score": score})
    return truth, found


def evaluated(truth: dict[str, Any], found: list[dict[str, Any]]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def test_every_picture_once_gives_cocos_own_precision() -> None:
    evaluation = evaluated(*scene(12))
    recalls = evaluation.params.recThrs
    tables = [average_precision(found, np.ones(12, int), recalls) for found in found_of_classes(evaluation)]
    theirs = evaluation.eval["precision"][:, :, :, 0, -1].mean(1)  # [T, C]
    assert tables[2] is None
    for index in (0, 1):
        assert tables[index] == pytest.approx(theirs[:, index], abs=1e-12)


def test_a_picture_drawn_twice_counts_as_two_pictures() -> None:
    truth, found = scene(6)
    counts = np.array([2, 0, 1, 1, 2, 0])
    images = [image for image, count in zip(truth["images"], counts, strict=True) for _ in range(count)]
    copies: dict[str, Any] = {**truth, "images": [], "annotations": []}
    doubled = []
    for new, image in enumerate(images, start=1):
        copies["images"].append({**image, "id": new})
        for one in truth["annotations"]:
            if one["image_id"] == image["id"]:
                copies["annotations"].append({**one, "image_id": new, "id": len(copies["annotations"]) + 1})
        doubled += [{**one, "image_id": new} for one in found if one["image_id"] == image["id"]]
    own = evaluated(truth, found)
    got = [average_precision(of_class, counts, own.params.recThrs) for of_class in found_of_classes(own)]
    wanted = evaluated(copies, doubled).eval["precision"][:, :, :, 0, -1].mean(1)
    for index in (0, 1):
        assert got[index] == pytest.approx(wanted[:, index], abs=1e-12)


def test_intervals_hold_the_metric_and_shrink_to_it_on_equal_pictures() -> None:
    metrics = evaluate_coco(*scene(20), resamples=100)
    assert metrics.intervals is not None
    for name in ("AP", "AP50", "AP75"):
        low, high = metrics.intervals[name]
        assert low < metrics[name] < high
    truth, found = scene(8, alike=True)
    truth["annotations"][1]["iscrowd"] = 0
    low, high = (evaluate_coco(truth, found, resamples=20).intervals or {})["AP"]
    assert low == pytest.approx(high)


def test_an_estimate_below_what_is_drawn_lowers_its_interval() -> None:
    drawn = np.arange(1, 1001) / 1000
    assert bias_corrected(0.5005, drawn) == pytest.approx((0.026, 0.976), abs=1e-3)  # the median: 2.5 % and 97.5 %
    # A quarter lies below: z = -.6745, so the ends are the quantiles of 2 z -+ 1.96, of -3.309 and of .611.
    assert bias_corrected(0.2505, drawn) == pytest.approx((0.0015, 0.7296), abs=1e-3)
    assert bias_corrected(0.3, np.full(20, 0.3)) == pytest.approx((0.3, 0.3))
    assert np.isnan(bias_corrected(float("nan"), drawn)).all()


def test_intervals_are_the_same_every_time_and_only_there_when_asked_for() -> None:
    scenes = scene(6)
    assert evaluate_coco(*scenes, resamples=10).intervals == evaluate_coco(*scenes, resamples=10).intervals
    assert "intervals" not in evaluate_coco(*scenes).as_dict()


def test_the_area_below_the_curves_is_ap() -> None:
    metrics = evaluate_coco(*scene(12))
    assert np.mean(metrics.curves.by_overlap["0.5:0.95"]) == pytest.approx(metrics["AP"])
    assert np.mean(metrics.curves.by_overlap["0.5"]) == pytest.approx(metrics["AP50"])
    assert np.mean(metrics.curves.by_overlap["0.75"]) == pytest.approx(metrics["AP75"])
    assert list(metrics.curves.by_class) == ["disc", "ring"]
    assert len(metrics.curves.by_class["ring"]) == 101


def test_the_interval_of_a_share_is_wilsons() -> None:
    # p = 1/2, n = 4, z = 1.959964: centre 1/2, half z sqrt(1/16 + z²/64) / (1 + z²/4).
    assert accuracy_interval(2, 4) == pytest.approx((0.150036, 0.849964), abs=1e-5)
    low, high = accuracy_interval(10, 10)
    assert low < 1
    assert high == pytest.approx(1)
