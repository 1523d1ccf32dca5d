"""What a teacher said of many pictures, on disk: safetensors shards and a json index.

docs/cache.md describes the format. This file reads it; :mod:`detkd.teachers.writer` writes it. Both know tensors and their
names alone, never a model or an engine.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from detkd.errors import CacheError, one_line, shorten
from detkd.trees import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

FORMAT = 1
INDEX = "index.json"
SHARD_BYTES = 64 * 2**20
LARGEST = 2**31 - 1  # of any count
_SHARD = re.compile(r"[A-Za-z0-9_]+-\d{3,}-\d{5,}\.safetensors")
OPEN_SHARDS = 1024  # each is a mapping of memory, of which a process may have some ten thousands
DTYPES = {"float16": torch.float16, "int32": torch.int32}
MAKE_IT = "Make it with detkd cache-teacher"


class View(NamedTuple):
    """One picture that can be composed again exactly: a numbered view of an image, under a stage's transform."""

    stage: str
    view: int
    image: int


class Shard(NamedTuple):
    """One file: a view of a run of images."""

    stage: str
    view: int
    block: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.stage}-{self.view:03d}-{self.block:05d}.safetensors"


@dataclass(frozen=True)
class Field:
    """One tensor of a view."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Field:
        """The field that such a tensor fills."""
        return cls(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    @property
    def bytes(self) -> int:
        """Size of the tensor."""
        return DTYPES[self.dtype].itemsize * torch.Size(self.shape).numel()


@dataclass(frozen=True)
class File:
    """Size and checksum of a shard."""

    bytes: int
    blake2b: str

    @classmethod
    def of(cls, path: Path) -> File | None:
        """The size and checksum that a file has; None where there is none."""
        if not path.is_file():
            return None
        content = path.read_bytes()
        return cls(len(content), digest(content))


@dataclass(frozen=True)
class Index:
    """The content of ``index.json``.

    Attributes:
        fingerprint: What the cache is of: sections of keys and values, which must all be the same in a run that reads it.
        images: Number of images.
        rows: Images in a shard.
        fields: The tensors of a view.
        shards: Every shard that is complete, by the name of its file.
    """

    fingerprint: Mapping[str, Mapping[str, Any]]
    images: int
    rows: int
    fields: Mapping[str, Field]
    shards: Mapping[str, File]

    @classmethod
    def plan(cls, fingerprint: Mapping[str, Mapping[str, Any]], images: int, fields: Mapping[str, Field]) -> Index:
        """The index of a cache without any shard yet."""
        rows = max(1, min(images, SHARD_BYTES // max(1, sum(field.bytes for field in fields.values()))))
        return cls(fingerprint, images, rows, fields, {})

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Read a cache's index.

        Raises:
            CacheError: If there is none, or it is of another format.
        """
        path = folder / INDEX
        try:
            tree = parse_json(path.read_bytes())
            if tree["format"] != FORMAT:
                raise CacheError(
                    f"Expected the teacher cache at {folder} to be of format {FORMAT}, but it is of format "
                    f"{shorten(tree['format'])}. {MAKE_IT} in another folder."
                )
            index = cls(
                fingerprint=tree["fingerprint"],
                images=tree["images"],
                rows=tree["rows"],
                fields={name: Field(field["dtype"], tuple(field["shape"])) for name, field in tree["fields"].items()},
                shards={name: File(**file) for name, file in tree["shards"].items()},
            )
            index.check()
        except FileNotFoundError as error:
            raise CacheError(f"Expected a teacher cache at {folder}, but there is no {INDEX}. {MAKE_IT}.") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CacheError(
                f"Expected {path} to be the index of a teacher cache, but: {type(error).__name__} {one_line(error)}. "
                f"{MAKE_IT} in another folder."
            ) from error
        return index

    def check(self) -> None:
        """Refuse values that no cache has, as a damaged or somebody else's index may hold them.

        Raises:
            ValueError: Naming the key.
        """
        counts = {"images": [self.images], "rows": [self.rows]}
        counts |= {f"fields.{name}.shape": list(field.shape) for name, field in self.fields.items()}
        for key, values in counts.items():
            if not all(type(value) is int and 0 < value <= LARGEST for value in values):
                raise ValueError(f"{key}: expected numbers from 1 to {LARGEST}, got {shorten(values)}")
        for name, field in self.fields.items():
            if field.dtype not in DTYPES:
                raise ValueError(f"fields.{name}.dtype: expected one of {list(DTYPES)}, got {shorten(field.dtype)}")
        for name, file in self.shards.items():
            if not _SHARD.fullmatch(name):  # nothing outside of the folder is read or removed
                raise ValueError(f"shards: expected names such as {Shard('full', 0, 0).name}, got {shorten(name)}")
            if type(file.bytes) is not int or not isinstance(file.blake2b, str):
                raise ValueError(f"shards.{name}: expected its size and checksum, got {shorten(file)}")
        if not all(isinstance(section, dict) for section in self.fingerprint.values()):
            raise ValueError("fingerprint: expected sections of keys and values")

    def as_dict(self) -> dict[str, Any]:
        """The tree that :meth:`load` reads back."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def identity(self) -> str:
        """Short digest of the fingerprint, which every shard carries."""
        return digest(json.dumps(self.fingerprint, sort_keys=True).encode())

    def shards_of(self, views: Mapping[str, int]) -> Iterator[Shard]:
        """All shards of the first views of each stage, in order."""
        for stage, count in views.items():
            for view in range(count):
                for block in range(-(-self.images // self.rows)):
                    yield Shard(stage, view, block)

    def images_of(self, shard: Shard) -> range:
        """The images of a shard, in the order of its rows."""
        return range(shard.block * self.rows, min(self.images, (shard.block + 1) * self.rows))

    def bytes_of(self, shard: Shard) -> int:
        """Size of a shard's tensors."""
        return len(self.images_of(shard)) * sum(field.bytes for field in self.fields.values())

    def check_fingerprint(self, folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse another fingerprint.

        Raises:
            CacheError: One line that names every key that differs, and both its values.
        """
        found, wanted = _flat(self.fingerprint), _flat(json.loads(json.dumps(wanted)))
        differing = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if differing:
            reasons = "; ".join(f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} here" for key in differing)
            raise CacheError(
                f"Expected the teacher cache at {folder} to be made for this run, but it is stale: {reasons}. {MAKE_IT} in "
                "another folder, or run what it was made for."
            )


class Store:
    """A cache that is complete for a run, open for reading; its files are mapped into memory, not loaded.

    Args:
        folder: The cache.
        fingerprint: What the run needs it to be of.
        fields: Names of the tensors that the run reads.
        views: Number of views that the run replays in each stage.

    Raises:
        CacheError: If the cache is stale, incomplete or damaged; the message names the reason.
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, Mapping[str, Any]], fields: Sequence[str], views: Mapping[str, int]
    ) -> None:
        self.folder = folder
        self.index = Index.load(folder)
        self.index.check_fingerprint(folder, fingerprint)
        self._fields = tuple(fields)
        self._check_fields()
        self._check_shards(views)
        self._open = lru_cache(OPEN_SHARDS)(self._load)

    def read(self, views: Sequence[View]) -> dict[str, Tensor]:
        """The fields of some views, each [B, ...] as it is stored.

        Raises:
            CacheError: If a shard turns out to be unreadable or another than its name says.
        """
        rows = [(self._open(Shard(v.stage, v.view, v.image // self.index.rows)), v.image % self.index.rows) for v in views]
        with torch.autocast("cpu", enabled=False):  # which refuses to stack float16 tensors among bfloat16's operations
            return {name: torch.stack([shard[name][row] for shard, row in rows]) for name in self._fields}

    def _load(self, shard: Shard) -> dict[str, Tensor]:
        path = self.folder / shard.name
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in self._fields}
        except (OSError, SafetensorError) as error:
            raise CacheError(f"Expected {path} to be a shard, but: {one_line(error)}. {_REPAIR}") from error
        if metadata != self.metadata(shard):
            raise CacheError(f"Expected {path} to be {self.metadata(shard)}, but it says {metadata}. {_REPAIR}")
        return tensors

    def metadata(self, shard: Shard) -> dict[str, str]:
        """What a shard says of itself."""
        return describe(self.index, shard)

    def _check_fields(self) -> None:
        missing = [name for name in self._fields if name not in self.index.fields]
        if missing:
            raise CacheError(
                f"Expected the teacher cache at {self.folder} to hold what the terms need, but it lacks {missing} and "
                f"holds {list(self.index.fields)}. {MAKE_IT} with these terms in another folder."
            )

    def _check_shards(self, views: Mapping[str, int]) -> None:
        wanted = list(self.index.shards_of(views))
        missing = [shard for shard in wanted if shard.name not in self.index.shards]
        if missing:
            raise CacheError(
                f"Expected the teacher cache at {self.folder} to hold {dict(views)} views, but {len(missing)} of "
                f"{len(wanted)} shards are missing, the first {missing[0].name}. Run detkd cache-teacher again: it "
                "makes what is missing."
            )
        for shard in wanted:
            path, size = self.folder / shard.name, self.index.shards[shard.name].bytes
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                state = "it is missing" if found is None else f"it was truncated or overwritten: it has {found:,}"
                raise CacheError(f"Expected shard {path} to have {size:,} bytes, but {state}. {_REPAIR}")


_REPAIR = "Run detkd cache-teacher again: it makes damaged shards anew."


def describe(index: Index, shard: Shard) -> dict[str, str]:
    """The metadata of a shard: enough to tell it from another's file."""
    return {"format": str(FORMAT), "shard": shard.name, "cache": index.identity}


def digest(content: bytes) -> str:
    """A checksum, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
