"""The built-in data set: scenes of textured shapes, drawn from a seed, in any number and size.

A class is a shape together with a texture, and both occur in other combinations as unlabelled distractors: a detector has
to see form and surface at once. Colours, backgrounds, light, scale and rotation say nothing about the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFilter

from detkd.data.description import SPLITS, read_mapping
from detkd.data.masks import encode_mask, find_outline
from detkd.errors import DataError
from detkd.files import replacing, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    BoolArray = npt.NDArray[np.bool_]

Shape = Literal["disc", "ring", "square", "star", "triangle"]
Texture = Literal["plain", "stripes", "checks", "dots"]

CLASSES: dict[str, tuple[Shape, Texture]] = {
    "striped disc": ("disc", "stripes"),
    "dotted disc": ("disc", "dots"),
    "striped square": ("square", "stripes"),
    "checked square": ("square", "checks"),
    "plain ring": ("ring", "plain"),
    "dotted star": ("star", "dots"),
}
DISTRACTORS: tuple[tuple[Shape, Texture], ...] = (
    ("disc", "plain"),
    ("square", "dots"),
    ("star", "stripes"),
    ("ring", "checks"),
    ("triangle", "stripes"),
    ("triangle", "dots"),
)

KINDS = tuple(CLASSES.values())  # by class index

VERSION = 1  # of the pictures: raised whenever the same seed draws others
SMALLEST = 8  # pixels across
LARGEST_PICTURE = 8192
LARGEST = 0.45  # of the picture's side
VISIBLE = 0.45  # of an object's pixels that what is drawn later leaves uncovered
OVERSAMPLING = 4  # for smooth edges
ATTEMPTS = 20  # to place one object


@dataclass(frozen=True)
class Instance:
    """One labelled object: its class index, visible pixels [H, W], and outline [K, 2] where all of it is visible."""

    label: int
    mask: BoolArray
    outline: FloatArray | None


@dataclass(frozen=True)
class Scene:
    """A picture [H, W, 3] of uint8 and its labelled objects."""

    pixels: npt.NDArray[np.uint8]
    instances: list[Instance]


@dataclass(frozen=True)
class _Placement:
    """Where and how an object lies: centre and radius in pixels, rotation in radians."""

    x: float
    y: float
    radius: float
    angle: float


def write_synthetic(
    folder: Path, counts: Mapping[str, int], *, size: int = 192, seed: int = 0, polygons: bool = False
) -> Path:
    """Draw a data set: ``images/``, YOLO ``labels/``, COCO json with masks for each split, and ``data.yaml``.

    The n-th picture of a split depends on the seed, the split and n alone, so a larger set contains the smaller one.

    Args:
        folder: Where to write; a set made with the same arguments is kept, anything else there is refused.
        counts: Number of pictures of each split, out of ``train``, ``val`` and ``test``.
        size: Side of the square pictures in pixels.
        seed: Seed of everything that is drawn.
        polygons: Whether YOLO labels outline the visible pixels, as ultralytics' segmenters need them, instead of boxes.

    Returns:
        The path of data.yaml.

    Raises:
        DataError: If the folder holds something else, or an argument is out of range.
    """
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown or not counts or min(counts.values()) < 1:
        raise DataError(
            f"Expected argument `counts` to give some of {list(SPLITS)} at least 1 picture, but got {dict(counts)}."
        )
    if not 4 * SMALLEST <= size <= LARGEST_PICTURE:
        raise DataError(f"Expected argument `size` to be from {4 * SMALLEST} to {LARGEST_PICTURE} pixels, but got {size}.")
    recipe = {"version": VERSION, "seed": seed, "size": size, "counts": {split: int(counts[split]) for split in counts}}
    if polygons:  # not told otherwise, so that sets of before there was the choice are known again
        recipe["polygons"] = True
    path = folder / "data.yaml"
    if folder.exists() and any(folder.iterdir()):
        if path.is_file() and read_mapping(path).get("synthetic") == recipe:
            return path
        raise DataError(f"Expected {folder} to be empty or to hold this very data set, but it holds something else.")
    for split, count in counts.items():
        _write_split(folder, split, count, size, seed, polygons=polygons)
    # Without `path`, which ultralytics would take from where it is called.
    content = {**{split: f"images/{split}" for split in counts}, "names": dict(enumerate(CLASSES))}
    # Last, so that a set that was cut short is never taken for a whole one.
    write_text(path, yaml.safe_dump({**content, "synthetic": recipe}, sort_keys=False))
    return path


def draw_scene(random: np.random.Generator, size: int) -> Scene:
    """Draw one picture.

    Args:
        random: Source of all chance.
        size: Side of the picture in pixels.
    """
    canvas = _background(random, size)
    _draw_scratches(random, canvas)
    owner = np.full((size, size), -1)  # index of the object that is seen at each pixel
    areas: list[int] = []
    labels: list[int | None] = []
    outlines: list[FloatArray] = []
    for _ in range(int(random.integers(5, 13))):
        label = None if random.random() < 0.3 else int(random.integers(len(CLASSES)))
        shape, texture = DISTRACTORS[int(random.integers(len(DISTRACTORS)))] if label is None else KINDS[label]
        for _ in range(ATTEMPTS):
            place = _place(random, size)
            coverage = _coverage(shape, place, size)
            pixels = coverage >= 0.5
            if _acceptable(pixels, owner, areas):
                break
        else:
            continue
        _paint(random, canvas, coverage, texture, place)
        owner[pixels] = len(labels)
        areas.append(int(pixels.sum()))
        labels.append(label)
        outlines.append(_outline(shape, place))
    instances = []
    for index, label in enumerate(labels):
        mask = owner == index
        if label is not None:
            whole = int(mask.sum()) == areas[index] and not _touches_border(mask) and KINDS[label][0] != "ring"
            instances.append(Instance(label, mask, outlines[index] if whole else None))
    return Scene(_expose(random, canvas), instances)


def _place(random: np.random.Generator, size: int) -> _Placement:
    low, high = math.log(SMALLEST / 2), math.log(LARGEST * size / 2)
    radius = math.exp(random.uniform(low, high))
    # The centre is inside; up to about a third of an object may lie outside.
    x, y = random.uniform(0.4 * radius, size - 0.4 * radius, 2)
    return _Placement(float(x), float(y), radius, float(random.uniform(0, 2 * math.pi)))


def _acceptable(pixels: BoolArray, owner: npt.NDArray[np.int_], areas: list[int]) -> bool:
    """Whether an object shows enough of itself and leaves enough of the others."""
    if int(pixels.sum()) < SMALLEST**2 // 4:
        return False
    covered = np.bincount(owner[pixels & (owner >= 0)], minlength=len(areas))
    left = np.bincount(owner[owner >= 0], minlength=len(areas)) - covered
    return bool((left >= VISIBLE * np.asarray(areas)).all())


def _outline(shape: Shape, place: _Placement) -> FloatArray:
    """Corners of a shape in pixels, [K, 2]; of a ring, its outer edge."""
    if shape in ("disc", "ring"):
        angles, radii = np.linspace(0, 2 * math.pi, 40, endpoint=False), np.ones(40)
    elif shape == "star":
        angles, radii = np.arange(10) * math.pi / 5, np.tile([1.0, 0.45], 5)
    else:
        corners = 4 if shape == "square" else 3
        angles, radii = np.arange(corners) * 2 * math.pi / corners, np.ones(corners)
    angles = angles + place.angle
    points = np.stack((np.cos(angles), np.sin(angles)), -1) * radii[:, None] * place.radius
    return np.asarray(points + np.array((place.x, place.y)))


def _coverage(shape: Shape, place: _Placement, size: int) -> FloatArray:
    """Share of each pixel that the shape covers, [size, size]."""
    fine = Image.new("L", (size * OVERSAMPLING, size * OVERSAMPLING))
    draw = ImageDraw.Draw(fine)
    outline = _outline(shape, place)
    draw.polygon([tuple(point) for point in (outline * OVERSAMPLING).tolist()], fill=255)
    if shape == "ring":
        hole = (outline - [place.x, place.y]) * 0.55 + [place.x, place.y]
        draw.polygon([tuple(point) for point in (hole * OVERSAMPLING).tolist()], fill=0)
    return np.asarray(fine.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255


def _texture(texture: Texture, place: _Placement, size: int) -> FloatArray:
    """Share of the second colour at each pixel, [size, size], in the object's own coordinates."""
    y, x = np.mgrid[0:size, 0:size] + 0.5
    cos, sin = math.cos(place.angle), math.sin(place.angle)
    u = ((x - place.x) * cos + (y - place.y) * sin) / place.radius
    v = ((y - place.y) * cos - (x - place.x) * sin) / place.radius
    # At least 2.5 pixels a period, or the pattern would be finer than the picture.
    frequency = min(2.5, place.radius / 2.5)
    u, v = 2 * math.pi * frequency * u, 2 * math.pi * frequency * v
    sharpness = 4.0
    if texture == "stripes":
        wave = np.sin(u)
    elif texture == "checks":
        wave = np.sin(u * 0.7) * np.sin(v * 0.7) * 2
    elif texture == "dots":
        wave = np.cos(u * 0.8) + np.cos(v * 0.8) - 0.9
    else:
        return np.zeros((size, size))
    return np.asarray(1 / (1 + np.exp(-sharpness * wave)))


