from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from detkd.data.segmentation import SegmentationDataset
from detkd.errors import ArgumentError, DataError
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.pixels import predict_probabilities
from detkd.evaluation.segmentation import (
    Tally,
    as_labels,
    choose_settings,
    evaluate_segmentation,
    predict_images,
    tally_images,
)

COMPONENTS = InstanceSettings(method="components", min_area=1)
SIZES = ((64, 48), (20, 31), (40, 40))


class Reader(nn.Module):
    """Reads what a picture's colours say: red is the first class, green the second one, blue a boundary."""

    def __init__(self, *names: str, boundary: bool = False) -> None:
        super().__init__()
        self.class_names, self.boundary = names, boundary
        self.weight = nn.Parameter(torch.ones(1))
        self.shapes: list[torch.Size] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.shapes.append(images.shape)
        signs = (images - 0.5) * 20
        heads = [signs[:, :1]] if len(self.class_names) == 1 else [torch.zeros_like(signs[:, :1]), signs[:, :2]]
        return torch.cat([*heads, signs[:, 2:]] if self.boundary else heads, 1)


def write(root: Path, masks: list[np.ndarray], seen: list[np.ndarray] | None = None) -> SegmentationDataset:
    """A set of two classes, whose pictures show `seen` to the reader."""
    for kind in ("images", "masks"):
        (root / kind / "val").mkdir(parents=True)
    for index, (mask, shown) in enumerate(zip(masks, masks if seen is None else seen, strict=True)):
        pixels = np.stack((shown == 1, shown == 2, np.zeros_like(shown)), -1).astype(np.uint8) * 255
        Image.fromarray(pixels).save(root / "images" / "val" / f"{index}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / "val" / f"{index}.png")
    content = {"train": "images/val", "val": "images/val", "names": ["red", "green"], "format": "semantic"}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return SegmentationDataset.load(root / "data.yaml")


def shapes() -> list[np.ndarray]:
    """Pictures of unlike sizes, the last one without objects."""
    masks = [np.zeros((height, width), int) for width, height in SIZES]
    masks[0][4:20, 8:30], masks[0][24:40, 32:60], masks[1][12:24, 4:16] = 1, 2, 1
    return masks


@pytest.mark.parametrize(("width", "height"), [(100, 70), (32, 32), (20, 50), (9, 7), (33, 64)])
def test_tiles_come_back_at_the_pictures_size_and_scale(width: int, height: int) -> None:
    model = Reader("red", boundary=True).train()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    (found,) = predict_probabilities(model, [pixels], imgsz=32, mode="tiles", batch=4)
    assert model.training
    expected = torch.from_numpy((pixels / 255 - 0.5) * 20).sigmoid().numpy()
    np.testing.assert_allclose(found.classes[1], expected[..., 0], atol=1e-5)
    np.testing.assert_allclose(found.classes[0], 1 - expected[..., 0], atol=1e-5)
    assert found.boundary is not None
    np.testing.assert_allclose(found.boundary, expected[..., 2], atol=1e-5)
    assert {tuple(shape[1:]) for shape in model.shapes} == {(3, 32, 32)}
    assert max(shape[0] for shape in model.shapes) <= 4


def test_where_tiles_overlap_the_nearer_middle_counts_more() -> None:
    class Corner(Reader):
        def forward(self, images: Tensor) -> Tensor:
            """Sure of an object right of the tile's middle, and of none left of it."""
            return torch.where(torch.arange(32) >= 16, 20.0, -20.0).expand(len(images), 1, 32, 32)

    (found,) = predict_probabilities(Corner("red"), [np.zeros((32, 56, 3), np.uint8)], imgsz=32, mode="tiles")
    shared = found.classes[1][0, 24:32]  # of the first tile 1, of the second 0; weights 8 … 1 and 1 … 8
    np.testing.assert_allclose(shared, np.arange(8, 0, -1) / 9, atol=1e-5)


def test_fitted_pictures_come_back_at_their_own_size() -> None:
    pictures = []
    for width, height in SIZES:
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[height // 2 :, : width // 2, 0] = 255
        pictures.append(pixels)
    model = Reader("red")
    for batch in (1, 2):
        found = list(predict_probabilities(model, pictures, imgsz=32, batch=batch))
        for one, (width, height) in zip(found, SIZES, strict=True):
            assert one.classes.shape == (2, height, width)
            assert one.boundary is None
            inside = one.classes[1] > 0.5
            assert inside[height // 2 + 2 :, : width // 2 - 2].all()
            assert not inside[: height // 2 - 2].any()
            assert not inside[:, width // 2 + 2 :].any()
    assert model.shapes == [torch.Size((count, 3, 32, 32)) for count in (1, 1, 1, 2, 1)]


def test_logits_that_the_classes_do_not_explain_are_refused() -> None:
    model = Reader("red", "green", "blue")
    with pytest.raises(ArgumentError, match=r"Expected 4 logits of classes .* but the model gave 3"):
        list(predict_probabilities(model, [np.zeros((8, 8, 3), np.uint8)], imgsz=8))


@pytest.mark.parametrize("mode", ["fit", "tiles"])
def test_a_perfect_segmenter_has_all_of_everything(tmp_path: Path, mode: str) -> None:
    dataset = write(tmp_path, [np.kron(mask, np.ones((2, 2), int)) for mask in shapes()])
    # A side of the pictures is a multiple of the input's or equal to it where they are fitted, so that nothing blurs.
    metrics = evaluate_segmentation(
        Reader("red", "green"), dataset, "val", imgsz=128 if mode == "fit" else 32, mode=mode, settings=COMPONENTS
    )
    flat = metrics.as_dict()
    exact = mode == "tiles"
    for name in ("AP50", "mIoU", "Dice", "boundary_F1"):
        assert flat[name] == pytest.approx(1, abs=1e-6 if exact else 0.05)
    assert set(flat["per_class"]) == {"red", "green"}
    assert metrics["AP75"] == flat["AP75"] == pytest.approx(1)


def test_pixels_are_counted_as_by_hand_and_classes_matched_by_name(tmp_path: Path) -> None:
    mask, seen = np.zeros((16, 16), int), np.zeros((16, 16), int)
    mask[:4, :8], mask[8:12, :8] = 1, 2
    seen[:4, 4:12], seen[8:12, :8] = 1, 2
    dataset = write(tmp_path, [mask], [seen])
    images, truth = dataset.annotated("val"), dataset.coco("val")
    tally = tally_images(Reader("red", "green"), images, truth, dataset.names, imgsz=16, mode="tiles", settings=COMPONENTS)
    assert tally.confusion.tolist() == [[256 - 32 - 32 - 16, 16, 0], [16, 16, 0], [0, 0, 32]]
    metrics = tally.metrics(truth, dataset.names)
    assert metrics.iou == pytest.approx({"background": 176 / 208, "red": 16 / 48, "green": 1})
    assert metrics.dice == pytest.approx({"red": 1 / 2, "green": 1})
    flat = metrics.as_dict()
    assert flat["mIoU"] == pytest.approx((176 / 208 + 1 / 3 + 1) / 3)
    assert flat["Dice"] == pytest.approx(3 / 4)
    assert flat["per_class"]["green"] == pytest.approx({"AP": 1, "IoU": 1, "Dice": 1, "boundary_F1": 1})
    assert flat["per_class"]["red"]["AP"] == 0  # an overlap of a third
    assert flat["boundary_F1"] == pytest.approx(np.mean(tally.boundary[0]))
    swapped = tally_images(
        Reader("green", "red"), images, truth, dataset.names, imgsz=16, mode="tiles", settings=COMPONENTS
    )
    assert swapped.confusion[1].tolist() == [16, 0, 16]
    # What the model alone knows is background to the data set.
    (both,) = predict_images(Reader("red", "green"), images, dataset.names, imgsz=16, mode="tiles")
    (one,) = predict_images(Reader("red", "cat"), images, dataset.names, imgsz=16, mode="tiles")
    np.testing.assert_allclose(one.classes, [both.classes[0] + both.classes[2], both.classes[1], 0 * both.classes[2]])
    with pytest.raises(DataError, match="Expected classes of the data set's"):
        list(predict_images(Reader("cat", "dog"), images, dataset.names, imgsz=16))


def test_ignored_pixels_count_nowhere(tmp_path: Path) -> None:
    mask = shapes()[0]
    seen = mask.copy()
    mask[42:, :] = 255
    seen[44:, 10:40] = 2  # an object where nothing is known
    dataset = write(tmp_path, [mask], [seen])
    metrics = evaluate_segmentation(
        Reader("red", "green"), dataset, "val", imgsz=32, mode="tiles", settings=COMPONENTS
    ).as_dict()
    for name in ("AP", "mIoU", "Dice", "boundary_F1"):
        assert metrics[name] == pytest.approx(1)


def test_an_object_may_reach_into_ignored_pixels(tmp_path: Path) -> None:
    mask, seen = np.zeros((48, 48), int), np.zeros((48, 48), int)
    mask[9:39, 9:39], mask[12:36, 12:36] = 255, 1
    seen[9:39, 9:39] = 1
    dataset = write(tmp_path, [mask], [seen])
    how: dict[str, Any] = {"imgsz": 48, "mode": "tiles"}
    reader = Reader("red", "green")
    assert evaluate_segmentation(reader, dataset, "val", settings=COMPONENTS, **how)["AP"] == pytest.approx(1)
    settings = choose_settings(reader, dataset, **how)
    assert evaluate_segmentation(reader, dataset, "val", settings=settings, **how)["AP"] == pytest.approx(1)


def test_classes_that_are_nowhere_are_not_known_and_no_detections_are_none(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), int)
    mask[4:8, 4:8] = 1
    dataset = write(tmp_path, [mask], [np.zeros((16, 16), int)])
    metrics = evaluate_segmentation(Reader("red", "green"), dataset, "val", imgsz=16, settings=COMPONENTS).as_dict()
    assert metrics["AP"] == 0
    assert metrics["per_class"]["red"] == pytest.approx({"AP": 0, "IoU": 0, "Dice": 0, "boundary_F1": 0})
    assert all(np.isnan(value) for value in metrics["per_class"]["green"].values())
    assert metrics["mIoU"] == pytest.approx((240 / 256 + 0) / 2)
    assert metrics["Dice"] == metrics["boundary_F1"] == 0


def test_shares_of_a_split_add_up_to_it(tmp_path: Path) -> None:
    masks = shapes()
    dataset = write(tmp_path, masks, [np.roll(mask, 3, 1) for mask in masks])
    images, truth = dataset.annotated("val"), dataset.coco("val")

    def count(rank: int, processes: int) -> Tally:
        own = images[rank::processes]
        return tally_images(Reader("red", "green"), own, truth, dataset.names, imgsz=64, settings=COMPONENTS)

    whole, joined = count(0, 1).metrics(truth, dataset.names), (count(0, 2) + count(1, 2)).metrics(truth, dataset.names)
    for name, value in whole.as_dict().items():
        assert name == "per_class" or joined[name] == pytest.approx(value, nan_ok=True)


def test_settings_are_chosen_by_what_finds_most_objects(tmp_path: Path) -> None:
    numbers = np.zeros((32, 48), np.uint16)
    numbers[4:20, 4:20], numbers[4:20, 20:36], numbers[24:26, 40:43] = 1, 2, 3
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[numbers > 0, 0] = 255
    pixels[4:20, 18:22, 2] = 255  # the boundary between the two
    pixels[28:30, 4:8, 0] = 140  # a speck, likelier an object than not
    Image.fromarray(pixels).save(tmp_path / "images" / "train" / "a.png")
    Image.fromarray(numbers).save(tmp_path / "masks" / "train" / "a.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [nucleus]\n")
    dataset = SegmentationDataset.load(tmp_path / "data.yaml")
    model = Reader("nucleus", boundary=True)
    settings = choose_settings(model, dataset, "train", imgsz=48, mode="tiles")
    assert settings.method == "watershed"
    assert settings.min_area == 4
    metrics = evaluate_segmentation(model, dataset, "train", imgsz=48, mode="tiles", settings=settings)
    assert metrics["AP"] > evaluate_segmentation(model, dataset, "train", imgsz=48, settings=COMPONENTS)["AP"]
    (found,) = predict_images(model, dataset.annotated("train"), dataset.names, imgsz=48, mode="tiles")
    labels = as_labels(found, settings)
    assert len(set(np.unique(labels.instances[numbers > 0]))) == 3
    assert labels.classes.max() == 1
    assert set(labels.labels) == {0}
    assert choose_settings(Reader("nucleus"), dataset, "train", imgsz=48, mode="tiles").min_area >= 4


def test_settings_are_chosen_among_more_objects_than_8_bits_count(tmp_path: Path) -> None:
    mask = np.zeros((128, 128), int)
    for y in range(0, 126, 7):
        mask[y : y + 3, np.arange(128) % 7 < 3] = 1  # 18 rows of squares of 9 pixels, the last column cut to 6
    dataset = write(tmp_path, [mask])
    assert len(dataset.coco("val")["annotations"]) == 18 * 19
    settings = choose_settings(Reader("red", "green"), dataset, imgsz=128)
    assert settings.min_area in (4, 8)
    called = choose_settings(Reader("rouge", "vert"), dataset, imgsz=128, names=("rouge", "vert"))
    assert called == settings
