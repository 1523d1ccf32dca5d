"""Augmentation of pictures with their boxes and masks, by albumentations, and the letterbox behind it."""

from __future__ import annotations

import os
import random
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from detkd.errors import ConfigError, DetkdError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Pixels = npt.NDArray[np.uint8]

Labels = Literal["boxes", "masks"]

GREY = 114  # what lies beside the picture
MIN_VISIBILITY = 0.1  # of a box, or its object can hardly be told any more
MIN_SIDE = 1.0  # pixels of the network's input
STREAMS = "one for all"  # that transforms draw from: caches name it, as their views change with it


class Augmented(NamedTuple):
    """A picture after augmentation, S pixels square, and the K of its N objects that are still in it.

    Attributes:
        pixels: RGB, [S, S, 3].
        boxes: x1, y1, x2, y2 in its pixels, [K, 4].
        kept: Which of the objects they are, [K].
        masks: Their masks, [K, S, S]; None where none were given.
    """

    pixels: Pixels
    boxes: npt.NDArray[np.float64]
    kept: npt.NDArray[np.int64]
    masks: Pixels | None


class Augmentation:
    """A list of transforms, and behind it the scaling and padding of the picture to a square.

    The picture keeps its proportions, its longer side fills the square, and it lies in the square's upper left corner.

    Args:
        steps: Each the name of one of albumentations' transforms to its arguments, as in ``{HorizontalFlip: {p: 0.5}}``;
            without any the picture is only letterboxed.
        imgsz: Side of the square in pixels.

    Attributes:
        square: How the square is made, beside the steps.

    Raises:
        ConfigError: One line for each step that albumentations does not know, whose arguments it refuses, or that does not
            leave a picture.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], imgsz: int) -> None:
        library = import_albumentations()
        self.imgsz = imgsz
        self.square = {"imgsz": imgsz}
        self._compose = library.Compose(
            [*make_transforms(steps), scale_to(imgsz), pad_to(imgsz)], bbox_params=_box_parameters()
        )

    def __call__(
        self, pixels: Pixels, boxes: npt.NDArray[np.float64], masks: Pixels | None = None, *, seed: int = 0
    ) -> Augmented:
        """Augment one picture.

        Args:
            pixels: RGB, [H, W, 3].
            boxes: x1, y1, x2, y2 in its pixels, [N, 4].
            masks: 1 where an object is, [N, H, W].
            seed: What the picture depends on beside the arguments: the same in every process and order.
        """
        reseed(self._compose, seed)
        extra = {} if masks is None or not len(masks) else {"masks": masks}
        result = self._compose(image=pixels, bboxes=boxes, index=np.arange(len(boxes)), **extra)
        found = np.asarray(result["bboxes"], np.float64).reshape(-1, 4)
        # Not by albumentations, which would judge the size that a box has behind each of the transforms.
        large = (found[:, 2:] - found[:, :2] >= MIN_SIDE).all(1)
        kept = np.asarray(result["index"], dtype=np.int64)[large]
        if masks is not None:
            shape = (0, self.imgsz, self.imgsz)
            masks = np.asarray(result["masks"])[kept] if extra else np.zeros(shape, np.uint8)
        return Augmented(result["image"], found[large], kept, masks)


def reseed(compose: Any, seed: int) -> None:
    """Set what a composition draws from.

    Its own ``set_random_seed`` gives each transform a stream that begins alike: what is mirrored would be recoloured, too.
    """
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))


def scale_to(imgsz: int) -> Any:
    """The transform that brings a picture's longer side to so many pixels."""
    import cv2

    # INTER_NEAREST takes the pixel to the upper left of the nearest one: masks would lie beside their picture.
    return import_albumentations().LongestMaxSize(
        imgsz, area_for_downscale="image", mask_interpolation=cv2.INTER_NEAREST_EXACT
    )


def pad_to(imgsz: int) -> Any:
    """The transform that fills a picture up to a square of so many pixels, to its right and below it."""
    return import_albumentations().PadIfNeeded(imgsz, imgsz, position="top_left", border_mode=0, fill=GREY, fill_mask=0)


def import_albumentations() -> Any:
    """Import albumentations, kept from asking the network for newer versions.

    Raises:
        DetkdError: If it is not installed.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ModuleNotFoundError as error:
        raise DetkdError("Augmentation needs albumentations: pip install 'detkd[torchvision]'.") from error
    return albumentations


def make_transforms(steps: Sequence[Mapping[str, Any]], takes: Labels = "boxes") -> list[Any]:
    """Build albumentations' transforms, and try each of them on a picture.

    Args:
        steps: Each the name of a transform to its arguments.
        takes: What every transform has to take along.

    Raises:
        ConfigError: One line for each fault.
    """
    transforms: list[Any] = []
    faults: list[str] = []
    for number, step in enumerate(steps):
        try:
            transforms.append(_make_transform(step, takes))
        except ConfigError as error:
            faults += [f"augment.{number}: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError("\n".join(faults))
    return transforms


def _make_transform(step: Mapping[str, Any], takes: Labels) -> Any:
    library = import_albumentations()
    if len(step) != 1:
        raise ConfigError(f"expected one transform's name to its arguments, but got {dict(step)!r}.")
    ((name, arguments),) = step.items()
    kind: Any = getattr(library, name, None)
    known = isinstance(kind, type) and issubclass(kind, library.BasicTransform)
    if not known:
        raise ConfigError(f"expected the name of one of albumentations' transforms, but got {name!r}.")
    targets = library.core.type_definitions.Targets
    needed = targets.BBOXES if takes == "boxes" else targets.MASK
    if needed not in kind._targets and not issubclass(kind, library.ImageOnlyTransform):
        raise ConfigError(f"{name}: expected a transform that takes {takes} along, but it does not.")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of an unknown argument it only warns
        try:
            transform = kind(**(arguments or {}))
        except (ValueError, TypeError, UserWarning) as error:
            raise ConfigError("\n".join(f"{name}: {reason}" for reason in _reasons(error))) from error
    _try_out(name, transform, takes)
    return transform


def _reasons(error: Exception) -> list[str]:
    """What albumentations refused; pydantic's errors without its links."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return [one_line(error)]
    return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}; got {fault['input']!r}." for fault in details()]


def _try_out(name: str, transform: Any, takes: Labels) -> None:
    library = import_albumentations()
    chance, transform.p = transform.p, 1.0
    try:
        pixels = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), dtype=np.uint8)
        if takes == "boxes":
            compose = library.Compose([library.NoOp(), transform], bbox_params=_box_parameters())
            result = compose(image=pixels, bboxes=np.array([[256.0, 256.0, 768.0, 768.0]]), index=np.arange(1))["image"]
        else:
            compose = library.Compose([library.NoOp(), transform])
            result = compose(image=pixels, mask=np.ones((1024, 1024, 2), np.int16))["image"]
    except Exception as error:
        reason = f"{type(error).__name__} {one_line(error)}"  # a KeyError says no more than a name
        raise ConfigError(f"{name}: expected a transform of a picture and its {takes} alone, but: {reason}") from error
    finally:
        transform.p = chance
    if not isinstance(result, np.ndarray) or result.dtype != np.uint8 or result.ndim != 3:
        raise ConfigError(
            f"{name}: expected a picture of 8 bits a channel behind it, which the network's input is made from."
        )


def _box_parameters() -> Any:
    return import_albumentations().BboxParams(
        format="pascal_voc",
        label_fields=["index"],
        min_visibility=MIN_VISIBILITY,
        clip=True,
        filter_invalid_bboxes=True,
    )
