"""What a distillation step costs, of the smallest U-Nets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tools.calling import call, load

SMALL = ("--imgsz", 32, "--batch", 2, "--rounds", 1, "--threads", 1)
TITLES = {"student alone", "teacher's forward", "detkd", "detkd, teacher in bfloat16", "detkd, teacher from a cache"}


@pytest.mark.parametrize(("teacher", "terms"), [("unet_resnet18", "pixel_kl,pixel_cwd"), ("yolov5n.yaml", "pixel_kl,pkd")])
def test_a_unet_is_timed_with_a_teacher_of_either_kind(teacher: str, terms: str, tmp_path: Path) -> None:
    given = ("--student", "unet", "--width", 0.25, "--teacher", teacher, "--terms", terms)
    assert call("bench_step", *given, *SMALL, "--output", tmp_path) == 0
    report = json.loads((tmp_path / "step-cpu-unet.json").read_text())
    assert set(report["milliseconds"]) == TITLES
    assert min(report["milliseconds"].values()) > 0
    assert set(report["extra_memory"]) == {name for name in terms.split(",") if name.startswith("pixel")}
    assert report["extra_memory"]["pixel_kl"] == pytest.approx(1, abs=0.05), "nothing of the logits' size but the gradient"


def test_boxes_are_painted_as_pixels_with_boundaries() -> None:
    tool = load("bench_step")
    boxes, classes = torch.tensor([[[4.0, 6, 12, 16]]]), torch.tensor([[2]])
    labels = tool.painted(tool.Targets(boxes, classes), 20)
    assert labels.classes[0, 6:16, 4:12].eq(3).all()
    assert labels.classes[0, -1].eq(-1).all()
    assert labels.classes.gt(0).sum() == 80
    assert labels.boundary.sum() == 12 * 14 - 4 * 6
    assert labels.boundary[0, 4, 2]
    assert not labels.boundary[0, 8, 6]
