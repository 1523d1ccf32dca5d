from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from detkd.data.augment import GREY
from detkd.data.masks import InstanceMask, PixelLabels, disc, find_boundary
from detkd.data.pixel_augment import PixelAugmentation
from detkd.data.pixels import PixelBatch, SegmentedPictures, collate
from detkd.data.sampling import AddressSampler, repeat_factors
from detkd.data.segmented import SegmentedImage
from detkd.errors import ConfigError
from detkd.lightning_config import DEFAULT_AUGMENT


@pytest.fixture
def images(tmp_path: Path) -> list[SegmentedImage]:
    """Grey pictures of unlike sizes whose objects are white, the last one without any."""
    found = []
    for index, (width, height) in enumerate(((48, 32), (20, 70), (64, 64), (40, 40))):
        mask = np.zeros((height, width), np.uint16)
        if index < 3:
            mask[4:12, 4:12], mask[4:12, 12:18] = 1, 2
        noise = np.random.default_rng(index).integers(60, 90, (height, width, 3), dtype=np.uint8)
        pixels = np.where(mask[..., None] > 0, np.uint8(255), noise)
        path, labels = tmp_path / f"{index}.png", tmp_path / f"{index}_mask.png"
        Image.fromarray(pixels).save(path)
        Image.fromarray(mask).save(labels)
        count = int(mask.max())
        found.append(
            SegmentedImage(path, width, height, np.zeros(count, np.int64), np.zeros(count, bool), InstanceMask(labels))
        )
    return found


def blank(height: int, width: int) -> PixelLabels:
    return PixelLabels(np.zeros((height, width), np.int16), np.zeros((height, width), np.int32), np.zeros(0, np.int64))


def test_a_fitted_picture_is_scaled_and_what_lies_beside_it_is_ignored(images: list[SegmentedImage]) -> None:
    batch = SegmentedPictures(images, PixelAugmentation([], 96), boundary=1)[0, 0]
    assert batch.images.shape == (1, 3, 96, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.classes.dtype == torch.int64
    assert (batch.targets.classes[0, 64:] == -1).all()
    assert (batch.images[0, :, 64:] == GREY).all()
    assert (batch.targets.classes[0, 8:24, 8:36] == 1).all()
    assert (batch.targets.classes == 1).sum() == 16 * 28
    assert batch.targets.boundary is not None
    assert batch.targets.boundary.dtype == torch.bool
    assert batch.targets.boundary[0, 16, 22:27].tolist() == [False, True, True, False, False]  # 8, 12 px → 24 is between
    assert not batch.targets.boundary[0, 64:].any()
    assert batch.addresses == [(0, 0)]


def test_tiles_keep_the_scale_and_pad_what_is_smaller(images: list[SegmentedImage]) -> None:
    pictures = SegmentedPictures(images, PixelAugmentation([], 32, "tiles"))
    assert pictures[0, 0].targets.boundary is None
    batch = pictures[1, 0]  # 20 pixels across
    assert (batch.targets.classes[0, :, 20:] == -1).all()
    assert (batch.targets.classes[0, :, :20] >= 0).all()
    crops = [pictures[2, view] for view in range(12)]
    assert len({crop.images.numpy().tobytes() for crop in crops}) > 6
    for crop in crops:
        assert ((crop.images[0] == 255).all(0) == (crop.targets.classes[0] == 1)).all()  # picture and mask stay together


def test_masks_go_along_with_every_warp_and_hold_no_class_between_two() -> None:
    labels = PixelLabels(np.zeros((64, 64), np.int16), np.zeros((64, 64), np.int32), np.zeros(2, np.int64))
    labels.classes[10:30, 10:30], labels.classes[30:50, 10:30], labels.classes[50:, 50:] = 1, 5, -1
    labels.instances[10:30, 10:30], labels.instances[30:50, 10:30] = 1, 900
    steps = [
        {"Affine": {"rotate": [30, 60], "p": 1}},
        {"ElasticTransform": {"alpha": 20, "p": 1}},
        {"Perspective": {"p": 1}},
        {"RandomScale": {"scale_limit": 0.5, "p": 1}},
    ]
    for seed in range(5):
        result = PixelAugmentation(steps, 64)(np.zeros((64, 64, 3), np.uint8), labels, seed=seed)
        assert set(np.unique(result.classes)) == {-1, 0, 1, 5}
        assert set(np.unique(result.instances)) == {0, 1, 900}
        assert ((result.instances == 900) == (result.classes == 5)).all()


def test_what_a_shift_leaves_empty_is_ignored() -> None:
    step = {"Affine": {"translate_percent": [0.25, 0.25], "p": 1}}
    result = PixelAugmentation([step], 32)(np.zeros((32, 32, 3), np.uint8), blank(32, 32))
    assert (result.classes[:8] == -1).all()
    assert (result.classes[:, :8] == -1).all()
    assert (result.classes[9:, 9:] == 0).all()


def test_a_boundary_is_where_labels_meet_and_not_where_the_picture_or_knowledge_ends() -> None:
    row = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3, 3]])
    known = np.ones(row.shape, bool)
    assert find_boundary(row, known, 1)[0].astype(int).tolist() == [0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0]
    assert find_boundary(row, known, 2)[0].astype(int).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    known[0, 10:] = False
    assert find_boundary(row, known, 1)[0].astype(int).tolist() == [0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0]
    assert disc(2).sum() == 13


def epoch(images: list[SegmentedImage], workers: int, salt: str = "0") -> list[PixelBatch]:
    pictures = SegmentedPictures(images, PixelAugmentation(DEFAULT_AUGMENT, 32), salt=salt, boundary=2)
    sampler = AddressSampler(repeat_factors(images, 0.5), 2, seed=0)
    return list(DataLoader(pictures, batch_size=2, sampler=sampler, collate_fn=collate, num_workers=workers))


def test_an_epoch_is_the_same_with_any_number_of_workers_and_another_in_another_run(images: list[SegmentedImage]) -> None:
    alone, together, other = epoch(images, 0), epoch(images, 2), epoch(images, 0, "1")
    assert len(alone) == 2
    for one, same, different in zip(alone, together, other, strict=True):
        assert torch.equal(one.images, same.images)
        assert torch.equal(one.targets.classes, same.targets.classes)
        assert one.targets.boundary is not None
        assert same.targets.boundary is not None
        assert one.targets.boundary.shape == (2, 32, 32)
        assert torch.equal(one.targets.boundary, same.targets.boundary)
        assert one.addresses == same.addresses
        assert not torch.equal(one.images, different.images)


def test_a_transform_that_takes_no_masks_along_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"augment\.0: RandomSizedBBoxSafeCrop: expected a transform of a picture and its masks"
    ):
        PixelAugmentation([{"RandomSizedBBoxSafeCrop": {"height": 32, "width": 32}}], 32)
    with pytest.raises(ConfigError, match="albumentations' transforms, but got 'Nonsense'"):
        PixelAugmentation([{"Nonsense": {}}], 32)
