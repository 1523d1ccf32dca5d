from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from detkd.data.augment import GREY, Augmentation
from detkd.data.masks import PixelLabels
from detkd.data.pixel_augment import PixelAugmentation
from detkd.errors import ConfigError


def picture(width: int = 80, height: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_the_letterbox_keeps_proportions_and_lies_in_the_corner() -> None:
    result = Augmentation([], 64)(picture(), np.array([[0.0, 0.0, 80.0, 40.0], [40.0, 20.0, 80.0, 40.0]]))
    assert result.pixels.shape == (64, 64, 3)
    np.testing.assert_allclose(result.boxes, [[0, 0, 64, 32], [32, 16, 64, 32]])
    assert (result.pixels[32:] == GREY).all()
    assert not (result.pixels[:32] == GREY).all()
    tall = Augmentation([], 64)(picture(40, 160), np.array([[0.0, 0.0, 40.0, 160.0]]))
    np.testing.assert_allclose(tall.boxes, [[0, 0, 16, 64]])


def test_boxes_and_masks_go_along_and_what_leaves_the_picture_is_gone() -> None:
    masks = np.zeros((2, 40, 80), np.uint8)
    masks[0, :, :20] = 1
    masks[1, 10:20, 60:80] = 1
    boxes = np.array([[0.0, 0.0, 20.0, 40.0], [60.0, 10.0, 80.0, 20.0]])
    flipped = Augmentation([{"HorizontalFlip": {"p": 1}}], 80)(picture(), boxes, masks)
    np.testing.assert_allclose(flipped.boxes, [[60, 0, 80, 40], [0, 10, 20, 20]])
    assert flipped.masks is not None
    assert flipped.masks[0, :40, 60:].all()
    assert flipped.masks[0].sum() == 20 * 40
    crop = {"Crop": {"x_min": 0, "y_min": 0, "x_max": 61, "y_max": 40}}  # a twentieth of the second object is left
    cropped = Augmentation([crop], 61)(picture(), boxes, masks)
    assert cropped.kept.tolist() == [0]
    assert cropped.masks is not None
    assert cropped.masks.shape == (1, 61, 61)


def test_pictures_without_objects() -> None:
    result = Augmentation([{"Affine": {"scale": [0.5, 1.5]}}], 64)(
        picture(), np.zeros((0, 4)), np.zeros((0, 40, 80), np.uint8), seed=3
    )
    assert result.boxes.shape == (0, 4)
    assert result.masks is not None
    assert result.masks.shape == (0, 64, 64)


SCRIPT = """
import hashlib, numpy as np
from detkd.lightning_config import DEFAULT_AUGMENT
from detkd.data.augment import Augmentation
augment = Augmentation(DEFAULT_AUGMENT, 64)
pixels = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
boxes = np.array([[1.0, 2, 30, 35]])
for seed in {order}:
    result = augment(pixels, boxes, seed=seed)
    print(seed, hashlib.md5(result.pixels.tobytes() + result.boxes.tobytes()).hexdigest())
"""


def test_a_seed_gives_the_same_picture_in_every_process_and_order() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT.format(order=order)], capture_output=True, text=True, check=True
        ).stdout
        for order in ([1, 2, 3], [3, 1, 2])
    ]
    first, second = (set(text.splitlines()) for text in found)
    assert first == second
    assert len({line.split()[1] for line in first}) == 3


@pytest.mark.parametrize(
    ("steps", "reasons"),
    [
        ([{"Flip": {}}], [r"augment\.0: expected the name of one of albumentations' transforms, but got 'Flip'"]),
        ([{"Compose": {}}], ["but got 'Compose'"]),
        ([{"HorizontalFlip": {"q": 1}}], [r"augment\.0: HorizontalFlip: Argument\(s\) 'q' are not valid"]),
        ([{"HorizontalFlip": {"p": 2}}], ["HorizontalFlip: p: Input should be less than or equal to 1; got 2"]),
        ([{"HorizontalFlip": {}, "VerticalFlip": {}}], ["expected one transform's name"]),
        ([{"HorizontalFlip": 3}], ["HorizontalFlip"]),
        ([{"Normalize": {}}], ["Normalize: expected a picture of 8 bits"]),
        ([{"OverlayElements": {}}], ["takes boxes along"]),
        ([{"Mosaic": {"p": 0.5}}], ["Mosaic: expected a transform of a picture and its boxes alone"]),
        ([{"NoOp": None}, {"Flip": {}}, {"Blur": {"p": -1}}], [r"augment\.1: .*\n", r"augment\.2: Blur: p:"]),
    ],
)
def test_faulty_steps_are_all_named(steps: list[dict[str, Any]], reasons: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Augmentation(steps, 64)
    for reason in reasons:
        error.match(reason)


@pytest.mark.parametrize(("side", "most"), [(1024, 0.2), (512, 0.3), (300, 0.1), (96, 0.1)])
def test_masks_lie_on_their_picture(side: int, most: float) -> None:
    """At 2:1 no pixel is the nearest one, and a quarter of a pixel remains."""
    y, x = np.mgrid[:side, :side]
    disc = ((x - 0.4 * side) ** 2 + (y - 0.45 * side) ** 2 < (0.2 * side) ** 2).astype(np.uint8)
    box = np.array([[0.2, 0.25, 0.6, 0.65]]) * side
    seen = Augmentation([], 256)(np.repeat(disc[..., None] * 255, 3, 2), box, disc[None])
    labels = PixelLabels(disc.astype(np.int16), disc.astype(np.int32), np.zeros(1, np.int64))
    learnt = PixelAugmentation([], 256)(np.repeat(disc[..., None] * 255, 3, 2), labels)
    assert seen.masks is not None
    for picture, mask in ((seen.pixels, seen.masks[0]), (learnt.pixels, learnt.classes)):
        shown, labelled = (np.array(middle(values)) for values in (picture[..., 0] / 255.0, mask))
        assert np.abs(shown - labelled).max() < most


def middle(weights: np.ndarray) -> tuple[float, float]:
    """Centre of mass, in pixels."""
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return float((x * weights).sum() / weights.sum()), float((y * weights).sum() / weights.sum())


def test_transforms_draw_apart_from_each_other() -> None:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    both = Augmentation([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}], 8)
    seen = {both(pixels, np.zeros((0, 4)), seed=seed).pixels[0, 0, 0] for seed in range(60)}
    assert seen == {pixels[row, column, 0] for row in (0, 7) for column in (0, 7)}


def test_a_box_is_as_small_as_it_is_in_the_networks_input() -> None:
    """Six pixels there may be less than one in the picture, which a transform has before it."""
    pixels, box = np.zeros((64, 64, 3), np.uint8), np.array([[10.0, 10.0, 10.6, 10.6], [20.0, 20.0, 20.05, 30.0]])
    for steps in ([], [{"HorizontalFlip": {"p": 1.0}}]):
        found = Augmentation(steps, 640)(pixels, box)
        assert found.kept.tolist() == [0]
