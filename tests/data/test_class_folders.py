"""Pictures in one folder per class."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from detkd.data.class_folders import PictureDataset
from detkd.errors import DataError
from tests.engines.classes import write_pictures


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "data", {"train": 10, "test": 2}, side=8)


def pack(root: Path, split: str) -> None:
    with zipfile.ZipFile(root / f"{split}.zip", "w") as file:
        for path in sorted((root / split).rglob("*.png")):
            file.write(path, path.relative_to(root / split))
            path.unlink()
    for folder in (root / split).iterdir():
        folder.rmdir()
    (root / split).rmdir()


def test_a_share_of_each_class_is_held_out_and_no_picture_is_in_two_splits(root: Path) -> None:
    dataset = PictureDataset.load(root, 8, held_out=0.2)
    assert dataset.names == ("blue", "green", "red")
    for split, count in {"train": 8, "val": 2, "test": 2}.items():
        assert np.bincount(dataset.parts[split].labels).tolist() == [count] * 3, split
    assert not set(dataset.images("train")) & set(dataset.images("val"))


def test_a_zip_says_what_its_folder_says(root: Path) -> None:
    before = PictureDataset.load(root, 8)
    pack(root, "train")
    pack(root, "test")
    after = PictureDataset.load(root, 8)
    for split in before.splits:
        assert before.images(split) == after.images(split)
        np.testing.assert_array_equal(before.parts[split].pixels, after.parts[split].pixels)


def test_a_subset_is_part_of_every_larger_one_and_leaves_val_as_it_is(root: Path) -> None:
    small, large = (PictureDataset.load(root, 8, subset=count) for count in (2, 5))
    assert set(small.images("train")) < set(large.images("train"))
    assert len(small.images("train")) == 6
    assert small.images("val") == large.images("val")


def test_a_split_val_of_its_own_is_taken_as_it_is(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 3, "val": 2, "test": 1}, side=8)
    dataset = PictureDataset.load(root, 8)
    assert [len(dataset.images(split)) for split in ("train", "val", "test")] == [9, 6, 3]


def test_an_empty_split_val_is_none(root: Path) -> None:
    expected = PictureDataset.load(root, 8)
    assert expected.holds_out
    (root / "val" / "red").mkdir(parents=True)
    assert PictureDataset.load(root, 8).images("val") == expected.images("val")
    with zipfile.ZipFile(root / "val.zip", "w"):
        pass
    dataset = PictureDataset.load(root, 8)
    assert dataset.holds_out
    np.testing.assert_array_equal(dataset.parts["val"].pixels, expected.parts["val"].pixels)


def test_pictures_of_another_size_are_scaled(root: Path) -> None:
    dataset = PictureDataset.load(root, 16)
    assert dataset.parts["test"].pixels.shape == (6, 3, 16, 16)


def test_labels_follow_the_colours(root: Path) -> None:
    part = PictureDataset.load(root, 8).parts["train"]
    for label, channel in ((0, 2), (1, 1), (2, 0)):  # blue, green, red
        means = part.pixels[part.labels == label].mean((2, 3))
        assert (means.argmax(1) == channel).all()


@pytest.mark.parametrize("name", ["../escape/0.png", "/etc/red/0.png", "red/deep/0.png", "0.png"])
def test_a_member_that_lies_elsewhere_is_refused(name: str, root: Path) -> None:
    pack(root, "train")
    with zipfile.ZipFile(root / "train.zip", "a") as file:
        file.writestr(name, b"x")
    with pytest.raises(DataError, match="CLASS/FILE"):
        PictureDataset.load(root, 8)


def test_what_is_missing_broken_or_foreign_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="`train/` or `train.zip`"):
        PictureDataset.load(root / "nowhere", 8)
    (root / "test" / "yellow").mkdir()
    (root / "test" / "yellow" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="yellow"):
        PictureDataset.load(root, 8)
    (root / "test" / "yellow" / "0.png").rename(root / "test" / "red" / "9.png")
    with pytest.raises(DataError, match=r"red/9\.png: expected a readable image"):
        PictureDataset.load(root, 8)
    (root / "train.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="readable zip"):
        PictureDataset.load(root, 8)


def test_a_class_of_one_picture_leaves_nothing_to_learn_from(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 1, "test": 1}, side=8)
    with pytest.raises(DataError, match="two pictures or more"):
        PictureDataset.load(root, 8)


@pytest.mark.real_data
def test_cifar_is_read_from_its_zips(real_data: Path) -> None:
    dataset = PictureDataset.load(real_data / "cifar10", 32, subset=20)
    assert len(dataset.names) == 10
    assert [len(dataset.images(split)) for split in ("train", "val", "test")] == [200, 2000, 10000]
    assert np.bincount(dataset.parts["val"].labels).tolist() == [200] * 10


def test_a_damaged_member_is_named(root: Path) -> None:
    pack(root, "test")
    path = root / "test.zip"
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
        first = file.infolist()[0]
        place = first.header_offset + 30 + len(first.filename.encode())
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\xff\xff\xff\xff"  # no block of deflate
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"expected a readable {first.filename}"):
        PictureDataset.load(root, 8)
