"""Augmentation of pictures with their masks, and how they are brought to the network's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detkd.data.augment import import_albumentations, make_transforms, pad_to, reseed, scale_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detkd.data.masks import PixelLabels
    from detkd.types import Mode


class AugmentedPixels(NamedTuple):
    """A picture after augmentation, S pixels square.

    Attributes:
        pixels: RGB, [S, S, 3].
        classes: 0 for the background, 1 + the index of the class, -1 where nothing is known, as beside the picture, [S, S].
        instances: Numbers of the objects, 0 outside of them, [S, S].
    """

    pixels: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int16]
    instances: npt.NDArray[np.int16]


class PixelAugmentation:
    """A list of transforms, and behind it what brings the picture to a square.

    What a transform leaves empty, and what lies beside the picture, is ignored, as long as its ``fill_mask`` is 0, the
    default of all. Masks are never interpolated.

    Args:
        steps: Each the name of one of albumentations' transforms to its arguments, as in ``{HorizontalFlip: {p: 0.5}}``.
        imgsz: Side S of the square in pixels.
        mode: ``fit`` scales the longer side to the square, and the picture lies in its upper left corner; ``tiles`` keeps
            the scale, and cuts a square of it by chance.

    Attributes:
        square: How the square is made, beside the steps.

    Raises:
        ConfigError: One line for each step that albumentations does not know, whose arguments it refuses, or that does not
            leave a picture.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], imgsz: int, mode: Mode = "fit") -> None:
        import cv2

        library = import_albumentations()
        # A composition's word on masks is law to all in it: the square, which needs another, is one of its own.
        free = library.Compose(make_transforms(steps, "masks"), mask_interpolation=cv2.INTER_NEAREST)
        pad = pad_to(imgsz)
        square = [scale_to(imgsz), pad] if mode == "fit" else [pad, library.RandomCrop(imgsz, imgsz)]
        self.imgsz, self.mode = imgsz, mode
        self.square = {"imgsz": imgsz, "mode": mode}
        self._compose = library.Compose([free, *square])

    def __call__(self, pixels: npt.NDArray[np.uint8], labels: PixelLabels, *, seed: int = 0) -> AugmentedPixels:
        """Augment one picture.

        Args:
            pixels: RGB, [H, W, 3].
            labels: What it shows, [H, W].
            seed: What the picture depends on beside the arguments: the same in every process and order.
        """
        reseed(self._compose, seed)
        # One more than the class: 0, which transforms fill masks with, says then that nothing is known.
        mask = np.stack((labels.classes + 1, labels.instances), -1).astype(np.int16)
        result = self._compose(image=pixels, mask=mask)
        return AugmentedPixels(result["image"], result["mask"][..., 0] - 1, result["mask"][..., 1])