def _paint(
    random: np.random.Generator, canvas: FloatArray, coverage: FloatArray, texture: Texture, place: _Placement
) -> None:
    first = random.uniform(0.05, 0.95, 3)
    # Far enough from the first colour for the texture to be seen.
    second = np.clip(
        first + random.uniform(0.3, 0.6) * np.where(first.mean() > 0.5, -1, 1) + random.normal(0, 0.1, 3), 0, 1
    )
    size = canvas.shape[0]
    share = _texture(texture, place, size)[..., None]
    colour = first * (1 - share) + second * share
    y, x = np.mgrid[0:size, 0:size]
    direction = random.uniform(0, 2 * math.pi)
    slope = ((x - place.x) * math.cos(direction) + (y - place.y) * math.sin(direction)) / place.radius
    light = 1 + random.uniform(0, 0.25) * np.clip(slope, -1, 1)
    alpha = (coverage * random.uniform(0.85, 1.0))[..., None]
    canvas[...] = canvas * (1 - alpha) + np.clip(colour * light[..., None], 0, 1) * alpha


def _background(random: np.random.Generator, size: int) -> FloatArray:
    """Noise of several octaves between two colours, with faint waves across, [size, size, 3]."""
    field = np.zeros((size, size))
    amplitude = 1.0
    for cells in (3, 6, 12, 24, 48):
        grid = Image.fromarray(random.uniform(0, 1, (cells, cells)).astype(np.float32))
        field += amplitude * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
        amplitude *= random.uniform(0.45, 0.8)
    field = (field - field.min()) / (np.ptp(field) + 1e-9)
    y, x = np.mgrid[0:size, 0:size]
    direction, period = random.uniform(0, math.pi), random.uniform(5, 30)
    waves = np.sin(2 * math.pi * (x * math.cos(direction) + y * math.sin(direction)) / period)
    field = np.clip(field + random.uniform(0, 0.2) * waves, 0, 1)[..., None]
    low, high = random.uniform(0, 1, (2, 3))
    return np.asarray(low * (1 - field) + high * field)


