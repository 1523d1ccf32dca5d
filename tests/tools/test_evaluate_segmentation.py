"""The command line that evaluates a U-Net: metrics of masks and pixels, how objects are told from them, and tiles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkd.data.segmentation import SegmentationDataset
from detkd.evaluation.coco import METRICS
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.segmentation import choose_settings, evaluate_segmentation
from detkd.model_config import ModelConfig
from detkd.models.unet import build_model, load_model, save_model
from tests.engines.segmented import TINY_UNET, write_discs
from tests.tools.calling import call, refuse

if TYPE_CHECKING:
    from pathlib import Path

COMPONENTS = "method=components,threshold=0.5,min_area=4"


def seer(path: Path, names: tuple[str, ...] = ("disc",), imgsz: int = 64) -> Path:
    """A checkpoint of a U-Net that takes for discs what is bright, pixel by pixel."""
    torch.manual_seed(0)
    model, _ = build_model(ModelConfig(**TINY_UNET, boundary=False), names, role="student", imgsz=imgsz)
    network: Any = model.network
    with torch.no_grad():
        for block in (network.encoder.blocks[0], network.decoder.blocks[-1].convolve):  # those at stride 1
            for layer in (block[0], block[3]):
                layer.weight.zero_()
                layer.weight[0, 0, 1, 1] = 1.0  # red, and first of all what comes over the skip
        network.segmentation_head.weight.zero_()
        network.segmentation_head.weight[-1, 0] = 20.0
        network.segmentation_head.bias.zero_()
        network.segmentation_head.bias[-1] = -8.0
    save_model(model, path)
    return path


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return seer(tmp_path / "student.safetensors")


def evaluate(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """What the tool writes."""
    assert call("evaluate", *arguments, "--split", "val", "--json", tmp_path / "out.json") == 0
    content: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return content


def as_json(found: dict[str, Any]) -> Any:
    return json.loads(json.dumps(found).replace("NaN", "null"))


def test_masks_and_pixels_are_measured_with_settings_chosen_on_val(
    discs: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(tmp_path, "--weights", student, "--data", discs)
    model, dataset = load_model(student), SegmentationDataset.load(discs)
    settings = choose_settings(model, dataset, imgsz=64)
    direct = evaluate_segmentation(model, dataset, "val", imgsz=64, settings=settings)
    assert {name: found[name] for name in direct.as_dict()} == as_json(direct.as_dict())
    assert set(METRICS) | {"mIoU", "Dice", "boundary_F1"} <= set(found)
    assert found["instances"] == settings.model_dump()
    assert (found["pictures"], found["weights"], found["split"]) == ("fit", str(student), "val")
    assert found["Dice"] > 0.9
    assert found["AP50"] > 0.9  # also of discs that touch
    table = capsys.readouterr().out
    for row in ("mIoU", "Dice", "boundary_F1", "IoU disc", "AP disc", "instances threshold"):
        assert row in table


def test_how_objects_are_told_can_be_given(discs: Path, student: Path, tmp_path: Path) -> None:
    given = ["--weights", student, "--data", discs, "--instances"]
    joined = evaluate(tmp_path, *given, COMPONENTS)
    assert joined["instances"] == InstanceSettings(method="components", threshold=0.5, min_area=4).model_dump()
    parted = evaluate(tmp_path, *given, "method=watershed,threshold=0.5,min_area=4,min_distance=5")
    assert joined["Dice"] == parted["Dice"]
    assert joined["AP"] < parted["AP"]  # two discs touch
    assert evaluate(tmp_path, *given, "threshold=0.5,min_area=4000")["AP"] == 0


def test_a_large_picture_is_read_in_tiles(tmp_path: Path, student: Path) -> None:
    data = write_discs(tmp_path / "data")
    mask = np.zeros((300, 400), np.uint8)
    rows, columns = np.ogrid[:300, :400]
    for number, (row, column) in enumerate(((64, 64), (200, 130), (150, 330)), start=1):
        mask[(rows - row) ** 2 + (columns - column) ** 2 <= 3**2] = number  # a pixel or two where it is scaled down to 64
    for kind, pixels in (("images", (30 + (mask > 0) * 160).astype(np.uint8)), ("masks", mask)):
        for path in (data.parent / kind / "val").iterdir():
            path.unlink()
        Image.fromarray(pixels).save(data.parent / kind / "val" / "large.png")
    given = ["--weights", student, "--data", data, "--instances", COMPONENTS]
    fitted, tiled = (evaluate(tmp_path, *given, "--pictures", how) for how in ("fit", "tiles"))
    assert tiled["pictures"] == "tiles"
    assert tiled["AP"] > 0.99
    assert tiled["Dice"] > 0.99
    assert fitted["AP"] < 0.5
    taught_in_tiles = tmp_path / "tiles.safetensors"  # says so itself
    save_model(load_model(student), taught_in_tiles, pictures="tiles")
    assert evaluate(tmp_path, "--weights", taught_in_tiles, *given[2:]) == {**tiled, "weights": str(taught_in_tiles)}


def test_each_fault_is_one_line(
    discs: Path, data: Path, student: Path, rcnn_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = seer(tmp_path / "foreign.safetensors", ("cat",))
    given = ["--data", discs, "--split", "val", "--weights"]
    lonely = write_discs(tmp_path / "lonely", splits=("train",))
    for arguments, fault in (
        ([*given, tmp_path / "none.safetensors"], "there is none at"),
        ([*given, foreign, "--instances", COMPONENTS], "Expected classes of the data set's ['disc'], but"),
        ([*given, student, "--imgsz", 72], "--imgsz: expected a multiple of 16 pixels, but got 72"),
        ([*given, student, "--iou-type", "bbox"], "--iou-type: expected segm"),
        ([*given, student, "--instances", "threshold"], "--instances: expected key=value between commas"),
        ([*given, student, "--instances", "threshold=2"], "--instances: threshold: Input should be less than 1"),
        ([*given, student, "--instances", "treshold=0.5"], "--instances: treshold: Extra inputs are not permitted"),
        (["--data", discs, "--split", "test", "--weights", student], "expected a split `test`"),
        (["--data", lonely, "--split", "train", "--weights", student], "there is no `val` to choose it on"),
        (["--data", data, "--split", "val", "--weights", rcnn_teacher, "--pictures", "tiles"], "--pictures: only a U-Net"),
        (["--data", data, "--split", "val", "--weights", rcnn_teacher, "--instances", COMPONENTS], "--instances: only a"),
    ):
        refuse(capsys, fault, "evaluate", *arguments, "--json", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
