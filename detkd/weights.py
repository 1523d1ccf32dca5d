"""Plain state dicts: reading them, and filling of a model what fits."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detkd.errors import WeightsError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


CHUNK = 2**22  # bytes that are read at a time
METADATA = "detkd.architecture"  # in the header of a checkpoint, where a model says as JSON what it was built as


class ForeignClassesError(WeightsError):
    """A file asks for classes beyond tensors and plain values."""


@dataclass(frozen=True)
class FillReport:
    """How much of a model a state dict filled."""

    filled: int
    offered: int
    model: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.filled} of the file's {self.offered} tensors fit and fill the model's {self.model}"


def read_state_dict(path: Path) -> dict[str, Tensor] | None:
    """Read a plain state dict (``.pt``, ``.pth`` or ``.safetensors``); None where the file is a whole pickled checkpoint.

    Raises:
        WeightsError: If the file is missing or unreadable.
    """
    if not path.is_file():
        raise WeightsError(f"Expected a weights file, but there is none at {path}.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = read_tensors(path)
    except ForeignClassesError:
        return None  # a whole checkpoint, or nothing that may be loaded; the caller decides
    # Once it is at work, ultralytics declares its classes and torch's layers safe, and so torch reads whole models, too.
    if any(isinstance(value, nn.Module) for value in (content.values() if isinstance(content, dict) else (content,))):
        return None
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise WeightsError(f"Expected {path} to hold a plain state dict (names to tensors), but it does not.")
    return content


def read_tensors(path: Path) -> Any:
    """Read tensors and plain values that torch has saved, and run nothing that the file may carry.

    Raises:
        ForeignClassesError: If the file asks for anything else.
        WeightsError: If it is missing or broken.
    """
    if not path.is_file():
        raise WeightsError(f"Expected a file of tensors, but there is none at {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ForeignClassesError(f"Expected {path} to hold tensors and plain values alone: {one_line(error)}") from error
    except Exception as error:  # the file chooses what is called with what, and so what is raised
        raise WeightsError(f"Expected a readable weights file, but {path} is broken: {one_line(error)}") from error


def saved_name(path: Path) -> str | None:
    """Name of the architecture that a ``.safetensors`` says it is of; None where it is unreadable or silent."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            name = json.loads((file.metadata() or {}).get(METADATA, "{}")).get("name")
    except (SafetensorError, OSError, ValueError, RecursionError, AttributeError):
        return None  # whoever loads it says why
    return name if isinstance(name, str) else None


def weights_digest(path: Path) -> str | None:
    """A checksum of the weights in a file, without loading them; of a folder of transformers, of those that lie in it.

    Of what torch has saved it is one of the tensors' bytes alone: a checkpoint has the date in it, and the same weights
    saved anew are no other ones.

    Args:
        path: The file or folder.

    Returns:
        32 hexadecimal digits; None where there are no weights, or they can't be read: whoever loads them says why.
    """
    checksum = hashlib.blake2b(digest_size=16)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    try:
        for file in files:
            tensors = hashlib.blake2b(digest_size=16)
            if _add_saved_tensors(tensors, file):
                checksum.update(tensors.digest())
            else:
                with file.open("rb") as content:
                    _add(checksum, content)
    except OSError:
        return None
    return checksum.hexdigest() if files else None


def _add_saved_tensors(checksum: hashlib.blake2b, path: Path) -> bool:
    """Add the tensors that torch has saved in a file to a checksum; False where there are none, or it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = sorted(
                (member for member in archive.infolist() if member.filename.split("/")[1:2] == ["data"]),
                key=lambda member: member.filename,
            )
            if any(member.compress_type != zipfile.ZIP_STORED for member in tensors):
                return False  # torch compresses nothing, and a little may become very much
            for member in tensors:
                # Named below the folder, which is called as the file was when it was written.
                checksum.update(f"{member.filename.partition('/')[2]} {member.file_size} ".encode())
                with archive.open(member) as content:
                    _add(checksum, content)
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError):
        return False
    return bool(tensors)


def _add(checksum: hashlib.blake2b, content: IO[bytes]) -> None:
    while chunk := content.read(CHUNK):
        checksum.update(chunk)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"Expected a readable weights file, but {path} is broken: {one_line(error)}") from error


def fill(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> FillReport:
    """Copy the tensors whose name and shape fit; everything else of the model stays as it was.

    Modules that know the names of their own older releases, as torchvision's do, take those too.

    Args:
        model: The model.
        state: The tensors.
        path: Where they are from, for messages.

    Raises:
        WeightsError: If none fits.
    """
    own = model.state_dict()
    shaped = {name: value for name, value in state.items() if name not in own or own[name].shape == value.shape}
    try:
        unused = model.load_state_dict(shaped, strict=False).unexpected_keys  # copies into the model's own dtype
    except RuntimeError as error:  # a tensor of an older name has another shape
        raise WeightsError(f"Expected weights that fit the model in {path}, but: {one_line(error)}") from error
    filled = len(shaped) - len(unused)
    if not filled:
        raise WeightsError(
            f"Expected weights that fit the model, but none of the {len(state)} tensors of {path} has the name and shape "
            f"of one of the model's {len(own)} (file: {next(iter(state))!r}, model: {next(iter(own))!r})."
        )
    return FillReport(filled=filled, offered=len(state), model=len(own))
