from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from detkd.data.masks import InstanceMask, decode_segment
from detkd.data.segmentation import SegmentationDataset, check_segmentation
from detkd.data.synthetic import CLASSES, write_synthetic
from detkd.errors import DataError
from detkd.evaluation.coco import evaluate_coco

MASK = np.zeros((10, 20), np.uint16)
MASK[1:4, 2:5] = 700  # beyond 8 bits, and with gaps between the numbers
MASK[1:4, 5:8] = 3  # touches it
MASK[8:, 18:] = 9


def write(root: Path, name: str, mask: np.ndarray, split: str = "train") -> None:
    for kind in ("images", "masks"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    height, width = mask.shape
    Image.new("RGB", (width, height)).save(root / "images" / split / f"{name}.png")
    Image.fromarray(mask).save(root / "masks" / split / f"{name}.png")


def describe(root: Path, **content: object) -> SegmentationDataset:
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "names": ["nucleus"], **content}))
    return SegmentationDataset.load(path)


def test_touching_instances_stay_apart_and_pictures_may_differ_in_size(tmp_path: Path) -> None:
    write(tmp_path, "a", MASK)
    write(tmp_path, "b", np.zeros((7, 5), np.uint8))
    dataset = describe(tmp_path)
    check_segmentation(dataset, ("train",))
    first, second = dataset.annotated("train")
    assert first.classes.tolist() == [0, 0, 0]
    labels = first.decode()
    assert labels.classes.tolist() == (MASK > 0).astype(int).tolist()
    assert [int((labels.instances == number).sum()) for number in (1, 2, 3)] == [9, 4, 9]  # in order of 3, 9, 700
    assert (labels.instances > 0).sum() == 22
    assert second.decode().classes.shape == (7, 5)
    assert second.classes.shape == (0,)
    truth = dataset.coco("train")
    assert [annotation["area"] for annotation in truth["annotations"]] == [9, 4, 9]
    assert truth["annotations"][0]["bbox"] == [5, 1, 3, 3]
    assert truth["annotations"][2]["bbox"] == [2, 1, 3, 3]
    assert [image["id"] for image in truth["images"]] == [1, 2]
    assert (decode_segment(truth["annotations"][1]["segmentation"], 10, 20) == (MASK == 9)).all()
    assert json.loads(json.dumps(truth)) == truth


@pytest.mark.parametrize(("numbers", "suffix"), [((1, 7, 65535), "png"), ((3, 70_000, 2_000_000_000), "tiff")])
def test_objects_are_numbered_from_1_whatever_their_numbers_are(
    numbers: tuple[int, ...], suffix: str, tmp_path: Path
) -> None:
    drawn = np.zeros((4, 6), np.uint16 if suffix == "png" else np.int32)
    for row, number in enumerate(numbers):
        drawn[row, row:4] = number
    Image.fromarray(drawn).save(tmp_path / f"mask.{suffix}")
    labels = InstanceMask(tmp_path / f"mask.{suffix}").decode()
    expected = np.zeros((4, 6), np.int32)
    for row in range(3):
        expected[row, row:4] = row + 1
    assert np.array_equal(labels.instances, expected)
    assert labels.instances.dtype == np.int32
    assert np.array_equal(labels.classes, expected > 0)
    assert labels.labels.tolist() == [0, 0, 0]


def test_an_instance_map_without_background_has_all_its_objects(tmp_path: Path) -> None:
    write(tmp_path, "a", np.full((6, 6), 5, np.uint8))
    (image,) = describe(tmp_path).annotated("train")
    assert image.decode().instances.tolist() == np.ones((6, 6), int).tolist()
    assert image.classes.tolist() == [0]


def test_semantic_masks_give_components_and_what_is_ignored_is_a_crowd_of_every_class(tmp_path: Path) -> None:
    mask = np.zeros((8, 12), np.uint8)
    mask[0:2, 0:2] = 1
    mask[2:4, 2:4] = 1  # over the corner, so one object
    mask[6:, 0:3] = 1
    mask[2:5, 6:9] = 2
    mask[7, 10:] = 255
    write(tmp_path, "a", mask)
    dataset = describe(tmp_path, format="semantic", names={0: "disc", 1: "ring"})
    (image,) = dataset.annotated("train")
    labels = image.decode()
    assert labels.labels.tolist() == image.classes.tolist() == [0, 0, 1]
    assert labels.classes[7, 10] == -1
    assert labels.classes[3, 7] == 2
    assert [int((labels.instances == number).sum()) for number in (1, 2, 3)] == [8, 6, 9]
    truth = dataset.coco("train")
    rows = [(row["category_id"], row["area"], row["iscrowd"]) for row in truth["annotations"]]
    assert rows == [(1, 8, 0), (1, 6, 0), (2, 9, 0), (1, 2, 1), (2, 2, 1)]
    found = [{"image_id": 1, "score": 1 - 0.1 * place, **row} for place, row in enumerate(truth["annotations"])]
    assert evaluate_coco(truth, found, "segm")["AP"] == pytest.approx(1)  # what lies on ignored pixels does no harm


