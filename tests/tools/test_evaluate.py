"""The command line that evaluates: every family of detectors on every format of data, and one line for each fault."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from detkd.adapters.ultralytics import load_yolo
from detkd.data.detection import DetectionDataset
from detkd.evaluation.coco import METRICS, evaluate_coco
from detkd.evaluation.torchvision import predict_coco
from detkd.evaluation.ultralytics import predict_coco as predict_yolo
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model, load_model, save_model
from tests.engines.conftest import NAMES, TINY_RCNN
from tests.tools.calling import call, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

SIDE = 24  # of the objects in pixels
MANY = {"pre_nms": 1000, "post_nms": 1000, "sampled": 16}


def finder(path: Path, names: tuple[str, ...] = NAMES, **spec: Any) -> Path:
    """A checkpoint of a detector that finds boxes of the objects' size all over the picture, all equally well."""
    torch.manual_seed(0)
    model: Any
    model, _ = build_model(ModelConfig(**{**spec, "proposals": MANY}), names, role="student", imgsz=64)
    smallest = float(model.rpn.anchor_generator.cell_anchors[0][1, 2] * 2)
    growth = math.log(SIDE / smallest)
    heads = (model.rpn.head.cls_logits, model.rpn.head.bbox_pred, *model.roi_heads.box_predictor.children())
    with torch.no_grad():
        for parameter in (parameter for head in heads for parameter in head.parameters()):
            parameter.zero_()
        aside = [99.0, 0.0, 0.0, 0.0]  # flat and high anchors go out of the picture
        model.rpn.head.bbox_pred.bias.copy_(torch.tensor([*aside, 0.0, 0.0, growth, growth, *aside]))
        if model.roi_heads.has_mask():  # a whole box for squares, nothing for discs
            logits = model.roi_heads.mask_predictor.mask_fcn_logits
            logits.weight.zero_()
            logits.bias.copy_(torch.tensor([0.0, -9.0, 9.0]))
    save_model(model, path)
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finder(tmp_path_factory.mktemp("student") / "student.safetensors", **TINY_RCNN)


def evaluate(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """What the tool writes."""
    assert call("evaluate", *arguments, "--split", "val", "--json", tmp_path / "out.json") == 0
    content: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return content


def numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in (*METRICS, "per_class")}


