"""Pascal VOC: one XML file a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from detkd.data.annotations import AnnotatedImage, AnnotatedObject, are_pixels
from detkd.data.pictures import read_size
from detkd.errors import DataError, one_line, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_image(image: Path, annotation: Path, names: Sequence[str]) -> AnnotatedImage:
    """Read the objects of a picture; none where it has no file.

    VOC counts pixels from 1 and both ends of a box belong to it: a box of one pixel has ``xmin == xmax``. Objects marked
    ``difficult`` are left out of training and evaluation, as the challenge does.

    Args:
        image: The picture.
        annotation: Its XML.
        names: Class names in the order of their indices.

    Raises:
        DataError: If the picture or the XML is broken.
    """
    width, height = read_size(image)
    if not annotation.is_file():
        return AnnotatedImage.of(image, width, height, [])
    root = _parse(annotation)
    given = [root.findtext(f"size/{side}", "0").strip() for side in ("width", "height")]
    if given not in ([str(width), str(height)], ["0", "0"]):  # some tools leave the size out
        raise DataError(
            f"{annotation}: expected the size of {image.name}, {width}x{height}, but got {'x'.join(given)[:50]}."
        )
    objects = [_read_object(element, annotation, names) for element in root.findall("object")]
    return AnnotatedImage.of(image, width, height, objects)


def _read_object(element: ElementTree.Element, path: Path, names: Sequence[str]) -> AnnotatedObject:
    name = element.findtext("name", "").strip()
    if name not in names:
        raise DataError(f"{path}: expected an object's class among {list(names)}, but got {shorten(name)}.")
    texts = [element.findtext(f"bndbox/{side}", "") for side in SIDES]
    try:
        x1, y1, x2, y2 = (float(text) for text in texts)
    except ValueError as error:
        raise DataError(f"{path}: expected `bndbox` to hold {list(SIDES)}, but got {shorten(texts)}.") from error
    if not are_pixels([x1, y1, x2, y2]) or x2 < x1 or y2 < y1:
        raise DataError(f"{path}: expected a box from top left to bottom right, but got {shorten(texts)}.")
    difficult = element.findtext("difficult", "0").strip() == "1"
    return AnnotatedObject(names.index(name), (x1 - 1, y1 - 1, x2, y2), crowd=difficult)


def _parse(path: Path) -> ElementTree.Element:
    """Parse XML without a document type: entities, which are declared there, can grow without bound or read files."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{path}: expected XML without a document type, but it declares one. Remove <!DOCTYPE …>.")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (OSError, expat.ExpatError, LookupError, ValueError) as error:  # also an encoding that nobody knows
        raise DataError(f"{path}: expected XML, but: {one_line(error)}.") from error
    return builder.close()
