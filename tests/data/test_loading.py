from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detkd.data.annotations import AnnotatedImage, AnnotatedObject
from detkd.data.augment import Augmentation
from detkd.data.loading import AugmentedPictures, Batch, training_loader
from detkd.data.sampling import AddressSampler
from detkd.errors import DataError
from detkd.lightning_config import DEFAULT_AUGMENT

POLYGON = [[10, 10, 20, 10, 20, 20, 10, 20]]
RUNS = {"size": [32, 48], "counts": [0, 32, 32 * 47]}  # the first column


@pytest.fixture
def images(tmp_path: Path) -> list[AnnotatedImage]:
    random = np.random.default_rng(0)
    found = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        Image.fromarray(random.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(path)
        objects = [
            AnnotatedObject(1, (10, 10, 20, 20), POLYGON),
            AnnotatedObject(0, (0, 0, 48, 32), None, crowd=True),
            AnnotatedObject(0, (0, 0, 1, 32), RUNS),
        ]
        found.append(AnnotatedImage.of(path, 48, 32, objects if index != 5 else []))
    return found


def epoch(images: list[AnnotatedImage], workers: int, *, number: int = 0, salt: str = "0") -> list[Batch]:
    pictures = AugmentedPictures(images, Augmentation(DEFAULT_AUGMENT, 48), salt=salt)
    sampler = AddressSampler(np.ones(len(images)), 3, seed=0)
    sampler.set_epoch(number)
    return list(training_loader(pictures, sampler, 3, workers))


def test_targets_are_torchvisions(images: list[AnnotatedImage]) -> None:
    pictures = AugmentedPictures(images, Augmentation([], 96), masks=True)
    batch = pictures[0, 0]
    (target,) = batch.targets
    assert batch.images.shape == (1, 3, 96, 96)
    assert batch.images.dtype == torch.uint8
    assert target["boxes"].tolist() == [[20, 20, 40, 40], [0, 0, 2, 64]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [2, 1]
    assert target["masks"].shape == (2, 96, 96)
    assert target["masks"][0, 20:40, 20:40].all()
    assert target["masks"][0].sum() == 400
    assert target["masks"][1, :64, :2].all()
    empty = pictures[5, 0].targets[0]
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].shape == (0,)


def test_an_object_without_a_mask_is_refused_where_masks_are_asked_for(images: list[AnnotatedImage]) -> None:
    bare = AnnotatedImage.of(images[0].path, 48, 32, [AnnotatedObject(0, (0, 0, 9, 9))])
    with pytest.raises(DataError, match="expected a mask for each object"):
        AugmentedPictures([bare], Augmentation([], 48), masks=True)


def test_an_epoch_is_the_same_with_any_number_of_workers_and_another_next_time(images: list[AnnotatedImage]) -> None:
    alone, together = epoch(images, 0), epoch(images, 2)
    assert len(alone) == len(together) == 2
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.addresses == other.addresses
        for first, second in zip(one.targets, other.targets, strict=True):
            assert torch.equal(first["boxes"], second["boxes"])
    by_image = {
        address[0]: picture for batch in alone for address, picture in zip(batch.addresses, batch.images, strict=True)
    }
    for changes in ({"number": 1}, {"salt": "1"}):
        for batch in epoch(images, 0, **changes):
            for address, picture in zip(batch.addresses, batch.images, strict=True):
                assert not torch.equal(picture, by_image[address[0]])