def test_a_detector_of_torchvision_is_measured_at_the_size_that_it_was_trained_at(
    data: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(tmp_path, "--weights", student, "--data", data)
    dataset = DetectionDataset.load(data)
    images, truth = dataset.images("val"), dataset.coco("val")
    direct = evaluate_coco(truth, predict_coco(load_model(student), images, truth, class_names=NAMES, imgsz=64))
    assert found["AR100"] > 0.1
    assert numbers(found) == json.loads(json.dumps(direct.as_dict()).replace("NaN", "null"))
    assert found["weights"] == str(student)
    table = capsys.readouterr().out
    assert "AR100" in table
    assert "AP square" in table
    larger = evaluate(tmp_path, "--weights", student, "--data", data, "--imgsz", 128)
    # Anchors and pictures grow together: what is found lies where it did, but for the rounding of anchors.
    assert larger["AR100"] == pytest.approx(found["AR100"], abs=0.1)


def write_coco(data: Path, folder: Path) -> Path:
    """The val split with its annotations as COCO json."""
    shutil.copytree(data.parent / "images", folder / "images")
    (folder / "val.json").write_text(json.dumps(DetectionDataset.load(data).coco("val")))
    tree = {"format": "coco", "val": "images/val", "annotations": {"val": "val.json"}, "names": list(NAMES)}
    (folder / "data.yaml").write_text(yaml.safe_dump(tree))
    return folder / "data.yaml"


def write_voc(data: Path, folder: Path) -> Path:
    """The same as Pascal VOC's XML."""
    shutil.copytree(data.parent / "images", folder / "images")
    (folder / "Annotations").mkdir()
    boxes = {"disc": (4, 4, 28, 28), "square": (36, 30, 60, 54)}
    for index in range(4):
        objects = "".join(
            f"<object><name>{name}</name><bndbox>"
            # Pascal VOC counts pixels from 1, and the last one in.
            f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for name, (x1, y1, x2, y2) in boxes.items()
        )
        size = "<size><width>64</width><height>64</height><depth>3</depth></size>"
        (folder / "Annotations" / f"{index}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    (folder / "data.yaml").write_text(yaml.safe_dump({"format": "voc", "val": "images/val", "names": list(NAMES)}))
    return folder / "data.yaml"


@pytest.mark.parametrize("family", ["torchvision", "yolo"])
def test_the_format_of_the_labels_changes_no_number(
    data: Path, student: Path, checkpoint: Path, tmp_path: Path, family: str
) -> None:
    weights = student if family == "torchvision" else checkpoint
    first = evaluate(tmp_path, "--weights", weights, "--data", data)
    for write in (write_coco, write_voc):
        (tmp_path / write.__name__).mkdir()
        other = evaluate(tmp_path, "--weights", weights, "--data", write(data, tmp_path / write.__name__))
        assert numbers(other) == numbers(first)


def test_a_yolo_is_measured_at_the_size_that_it_was_trained_at(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    yolo = load_yolo(checkpoint)
    with torch.no_grad():
        head = yolo.model.model[-1]  # finds boxes of 32 pixels of its input at every position of stride 8
        for level, (boxes, scores) in enumerate(zip(head.cv2, head.cv3, strict=True)):
            boxes[-1].weight.zero_()
            boxes[-1].bias.view(4, -1).copy_(torch.arange(16.0).sub(2).square().mul(-9).expand(4, 16))
            scores[-1].weight.zero_()
            scores[-1].bias.fill_(0.0 if level == 0 else -20.0)
    args = {"task": "detect", "imgsz": 96}
    torch.save({"model": yolo.model, "train_args": args}, tmp_path / "student.pt")
    found = evaluate(tmp_path, "--weights", tmp_path / "student.pt", "--data", data)
    dataset = DetectionDataset.load(data)
    images, truth = dataset.images("val"), dataset.coco("val")
    direct = [
        evaluate_coco(truth, predict_yolo(load_yolo(tmp_path / "student.pt"), images, truth, imgsz=size))["AR100"]
        for size in (96, 64)
    ]
    assert found["AR100"] == pytest.approx(direct[0])
    again = evaluate(tmp_path, "--weights", tmp_path / "student.pt", "--data", data, "--imgsz", 64)
    assert again["AR100"] == pytest.approx(direct[1]) != direct[0]


def test_masks_of_a_mask_rcnn_are_scored_as_masks(data: Path, tmp_path: Path) -> None:
    outlined = Path(shutil.copytree(data.parent, tmp_path / "data")) / "data.yaml"
    for label in (outlined.parent / "labels" / "val").iterdir():
        label.write_text(
            "0 .0625 .0625 .4375 .0625 .4375 .4375 .0625 .4375\n1 .5625 .46875 .9375 .46875 .9375 .84375 .5625 .84375\n"
        )
    weights = finder(tmp_path / "student.safetensors", model="maskrcnn_resnet50_fpn")
    boxes, masks = (
        evaluate(tmp_path, "--weights", weights, "--data", outlined, "--iou-type", kind) for kind in ("bbox", "segm")
    )
    assert boxes["per_class"]["disc"] > 0
    assert masks["per_class"]["disc"] == 0  # whose masks are empty, whatever their boxes
    assert masks["per_class"]["square"] > 0
    assert masks["iou_type"] == "segm"


def test_each_fault_is_one_line(
    data: Path, student: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = finder(tmp_path / "foreign.safetensors", names=("cat",), **TINY_RCNN)
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "broken.pt").write_bytes(b"no tensors")
    (tmp_path / "model.onnx").write_bytes(b"no tensors")
    given = ["--data", data, "--split", "val", "--weights"]
    for arguments, fault in (
        ([*given, tmp_path / "none.safetensors"], "there is none at"),
        ([*given, tmp_path / "none.pt"], "there is none at"),
        ([*given, tmp_path / "bare.safetensors"], "says its architecture"),
        ([*given, tmp_path / "broken.safetensors"], "says its architecture"),
        ([*given, tmp_path / "broken.pt"], "is not one"),
        ([*given, tmp_path / "model.onnx"], "Expected an ultralytics checkpoint (.pt)"),
        ([*given, foreign], "Expected the model's classes among"),
        ([*given, student, "--imgsz", 0], "--imgsz: expected 32 pixels or more, but got 0"),
        ([*given, student, "--iou-type", "segm"], "of the ground truth have none"),
        (["--data", data, "--weights", student], "expected a split `test`"),
        (["--data", tmp_path / "none.yaml", "--weights", checkpoint], "Expected a data.yaml"),
        (["--weights", student], "Expected --weights and --data"),
    ):
        refuse(capsys, fault, "evaluate", *arguments, "--json", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_boxes_are_never_scored_as_masks(
    data: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outlined = Path(shutil.copytree(data.parent, tmp_path / "data")) / "data.yaml"
    for label in (outlined.parent / "labels" / "val").iterdir():
        label.write_text("0 .0625 .0625 .4375 .0625 .4375 .4375 .0625 .4375\n")
    given = ["--data", outlined, "--split", "val", "--iou-type", "segm", "--weights"]
    assert call("evaluate", *given, student) == 2
    assert "of the detections have none. Score boxes (bbox)" in capsys.readouterr().err
