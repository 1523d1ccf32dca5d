"""Pictures in one folder per class, in a folder or a zip, held in memory."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

from detkd.data.class_splits import ClassSplits
from detkd.data.description import SPLITS
from detkd.data.pictures import IMAGE_SUFFIXES, decode_picture
from detkd.errors import DataError
from detkd.seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    from torch import Tensor

HELD_OUT = 0.1  # of a class's training pictures, for `val`
BROKEN_MEMBER = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, RuntimeError, NotImplementedError, ValueError),
)
LARGEST_MEMBER = 2**26  # bytes of a picture's file: a zip may say that a few bytes become any number


class ClassifiedPicture(NamedTuple):
    """A picture, RGB of [3, S, S], and the index of its class."""

    pixels: npt.NDArray[np.uint8]
    label: int

    def picture_bytes(self) -> bytes:
        """The pixels, to take a digest of."""
        return self.pixels.tobytes()

    def label_bytes(self) -> bytes:
        """The class, to take a digest of."""
        return str(self.label).encode()


@dataclass(frozen=True)
class ClassifiedPictures:
    """Pictures of one size with a class each.

    Attributes:
        pixels: RGB, [N, 3, S, S].
        labels: Index of the class, [N].
        names: Path of each picture, as its folder or zip calls it.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[ClassifiedPicture]:
        return map(ClassifiedPicture, self.pixels, self.labels.tolist())

    def by_length(self, places: Sequence[int]) -> npt.NDArray[np.int64]:
        """The order of chosen samples that fills up little, [N]: any, since all pictures are of one size."""
        return np.arange(len(places))

    def batch(self, chosen: Sequence[int]) -> Tensor:
        """Some pictures in [0, 1], [B, 3, S, S]."""
        return torch.from_numpy(self.pixels[list(chosen)]).float() / 255


@dataclass(frozen=True)
class PictureDataset(ClassSplits[ClassifiedPictures]):
    """Splits of classified pictures.

    Attributes:
        names: Names of the classes, in alphabetical order.
        parts: The pictures of each split.
        holds_out: Whether its `val` is a share of the training pictures.
    """

    holds_out: bool = False
    tokenizer: None = None

    def images(self, split: str) -> Sequence[str]:
        """Names of a split's pictures."""
        return self.parts[split].names

    @classmethod
    def load(cls, root: Path, imgsz: int, *, subset: int | None = None, held_out: float = HELD_OUT) -> PictureDataset:
        """Read `train`, `test` and, where it is there, `val` below a folder, each a folder or a zip.

        Which pictures are held out of `train` for `val`, and which are left out of a subset, goes by their names alone: it
        is the same in every run.

        Args:
            root: The folder.
            imgsz: Side of the pictures in pixels; others are scaled to it, whatever their proportions.
            subset: Most training pictures of a class; None takes all.
            held_out: Share of a class's training pictures that become `val`, where there is none.

        Raises:
            DataError: If a split is missing, has other classes, no pictures, or one that cannot be read.
        """
        found = {split: _members(root, split) for split in SPLITS}
        names = tuple(sorted(found["train"] or ()))
        for split in ("train", "test"):
            if not found[split]:
                raise DataError(f"{root}: expected `{split}/` or `{split}.zip` with a folder of pictures for each class.")
        for split, classes in found.items():
            if classes and not set(classes) <= set(names):
                raise DataError(
                    f"{root}: expected the classes {list(names)} of train in {split}, but got {sorted(classes)}."
                )
        train = {name: _shuffled(members) for name, members in found["train"].items()}
        folders = {split: split for split in SPLITS}
        if not found["val"]:
            folders["val"] = "train"
            counts = {name: max(1, round(held_out * len(members))) for name, members in train.items()}
            found["val"] = {name: members[: counts[name]] for name, members in train.items()}
            train = {name: members[counts[name] :] for name, members in train.items()}
        found["train"] = {name: members[:subset] for name, members in train.items()}
        empty = [f"{split} {name}" for split, classes in found.items() for name in classes if not classes[name]]
        if empty:
            raise DataError(f"{root}: expected two pictures or more of each class, but found too few of {empty}.")
        parts = {split: _read(root, folders[split], classes, names, imgsz) for split, classes in found.items()}
        return cls(names, parts, folders["val"] == "train")


def _shuffled(members: Sequence[str]) -> list[str]:
    return sorted(members, key=seed_of)


def _members(root: Path, split: str) -> dict[str, list[str]]:
    """Paths of a split's pictures, CLASS/FILE, by their class; empty where there is no such split."""
    archive, folder = root / f"{split}.zip", root / split
    if archive.is_file():
        try:
            with zipfile.ZipFile(archive) as file:
                paths = [info.filename for info in file.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{archive}: expected a readable zip, but: {error}.") from error
    else:
        paths = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*")) if path.is_file()]
    classes: dict[str, list[str]] = {}
    for path in sorted(paths):
        parts = PurePosixPath(path).parts
        if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES or parts[0] == "__MACOSX":
            continue
        if len(parts) != 2 or ".." in parts or "\\" in path or PurePosixPath(path).is_absolute():
            raise DataError(f"{root}: expected pictures as CLASS/FILE in {split}, but got {path!r}.")
        classes.setdefault(parts[0], []).append(path)
    return classes


def _read(
    root: Path, own: str, classes: Mapping[str, Sequence[str]], names: Sequence[str], imgsz: int
) -> ClassifiedPictures:
    """Decode the chosen pictures, in the order of their names, from a folder or its zip."""
    members = sorted((path, names.index(name)) for name, paths in classes.items() for path in paths)
    archive = root / f"{own}.zip"
    pixels = np.empty((len(members), 3, imgsz, imgsz), np.uint8)
    if archive.is_file():
        with zipfile.ZipFile(archive) as file:
            _decode(members, lambda path: _unpack(file, path, archive), archive, pixels)
    else:
        _decode(members, lambda path: (root / own / path).read_bytes(), root / own, pixels)
    return ClassifiedPictures(
        pixels, np.array([label for _, label in members], np.int64), tuple(path for path, _ in members)
    )


def _unpack(file: zipfile.ZipFile, path: str, archive: Path) -> bytes:
    if file.getinfo(path).file_size > LARGEST_MEMBER:
        raise DataError(f"{archive}: expected pictures of {LARGEST_MEMBER} bytes at most, but {path} has more.")
    try:
        return file.read(path)
    except BROKEN_MEMBER as error:
        raise DataError(f"{archive}: expected a readable {path}, but: {error}.") from error


def _decode(
    members: Sequence[tuple[str, int]], read: Callable[[str], bytes], where: Path, pixels: npt.NDArray[np.uint8]
) -> None:
    side = pixels.shape[2]
    for place, (path, _) in enumerate(members):
        picture = decode_picture(io.BytesIO(read(path)), f"{where}: {path}")
        if picture.shape[:2] != (side, side):
            picture = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))
        pixels[place] = picture.transpose(2, 0, 1)
