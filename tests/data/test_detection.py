from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from detkd.data.annotations import to_coco
from detkd.data.detection import DetectionDataset, check_dataset
from detkd.data.pictures import read_picture, read_size
from detkd.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / "train" / f"{name}.png")
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nnames: {0: disc, 1: ring}\n")
    return tmp_path / "data.yaml"


def test_converts_labels(data: Path) -> None:
    dataset = DetectionDataset.load(data)
    check_dataset(dataset, ("train",))
    truth = dataset.coco("train")
    (annotation,) = truth["annotations"]
    assert annotation["bbox"] == pytest.approx([8, 3, 4, 4])
    assert annotation["category_id"] == 2
    assert [image["file_name"] for image in truth["images"]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("2 .5 .5 .1 .1", "class from 0 to 1"),
        ("0 .5 .5 2 .1", "from 0 to 1"),
        ("0 .5 .5", "4 numbers|3 numbers"),
        ("0 nan .5 .1 .1", "coordinates"),
        ("x .5 .5 .1 .1", "numbers"),
    ],
)
def test_a_bad_label_is_one_line_with_file_and_number(data: Path, label: str, reason: str) -> None:
    (data.parent / "labels" / "train" / "b.txt").write_text(f"\n{label}\n")
    with pytest.raises(DataError, match=rf"b\.txt:2: .*({reason})") as error:
        check_dataset(DetectionDataset.load(data), ("train",))
    assert "\n" not in str(error.value)


def test_broken_images_missing_labels_and_empty_splits(data: Path) -> None:
    picture = data.parent / "images" / "train" / "b.png"
    whole = picture.read_bytes()
    for content in (whole[: len(whole) // 2], b"not a picture"):
        picture.write_bytes(content)
        with pytest.raises(DataError, match=r"b\.png: expected a readable image"):
            check_dataset(DetectionDataset.load(data), ("train",))
    picture.write_bytes(whole)
    (data.parent / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(DataError, match="expected labels"):
        check_dataset(DetectionDataset.load(data), ("train",))
    for image in picture.parent.iterdir():
        image.unlink()
    with pytest.raises(DataError, match="it is empty"):
        check_dataset(DetectionDataset.load(data), ("train",))


def test_a_relative_split_cannot_leave_the_folder(data: Path) -> None:
    data.write_text("path: .\ntrain: ../elsewhere\nnames: [disc]\n")
    with pytest.raises(DataError, match="lie below"):
        DetectionDataset.load(data)


def test_a_picture_lies_as_its_exif_orientation_says(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (20, 10)).save(data.parent / "images" / "train" / "a.jpg", exif=exif)
    (data.parent / "images" / "train" / "a.png").unlink()
    dataset = DetectionDataset.load(data)
    check_dataset(dataset, ("train",))
    picture = dataset.annotated("train")[0]
    assert (picture.width, picture.height) == (10, 20)
    assert picture.boxes.tolist() == [[4, 6, 6, 14]]


def test_file_names_that_occur_twice_are_refused(data: Path) -> None:
    (data.parent / "images" / "train" / "more").mkdir()
    Image.new("RGB", (20, 10)).save(data.parent / "images" / "train" / "more" / "a.png")
    with pytest.raises(DataError, match=r"file names once each in `train`, but got a\.png again"):
        check_dataset(DetectionDataset.load(data), ("train",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("format: kitti", "`format` to be one of"),
        ("format: coco", r"`annotations` to give the json of \['train'\]"),
        ("format: coco\nannotations: {train: ../train.json}", "`annotations.train` to lie below"),
        ("format: voc\nannotations: /etc", "`annotations.train` to lie below"),
    ],
)
def test_a_faulty_format_is_named(data: Path, change: str, reason: str) -> None:
    data.write_text(f"{data.read_text()}{change}\n")
    with pytest.raises(DataError, match=reason):
        DetectionDataset.load(data)


@pytest.mark.real_data
def test_bccd_is_sound_and_its_json_equals_its_labels(real_data: Path) -> None:
    dataset = DetectionDataset.load(real_data / "bccd" / "data.yaml")
    check_dataset(dataset, ("train", "val", "test"))
    truth, converted = dataset.coco("test"), to_coco(dataset.annotated("test"), dataset.names)
    assert len(truth["images"]) == len(converted["images"]) == 72
    key = lambda a: (round(a["bbox"][0]), round(a["bbox"][1]), round(a["bbox"][2]))  # noqa: E731
    assert len(truth["annotations"]) == len(converted["annotations"])
    assert {key(a) for a in truth["annotations"]} == {key(a) for a in converted["annotations"]}


@pytest.mark.real_data
def test_bccd_reads_alike_from_labels_and_from_coco(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "bccd"
    own = DetectionDataset.load(root / "data.yaml")
    tree = {"format": "coco", "path": str(root), "annotations": {"test": "test.json"}, "names": list(own.names)}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**tree, "test": str(own.splits["test"])}))
    other = DetectionDataset.load(tmp_path / "data.yaml")
    check_dataset(other, ("test",))
    by_name = {image.path.name: image for image in other.annotated("test")}
    for image in own.annotated("test"):
        found = by_name[image.path.name]
        assert sorted(found.classes.tolist()) == sorted(image.classes.tolist())
        assert np.sort(found.boxes, 0) == pytest.approx(np.sort(image.boxes, 0), abs=0.01)


def test_pictures_that_are_listed_but_not_there_would_count_as_missed(data: Path) -> None:
    dataset = DetectionDataset.load(data)
    truth = dataset.coco("train")
    extra = {**truth["images"][0], "id": 99, "file_name": "gone.png"}
    (data.parent / "train.json").write_text(json.dumps({**truth, "images": [*truth["images"], extra]}))
    with pytest.raises(DataError, match=r"1 are not in its folder, e.g. gone.png"):
        dataset.coco("train")


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_more_than_8_bits_are_refused(mode: str, tmp_path: Path) -> None:
    """Pillow would show most of them white."""
    Image.fromarray(np.full((4, 4), 300, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])).save(
        tmp_path / "a.tif"
    )
    with pytest.raises(DataError, match="8 bits a channel"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_size_is_that_of_the_picture_as_it_is_turned(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4)).save(tmp_path / f"a.{suffix}", exif=exif)
    height, width, _ = read_picture(tmp_path / f"a.{suffix}").shape
    assert (width, height) == (4, 10) == read_size(tmp_path / f"a.{suffix}")
