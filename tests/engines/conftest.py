"""A tiny data set of two classes and tiny teachers of two families, for tests that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from detkd.config import DetectionConfig, parse_config
from detkd.data.detection import DetectionDataset
from detkd.model_config import ModelConfig
from detkd.models import unet
from detkd.models.torchvision import build_model, save_model
from detkd.models.ultralytics import build_yolo
from tests.engines.segmented import SHAPES, TINY_UNET, write_discs, write_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("disc", "square")
TINY = {"model": "yolov5n.yaml", "width": 0.0625}
FEW = {"pre_nms": 32, "post_nms": 32, "sampled": 16}
TINY_RCNN = {"model": "fasterrcnn_mobilenet_v3_small_fpn", "width": 0.125, "proposals": FEW}


class CutError(Exception):
    """Stands for a kill."""


def _hold_one_thread() -> Iterator[None]:
    """Sums are taken in the same order in every run, however many processors there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


one_thread = pytest.fixture(_hold_one_thread, name="one_thread")
one_thread_for_a_module = pytest.fixture(_hold_one_thread, scope="module", name="one_thread_for_a_module")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of a disc and a square in each of two splits."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(4):
            picture = Image.new("RGB", (64, 64), (30, 40 * index, 60))
            pen = ImageDraw.Draw(picture)
            pen.ellipse((4, 4, 28, 28), fill="white")
            pen.rectangle((36, 30, 60, 54), fill="yellow")
            picture.save(root / "images" / split / f"{index}.png")
            label = "0 0.25 0.25 0.375 0.375\n1 0.75 0.65625 0.375 0.375\n"
            (root / "labels" / split / f"{index}.txt").write_text(label)
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": list(NAMES)}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root / "data.yaml"


@pytest.fixture(scope="session")
def resolved(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set's yaml with absolute paths, as ultralytics needs it."""
    path = tmp_path_factory.mktemp("resolved") / "data.yaml"
    DetectionDataset.load(data).write_yaml(path)
    return path


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain state dict of a teacher wider than the student."""
    torch.manual_seed(7)
    spec = configure(Path("unused"), student={"model": "yolov5n.yaml", "width": 0.125}, distill=None).student
    model, _ = build_yolo(spec, NAMES, role="teacher")
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(model.state_dict(), path)
    return path


def configure(data: Path, /, **changes: object) -> DetectionConfig:
    """A run of two epochs; `changes` replace whole sections."""
    tree = {
        "name": "run",
        "data": str(data),
        "student": TINY,
        "train": {"epochs": 2, "imgsz": 64, "batch": 4},
        "trainer": {"optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0, "mosaic": 0.0, "verbose": False},
        "evaluate": ["val"],
    }
    return parse_config({**tree, **changes})


@pytest.fixture(scope="session")
def checkpoint(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same teacher as a whole ultralytics checkpoint."""
    spec = ModelConfig(model="yolov5n.yaml", width=0.125, weights=teacher)
    model, _ = build_yolo(spec, NAMES, role="teacher")
    path = tmp_path_factory.mktemp("checkpoint") / "teacher.pt"
    torch.save({"model": model, "train_args": {"task": "detect", "imgsz": 64}}, path)
    return path


def settle(model: torch.nn.Module) -> None:
    """Let a model from scratch tell pictures apart, as it does not without statistics of its activations."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    model.train()(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def configure_rcnn(data: Path, /, **changes: Any) -> DetectionConfig:
    """The same for a Faster R-CNN, in four steps."""
    tree = {
        "name": "run",
        "data": str(data),
        "student": TINY_RCNN,
        "distill": None,
        "train": {"epochs": 2, "imgsz": 64, "batch": 2},
        "augment": [{"HorizontalFlip": {"p": 0.5}}],
        "optim": {"lr": 0.003, "warmup_epochs": 0, "schedule": "constant"},
        "evaluate": ["val"],
    }
    return parse_config({**tree, **changes})


@pytest.fixture(scope="session")
def rcnn_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student.safetensors of a Faster R-CNN wider than the student."""
    torch.manual_seed(7)
    model: Any
    model, _ = build_model(ModelConfig(**TINY_RCNN | {"width": 0.25}), NAMES, role="teacher", imgsz=64)
    settle(model.backbone)
    path = tmp_path_factory.mktemp("rcnn") / "student.safetensors"
    save_model(model, path)
    return path


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of unlike sizes in each of two splits, of discs, of which some touch; one shows none."""
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of a disc, a square and an ignored corner in each of two splits."""
    return write_shapes(tmp_path_factory.mktemp("shapes"))


def write_unet(folder: Path, names: tuple[str, ...], **spec: Any) -> Path:
    """A student.safetensors of a U-Net that tells pictures apart."""
    torch.manual_seed(7)
    model, _ = unet.build_model(ModelConfig(**{**TINY_UNET, "width": 0.5, **spec}), names, role="teacher", imgsz=64)
    settle(model)
    unet.save_model(model, folder / "student.safetensors")
    return folder / "student.safetensors"


def write_yolo(folder: Path, model: str) -> Path:
    """A checkpoint of a YOLO that finds something everywhere, of differing scores."""
    torch.manual_seed(7)
    yolo: Any
    yolo, _ = build_yolo(ModelConfig(model=model, width=0.125), NAMES, role="teacher")
    settle(yolo)
    for level in yolo.model[-1].cv3:
        torch.nn.init.normal_(level[-1].weight, std=1.0)
        torch.nn.init.zeros_(level[-1].bias)
    task = "segment" if "-seg" in model else "detect"
    torch.save({"model": yolo, "train_args": {"task": task, "imgsz": 64}}, folder / "teacher.pt")
    return folder / "teacher.pt"


@pytest.fixture(scope="session")
def finding_rcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Faster R-CNN that finds boxes of some twenty pixels in every picture, of differing scores."""
    torch.manual_seed(7)
    model: Any
    model, _ = build_model(ModelConfig(**TINY_RCNN | {"width": 0.25}), NAMES, role="teacher", imgsz=64)
    settle(model.backbone)
    with torch.no_grad():
        for layer in (model.rpn.head.bbox_pred, model.roi_heads.box_predictor.bbox_pred):
            layer.weight.zero_()
            layer.bias.zero_()
        model.rpn.head.bbox_pred.bias.view(-1, 4)[:, 2:] = 1.4  # four times as large as the finest anchors
        model.roi_heads.box_predictor.cls_score.weight.mul_(0.1)
    path = tmp_path_factory.mktemp("rcnn") / "student.safetensors"
    save_model(model, path)
    return path


@pytest.fixture(scope="session")
def unet_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student.safetensors of a U-Net of discs, wider than the student."""
    return write_unet(tmp_path_factory.mktemp("unet"), ("disc",))


@pytest.fixture(scope="session")
def shapes_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of discs and squares."""
    return write_unet(tmp_path_factory.mktemp("unet"), SHAPES)


@pytest.fixture(scope="session")
def finding_yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO that finds boxes in every picture."""
    return write_yolo(tmp_path_factory.mktemp("yolo"), "yolov5n.yaml")


@pytest.fixture(scope="session")
def yolo_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO that finds masks in every picture."""
    return write_yolo(tmp_path_factory.mktemp("yolo"), "yolov8n-seg.yaml")