def _draw_scratches(random: np.random.Generator, canvas: FloatArray) -> None:
    """Thin lines and flecks of any colour: clutter that is no object."""
    size = canvas.shape[0]
    layer = Image.fromarray((canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(layer)
    for _ in range(int(random.integers(4, 14))):
        start, end = random.uniform(0, size, (2, 2))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        if random.random() < 0.5:
            draw.line([tuple(start.tolist()), tuple(end.tolist())], fill=colour, width=int(random.integers(1, 3)))
        else:
            corners = start + random.uniform(-0.06 * size, 0.06 * size, (4, 2))
            draw.polygon([tuple(point) for point in corners.tolist()], fill=colour)
    canvas[...] = np.asarray(layer, dtype=np.float64) / 255


def _expose(random: np.random.Generator, canvas: FloatArray) -> npt.NDArray[np.uint8]:
    """The camera: blur, contrast, brightness and noise."""
    image = Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 0.7))))
    pixels = np.asarray(image, dtype=np.float64) / 255
    pixels = (pixels - 0.5) * random.uniform(0.6, 1.1) + 0.5 + random.uniform(-0.12, 0.12)
    pixels = pixels + random.normal(0, random.uniform(0.005, 0.04), pixels.shape)
    return np.asarray((np.clip(pixels, 0, 1) * 255).round(), dtype=np.uint8)


def _touches_border(mask: BoolArray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _write_split(folder: Path, split: str, count: int, size: int, seed: int, *, polygons: bool) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene(np.random.default_rng((seed, SPLITS.index(split), index)), size)
        name = f"{index:05d}.jpg"
        with replacing(folder / "images" / split / name) as temporary:
            Image.fromarray(scene.pixels).save(temporary, format="JPEG", quality=92)
        images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
        own = [_annotation(instance, index + 1) for instance in scene.instances]
        for annotation in own:
            annotations.append({"id": len(annotations) + 1, **annotation})
        if polygons:
            rows = [_polygon_row(instance, size) for instance in scene.instances]
        else:
            rows = [_label_row(annotation, size) for annotation in own]
        write_text(folder / "labels" / split / f"{index:05d}.txt", "".join(f"{row}\n" for row in rows))
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    write_json(folder / f"{split}.json", {"images": images, "annotations": annotations, "categories": categories})


def _annotation(instance: Instance, image: int) -> dict[str, Any]:
    """COCO annotation: a polygon where the whole outline is seen, else the visible pixels run-length encoded."""
    rows, columns = np.flatnonzero(instance.mask.any(1)), np.flatnonzero(instance.mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    if instance.outline is not None:
        segmentation: Any = [instance.outline.round(2).ravel().tolist()]
    else:
        segmentation = encode_mask(instance.mask)
    return {
        "image_id": image,
        "category_id": instance.label + 1,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(instance.mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation,
    }


def _label_row(annotation: Mapping[str, Any], size: int) -> str:
    x, y, width, height = annotation["bbox"]
    values = ((x + width / 2) / size, (y + height / 2) / size, width / size, height / size)
    return " ".join([str(annotation["category_id"] - 1), *(f"{value:.6f}" for value in values)])


def _polygon_row(instance: Instance, size: int) -> str:
    corners = find_outline(instance.mask) / size
    return " ".join([str(instance.label), *(f"{value:.6f}" for value in corners.ravel().tolist())])