def test_of_coco_the_smallest_object_is_seen_and_crowds_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    Image.new("RGB", (10, 10)).save(tmp_path / "images" / "train" / "a.png")

    def row(index: int, category: int, box: tuple[int, int, int, int], crowd: int = 0) -> dict[str, object]:
        x, y, w, h = box
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        ring = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd, "segmentation": [polygon]}
        return {"id": index, "image_id": 4, "category_id": category, **ring}

    truth = {
        "images": [{"id": 4, "file_name": "a.png", "width": 10, "height": 10}],
        "annotations": [row(1, 8, (2, 2, 2, 2)), row(2, 7, (0, 0, 6, 6)), row(3, 7, (4, 4, 6, 6), crowd=1)],
        "categories": [{"id": 7, "name": "disc"}, {"id": 8, "name": "ring"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(truth))
    dataset = describe(tmp_path, names=["disc", "ring"])
    assert dataset.format == "coco"
    check_segmentation(dataset, ("train",))
    (image,) = dataset.annotated("train")
    labels = image.decode()
    assert labels.classes[[0, 3, 5, 8, 9], [0, 3, 5, 8, 0]].tolist() == [1, 2, 1, -1, 0]
    assert labels.instances[[0, 3, 8], [0, 3, 8]].tolist() == [2, 1, 0]
    assert image.classes.tolist() == [1, 0]
    assert dataset.coco("train") == truth
    del truth["annotations"][0]["segmentation"]
    (tmp_path / "train.json").write_text(json.dumps(truth))
    with pytest.raises(DataError, match=r"a\.png: expected a mask for each object"):
        check_segmentation(dataset, ("train",))


def test_the_built_in_set_is_read_with_the_masks_of_its_json(tmp_path: Path) -> None:
    dataset = SegmentationDataset.load(write_synthetic(tmp_path / "set", {"train": 3, "val": 2}, size=64))
    check_segmentation(dataset, ("train", "val"))
    assert dataset.names == tuple(CLASSES)
    truth = dataset.coco("val")
    for image, listed in zip(dataset.annotated("val"), truth["images"], strict=True):
        rows = [row for row in truth["annotations"] if row["image_id"] == listed["id"]]
        assert image.classes.tolist() == [row["category_id"] - 1 for row in rows]
        labels = image.decode()
        for number, row in enumerate(rows, start=1):
            own = labels.instances == number
            assert (labels.classes[own] == row["category_id"]).all()
            assert own.sum() == pytest.approx(row["area"], rel=0.2, abs=6)  # polygons are drawn with other edges


def test_a_folder_without_description_holds_out_every_fifth_image(tmp_path: Path) -> None:
    for index in range(11):
        write(tmp_path, f"{index:02d}", MASK)
    write(tmp_path, "t", MASK, "test")
    dataset = SegmentationDataset.load(tmp_path)
    assert [path.stem for path in dataset.images("val")] == ["04", "09"]
    assert [path.stem for path in dataset.images("train")] == ["00", "01", "02", "03", "05", "06", "07", "08", "10"]
    assert [image.path.stem for image in dataset.annotated("val")] == ["04", "09"]
    assert [image["file_name"] for image in dataset.coco("val")["images"]] == ["04.png", "09.png"]
    assert dataset.watched == "val"
    elsewhere = tmp_path / "described" / "data.yaml"
    elsewhere.parent.mkdir()
    content = {"path": str(tmp_path), "train": "images/train", "names": ["nucleus"], "holdout": 2}
    elsewhere.write_text(yaml.safe_dump(content))
    assert len(SegmentationDataset.load(elsewhere).images("val")) == 5
    check_segmentation(SegmentationDataset.load(elsewhere), ("train", "val"))
    with pytest.raises(DataError, match="Expected a data.yaml"):
        SegmentationDataset.load(tmp_path / "images")


def test_a_held_out_part_of_a_json_is_a_truth_of_its_own(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "set", {"train": 4}, size=48)
    path.write_text(path.read_text() + "holdout: 2\n")
    dataset = SegmentationDataset.load(path)
    for split, ids in (("train", [1, 3]), ("val", [2, 4])):
        truth = dataset.coco(split)
        assert [image["id"] for image in truth["images"]] == ids
        assert {row["image_id"] for row in truth["annotations"]} == set(ids)
        assert len(dataset.annotated(split)) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"train": "../elsewhere"}, "`train` to lie below"),
        ({"masks": {"train": "../elsewhere"}}, r"`masks\.train` to lie below"),
        ({"masks": "masks"}, "`masks` to map splits"),
        ({"format": "yolo"}, "`format` to be one of"),
        ({"names": ["a", "b"]}, "expected one class"),
        ({"names": None}, "`names` to list"),
        ({"names": ["background"]}, "without `background`"),
        ({"names": [str(index) for index in range(255)], "format": "semantic"}, "fewer classes than 255"),
        ({"holdout": 1}, "`holdout` to be a whole number from 2"),
        ({"holdout": 2, "val": "images/val"}, "no `val`"),
        ({"train": "pictures"}, "not below `images`"),
    ],
)
def test_a_faulty_description_is_refused(tmp_path: Path, content: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        describe(tmp_path, **content)


def test_faults_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write(tmp_path, name, MASK)
    dataset = describe(tmp_path)
    masks = tmp_path / "masks" / "train"
    (masks / "a.png").unlink()
    Image.new("L", (20, 11)).save(masks / "b.png")
    whole = (masks / "c.png").read_bytes()
    (masks / "c.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"mask at .*a\.png, but there is none\. 2 more faults") as error:
        check_segmentation(dataset, ("train",))
    assert "\n" not in str(error.value)
    write(tmp_path, "a", MASK)
    with pytest.raises(DataError, match=r"b\.png: expected a mask of 20x10, but it has 20x11"):
        check_segmentation(dataset, ("train",))
    write(tmp_path, "b", MASK)
    with pytest.raises(DataError, match=r"masks.*c\.png: expected a readable mask"):
        check_segmentation(dataset, ("train",))
    Image.new("RGB", (20, 10)).save(masks / "c.png")
    with pytest.raises(DataError, match=r"c\.png: expected a mask with one number a pixel, but it is RGB"):
        check_segmentation(dataset, ("train",))
    write(tmp_path, "c", MASK)
    picture = tmp_path / "images" / "train" / "d.png"
    picture.write_bytes(picture.read_bytes()[: len(picture.read_bytes()) // 2])
    with pytest.raises(DataError, match=r"images.*d\.png: expected a readable image"):
        check_segmentation(dataset, ("train",))


def test_an_index_of_no_class_and_a_split_without_objects_are_faults(tmp_path: Path) -> None:
    write(tmp_path, "a", np.full((4, 4), 3, np.uint8))
    dataset = describe(tmp_path, format="semantic", names=["disc", "ring"])
    with pytest.raises(DataError, match=r"a\.png: expected indices from 0 \(background\) to 2, .* but got 3"):
        check_segmentation(dataset, ("train",))
    write(tmp_path, "a", np.full((4, 4), 255, np.uint8))
    with pytest.raises(DataError, match="expected objects in split `train`"):
        check_segmentation(dataset, ("train",))


def test_the_digest_of_labels_changes_with_them(tmp_path: Path) -> None:
    write(tmp_path, "a", MASK)
    (image,) = describe(tmp_path).annotated("train")
    before = image.label_bytes()
    write(tmp_path, "a", np.roll(MASK, 1, 0))
    assert image.label_bytes() != before
    (first, *_) = SegmentationDataset.load(write_synthetic(tmp_path / "set", {"train": 2}, size=48)).annotated("train")
    assert first.label_bytes() == first.label_bytes() != b""


@pytest.mark.real_data
def test_nuclei_are_sound_and_as_many_as_their_source_says(real_data: Path) -> None:
    dataset = SegmentationDataset.load(real_data / "dsb2018")
    counts = {split: sum(len(image.classes) for image in dataset.annotated(split)) for split in dataset.splits}
    assert {split: len(dataset.images(split)) for split in dataset.splits} == {"train": 344, "val": 86, "test": 108}
    assert sum(counts.values()) == 16_667
    truth = dataset.coco("test")
    assert len(truth["annotations"]) == counts["test"]
    check_segmentation(dataset, ("test",))


def test_a_picture_without_its_labels_shows_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", np.full((6, 8), 5, np.uint8))
    (image,) = describe(tmp_path).annotated("train")
    bare = image.without_labels()
    assert len(bare.classes) == len(bare.crowd) == 0
    assert (bare.decode().classes == -2).all()
    assert image.classes.tolist() == [0]
