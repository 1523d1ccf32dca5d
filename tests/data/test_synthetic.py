"""The built-in data set: the same for the same seed, and labels that say what the pictures show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask

from detkd.data.detection import DetectionDataset, check_dataset
from detkd.data.masks import decode_segment, find_outline
from detkd.data.synthetic import CLASSES, DISTRACTORS, SMALLEST, draw_scene, write_synthetic
from detkd.data.yolo import read_labels
from detkd.errors import DataError

COUNTS = {"train": 6, "val": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("synthetic"), COUNTS, size=96, seed=3).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_draws_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "same", COUNTS, size=96, seed=3)
    assert contents(tmp_path / "same") == contents(folder)
    write_synthetic(tmp_path / "other", COUNTS, size=96, seed=4)
    picture = "images/train/00000.jpg"
    assert contents(tmp_path / "other")[picture] != contents(folder)[picture]


def test_a_larger_set_contains_the_smaller_one(folder: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "large", {"train": 7, "val": 4}, size=96, seed=3)
    large, small = contents(tmp_path / "large"), contents(folder)
    for name in small:
        if name.startswith(("images", "labels")):
            assert large[name] == small[name], name


def test_splits_differ(folder: Path) -> None:
    files = contents(folder)
    assert files["images/train/00000.jpg"] != files["images/val/00000.jpg"]


def test_it_is_a_valid_data_set_and_json_and_labels_agree(folder: Path) -> None:
    dataset = DetectionDataset.load(folder / "data.yaml")
    assert dataset.names == tuple(CLASSES)
    check_dataset(dataset, tuple(COUNTS))
    truth = dataset.coco("train")
    for image in truth["images"]:
        boxes = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        rows = read_labels(folder / "labels" / "train" / f"{Path(image['file_name']).stem}.txt", len(CLASSES))
        assert [row[0] + 1 for row in rows] == [box["category_id"] for box in boxes]
        for (_, (x, y, width, height)), box in zip(rows, boxes, strict=True):
            expected = [(x - width / 2) * 96, (y - height / 2) * 96, width * 96, height * 96]
            assert box["bbox"] == pytest.approx(expected, abs=1e-3)


def test_masks_fill_their_boxes_and_both_encodings_occur(folder: Path) -> None:
    truth = json.loads((folder / "train.json").read_text())
    kinds = set()
    for annotation in truth["annotations"]:
        segmentation = annotation["segmentation"]
        kinds.add(type(segmentation))
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, 96, 96))
        x, y, width, height = coco_mask.toBbox(segmentation)
        assert annotation["bbox"] == pytest.approx([x, y, width, height], abs=2.5)  # half pixels at tips
        assert float(coco_mask.area(segmentation)) == pytest.approx(annotation["area"], rel=0.25, abs=6)
    assert kinds == {list, dict}


def test_polygons_outline_the_visible_pixels_and_keep_the_boxes(folder: Path, tmp_path: Path) -> None:
    assert "polygons" not in yaml.safe_load((folder / "data.yaml").read_text())["synthetic"]
    write_synthetic(tmp_path / "set", COUNTS, size=96, seed=3, polygons=True)
    boxes, polygons = (DetectionDataset.load(root / "data.yaml").annotated("train") for root in (folder, tmp_path / "set"))
    overlaps = []
    for index, (boxed, outlined) in enumerate(zip(boxes, polygons, strict=True)):
        np.testing.assert_allclose(outlined.boxes, boxed.boxes, atol=0.5)
        scene = draw_scene(np.random.default_rng((3, 0, index)), 96)
        for instance, segment in zip(scene.instances, outlined.segments, strict=True):
            filled = decode_segment(segment, 96, 96) > 0
            overlaps.append((filled & instance.mask).sum() / (filled | instance.mask).sum())
    assert min(overlaps) > 0.9
    assert (tmp_path / "set" / "train.json").read_bytes() == (folder / "train.json").read_bytes()
    with pytest.raises(DataError, match="something else"):
        write_synthetic(tmp_path / "set", COUNTS, size=96, seed=3)


def test_an_outline_joins_pieces_and_holes() -> None:
    mask = np.zeros((12, 20), bool)
    mask[2:9, 3:10] = True
    mask[4:7, 5:8] = False  # a hole
    mask[5, 6] = True  # with an island
    mask[10, 15:17] = mask[0, 0] = True
    outline = find_outline(mask)
    assert [*outline.min(0), *outline.max(0)] == pytest.approx([0, 0, 17, 11], abs=0.25)
    filled = decode_segment([outline.ravel().tolist()], 12, 20) > 0
    assert (filled == mask).all()


def test_scenes_have_every_class_small_and_large_objects_and_occlusion() -> None:
    scenes = [draw_scene(np.random.default_rng(index), 128) for index in range(40)]
    instances = [instance for scene in scenes for instance in scene.instances]
    assert {instance.label for instance in instances} == set(range(len(CLASSES)))
    sides = [max(instance.mask.any(0).sum(), instance.mask.any(1).sum()) for instance in instances]
    assert min(sides) <= SMALLEST + 2
    assert max(sides) >= 40
    for scene in scenes:
        assert scene.pixels.shape == (128, 128, 3)
        assert sum(instance.mask.astype(int) for instance in scene.instances).max() <= 1, "visible pixels are disjoint"


def test_no_distractor_is_a_class() -> None:
    assert not set(DISTRACTORS) & set(CLASSES.values())


def test_an_existing_set_is_kept_and_anything_else_refused(folder: Path, tmp_path: Path) -> None:
    stamp = (folder / "data.yaml").stat().st_mtime_ns
    assert write_synthetic(folder, COUNTS, size=96, seed=3) == folder / "data.yaml"
    assert (folder / "data.yaml").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="something else"):
        write_synthetic(folder, COUNTS, size=96, seed=5)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="something else"):
        write_synthetic(tmp_path, COUNTS)
    (tmp_path / "data.yaml").write_text("a: [")
    with pytest.raises(DataError, match="readable YAML"):
        write_synthetic(tmp_path, COUNTS)


@pytest.mark.parametrize(
    ("counts", "size", "words"),
    [({}, 96, "counts"), ({"train": 0}, 96, "counts"), ({"dev": 1}, 96, "counts"), ({"train": 1}, 16, "size")],
)
def test_bad_arguments_are_refused_and_leave_nothing(counts: dict[str, int], size: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        write_synthetic(tmp_path / "new", counts, size=size)
    assert not (tmp_path / "new").exists()


def test_the_tool_draws_and_reports_faults_in_one_line(repository: Path, tmp_path: Path) -> None:
    tool = [sys.executable, str(repository / "tools" / "make_synthetic.py"), str(tmp_path / "set")]
    sizes = ["--train", "2", "--val", "1", "--test", "1", "--size", "64"]
    done = subprocess.run([*tool, *sizes], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "set" / "data.yaml")
    again = subprocess.run([*tool, *sizes, "--polygons"], capture_output=True, text=True, check=False)
    assert "something else" in again.stderr
    bad = subprocess.run([*tool, "--train", "3"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1
